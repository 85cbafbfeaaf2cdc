"""Family `transformers`: any vision checkpoint of the Hugging Face hub or a local folder, by configuration alone."""

import inspect
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Transformers
from lookalike.embed import checkpoints
from lookalike.embed.encoders import Machine
from lookalike.embed.pretrained import FAILURES, Preparation, choose_dtype, load_model
from lookalike.embed.torch_encoder import TorchEncoder, exact_float32
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

OTHERWISE = "Choose another feature, or a checkpoint that reads images alone."
GEM_POWER, GEM_FLOOR = 3.0, 1e-6  # F. Radenović et al., Fine-tuning CNN Image Retrieval with No Human Annotation (2018)


def fetch(entry: Transformers) -> Weights:
    """Bring the checkpoint here."""
    return checkpoints.fetch(entry.checkpoint, entry.revision, code=entry.remote_code)


def look(entry: Transformers) -> None:
    """Look for the checkpoint in its folder, or in the hub's cache."""
    checkpoints.look(entry.checkpoint, entry.revision, code=entry.remote_code)


def load(entry: Transformers, weights: Weights, machine: Machine) -> "Network":
    """Load the recorded files, offline."""
    return Network(entry, checkpoints.locate(entry.checkpoint, weights), machine)


class Network(TorchEncoder):
    """A vision model on its device, and one of its outputs pooled to a vector."""

    def __init__(self, entry: Transformers, folder: Path, machine: Machine) -> None:
        import torch
        import transformers

        self.entry = entry
        self.where = f"{entry.checkpoint}: feature {entry.feature}, pooling {entry.pooling}"
        super().__init__(machine)
        self.compute_dtype = choose_dtype(entry.compute_dtype, self.torch_device, entry.checkpoint)
        self.dtype = getattr(torch, self.compute_dtype)
        exact_float32()
        self._preparation = Preparation(entry, folder, self.torch_device, entry.remote_code)
        if entry.decode == "fast":
            self.needs = self._preparation.needs
        model, missing = load_model(
            transformers.AutoModel,
            entry.checkpoint,
            folder,
            dtype=self.dtype,
            use_safetensors=True,
            trust_remote_code=entry.remote_code,
        )
        # convolutions are fastest where a pixel's channels lie together, as they do in the pixels that come
        self.network = _vision_part(model, entry).to(self.torch_device, memory_format=torch.channels_last)
        self.config = self.network.config
        self._maker: Any = None  # the module that makes hidden_states[-1]
        here = {name for name, _ in self.network.named_parameters()}
        self.dimension = try_out(
            self,
            self.where,
            repeatable=_what_draws(self.config),
            otherwise=OTHERWISE,
            missing=[name for name in missing if name in here or name.partition(".")[2] in here] or missing,
            catch=FAILURES,
        )
        self.versions = store.versions("torch", "transformers", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """(height, width, 3) uint8, or what the checkpoint's own processor makes; see ``Preparation``."""
        return self._preparation.prepare(image)

    def forward(self, batch: "torch.Tensor") -> "torch.Tensor":
        """(n, ...) prepared pictures to (n, dimension) float32."""
        pixels = self._preparation.pixels(batch, self.dtype)
        return self._pool(self._feature(pixels).float(), pixels)

    def _feature(self, pixels: "torch.Tensor") -> "torch.Tensor":
        asked: dict[str, Any] = {"pixel_values": pixels}
        forward = self.network.get_image_features if self.entry.feature == "image_features" else self.network.forward
        if self._other_size(pixels) and "interpolate_pos_encoding" in inspect.signature(forward).parameters:
            asked["interpolate_pos_encoding"] = True
        if self.entry.feature == "image_features":
            features = forward(**asked)
            features = features if hasattr(features, "shape") else getattr(features, "pooler_output", features)
            if not hasattr(features, "shape"):
                kind = type(features).__name__
                raise LookalikeError(f"{self.where}: gives a {kind}, not one vector for each image. {OTHERWISE}")
            return features
        if self.entry.feature == "hidden_states[-1]":
            return self._last_state(asked)
        found = getattr(self.network(**asked), self.entry.feature, None)
        if found is None:
            raise LookalikeError(f"{self.where}: this architecture has none. Choose another feature.")
        return found.flatten(1) if self.entry.feature == "pooler_output" else found

    def _last_state(self, asked: dict[str, Any]) -> "torch.Tensor":
        """``hidden_states[-1]``, without keeping all the others in memory: what the module gives that makes it.

        That module is looked for once, with the first picture; where there is none, all states are kept.
        """
        if self._maker is None:
            states, self._maker = _maker_of_last_state(self.network, asked)
            if states is None:
                raise LookalikeError(f"{self.where}: this architecture gives no hidden states. Use last_hidden_state.")
            return states[-1]
        caught: list[torch.Tensor] = []
        hook = self._maker.register_forward_hook(lambda _, __, given: caught.append(_first(given)))
        try:
            self.network(**asked)
        finally:
            hook.remove()
        return caught[-1]

    def _other_size(self, pixels: "torch.Tensor") -> bool:
        """Whether the pictures have another size than the position embeddings were learnt for."""
        trained = getattr(_vision_config(self.config), "image_size", None)
        sides = tuple(trained) if isinstance(trained, list | tuple) else (trained, trained)
        return trained is not None and tuple(pixels.shape[2:]) != sides

    def _pool(self, feature: "torch.Tensor", pixels: "torch.Tensor") -> "torch.Tensor":
        pooling = self.entry.pooling
        if pooling == "none":
            return feature
        if feature.ndim == 4:  # a feature map, (n, channels, height, width)
            if pooling in ("cls", "mean_patches"):
                raise LookalikeError(
                    f"{self.where}: the feature is a map without class token. Use pooling: mean or gem."
                )
            feature = self._channels_first(feature, pixels)
            return feature.mean((2, 3)) if pooling == "mean" else _gem(feature.flatten(2).transpose(1, 2))
        if feature.ndim != 3:
            raise LookalikeError(
                f"{self.where}: the feature has the shape {tuple(feature.shape)}; neither tokens nor a map."
            )
        if pooling == "mean":
            return feature.mean(1)
        first = self._tokens_before_patches(feature.shape[1], pixels)
        if pooling == "cls":
            if not first:
                raise LookalikeError(f"{self.where}: this architecture has no class token. Use pooling: mean.")
            return feature[:, 0]
        patches = feature[:, first:]
        return patches.mean(1) if pooling == "mean_patches" else _gem(patches)

    def _channels_first(self, feature: "torch.Tensor", pixels: "torch.Tensor") -> "torch.Tensor":
        """A feature map as (n, channels, height, width): its area has the image's shape, its channels stand in config.

        SAM's vision encoder gives its hidden states as (n, height, width, channels).
        """
        (a, b, c), (height, width) = feature.shape[1:], pixels.shape[2:]
        first, last = b * width == c * height, a * width == b * height
        if first == last:
            known = _numbers(_vision_config(self.config).to_dict())
            first, last = a in known, c in known
        if first == last:
            raise LookalikeError(
                f"{self.where}: the feature is a map of {a} x {b} x {c} numbers, and it cannot be told which of them "
                "are channels. Use feature: pooler_output, or another size."
            )
        return feature if first else feature.permute(0, 3, 1, 2)

    def _tokens_before_patches(self, tokens: int, pixels: "torch.Tensor") -> int:
        """How many class and register tokens stand before the patches."""
        config = _vision_config(self.config)
        patch = getattr(config, "patch_size", None)
        height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
        special = tokens - (pixels.shape[2] // height) * (pixels.shape[3] // width) if height and width else -1
        if special not in (0, 1 + (getattr(config, "num_register_tokens", None) or 0), 2):  # 2: DeiT's distillation
            remedy = _what_draws(self.config)  # a network that masks patches gives fewer of them
            remedy = "Use pooling: mean, or feature: pooler_output." if remedy == OTHERWISE else remedy
            raise LookalikeError(f"{self.where}: cannot tell which of the {tokens} tokens are patches. {remedy}")
        return special


def _maker_of_last_state(network: Any, asked: dict[str, Any]) -> tuple[Any, Any]:
    """All hidden states, and the module whose output the last one is; None where there are no such."""
    made: list[tuple[Any, Any]] = []

    def note(module: Any, _: Any, given: Any) -> None:
        if hasattr(output := _first(given), "shape"):
            made.append((module, weakref.ref(output)))  # all outputs of a large network would not fit into memory

    hooks = [module.register_forward_hook(note) for module in network.modules() if module is not network]
    try:
        states = getattr(network(**asked, output_hidden_states=True), "hidden_states", None)
    finally:
        for hook in hooks:
            hook.remove()
    return states, next((module for module, output in made if states and output() is states[-1]), None)


def _first(given: Any) -> Any:
    return given[0] if isinstance(given, tuple) else given


def _gem(patches: "torch.Tensor") -> "torch.Tensor":
    """Generalised mean of (n, patches, channels); negative values count as 0."""
    return patches.clamp(min=GEM_FLOOR).pow(GEM_POWER).mean(1).pow(1 / GEM_POWER)


def _vision_config(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _numbers(settings: Any) -> set[int]:
    """All whole numbers in settings, however deep: the channels of every stage are among them."""
    if isinstance(settings, dict | list | tuple):
        inside = settings.values() if isinstance(settings, dict) else settings
        return set().union(*map(_numbers, inside))
    return {settings} if isinstance(settings, int) else set()


def _what_draws(config: Any) -> str:
    """What to change of a network that draws at random."""
    drawn = {name: value for name, value in _vision_config(config).to_dict().items() if name.startswith("mask_")}
    drawn = {name: value for name, value in drawn.items() if isinstance(value, float) and value > 0}
    if not drawn:
        return OTHERWISE
    named = ", ".join(f"{name}: {value}" for name, value in drawn.items())
    return f"Its config.json says {named}: copy the checkpoint to a folder, set that to 0.0 there, and name the folder."


def _vision_part(model: Any, entry: Transformers) -> Any:
    """The part that sees pictures, of a model that also reads text.

    The whole model is loaded first: which weights belong to the vision part, and under which names, is then decided by
    transformers and not here. What reads text is dropped before anything is moved to the device.
    """
    if entry.feature == "image_features":
        if not hasattr(model, "get_image_features"):
            raise LookalikeError(
                f"{entry.checkpoint}: feature image_features: this architecture has none. "
                "Use pooler_output, or last_hidden_state with pooling."
            )
        for name, _ in list(model.named_children()):
            if name.startswith("text") or name == "language_model":
                delattr(model, name)
        return model
    return model.vision_model if hasattr(model, "get_image_features") and hasattr(model, "vision_model") else model
