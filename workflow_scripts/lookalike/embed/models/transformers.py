"""Family `transformers`: any vision checkpoint from the Hugging Face Hub or a local folder, by configuration alone."""

import inspect
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Transformers
from lookalike.embed import checkpoints, timm_settings
from lookalike.embed.encoders import Machine
from lookalike.embed.layout import MAP, VECTOR
from lookalike.embed.precision import choose_dtype
from lookalike.embed.pretrained import FAILURES, Preparation, load_model
from lookalike.embed.torch_encoder import TorchEncoder, exact_float32
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.exports import Layout
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

OTHERWISE = "Choose another feature, or a checkpoint whose only input is images."


def fetch(entry: Transformers) -> Weights:
    """Fetch the checkpoint's settings and weights."""
    timm_settings.check_installed(entry.checkpoint)
    return checkpoints.fetch(entry.checkpoint, entry.revision, code=entry.remote_code)


def check_available(entry: Transformers) -> None:
    """Raise LookalikeError if the checkpoint is neither a local folder nor in the Hub's cache."""
    timm_settings.check_installed(entry.checkpoint)
    checkpoints.check_available(entry.checkpoint, entry.revision, code=entry.remote_code)


def load(entry: Transformers, weights: Weights, machine: Machine) -> "Network":
    """Load the recorded files, offline."""
    return Network(entry, checkpoints.locate(entry.checkpoint, weights), machine)


class Network(TorchEncoder):
    """A vision model, loaded on a device, with one of its outputs pooled to a vector."""

    def __init__(self, entry: Transformers, folder: Path, machine: Machine) -> None:
        import torch
        import transformers

        self.entry, self.pooling = entry, entry.pooling
        self.where = f"{entry.checkpoint}: feature {entry.feature}, pooling {entry.pooling}"
        super().__init__(machine)
        self.compute_dtype = choose_dtype(entry.compute_dtype, self.torch_device, entry.checkpoint)
        self.dtype = getattr(torch, self.compute_dtype)
        exact_float32()
        self._preparation = Preparation(entry, folder, self.torch_device, entry.remote_code)
        self.geometry = self._preparation.geometry
        if entry.decode == "fast":
            self.needs = self._preparation.needs
        model, missing = load_model(
            transformers.AutoModel,
            entry.checkpoint,
            folder,
            dtype=self.dtype,
            use_safetensors=True,
            trust_remote_code=entry.remote_code,
            **timm_settings.loading(folder),
        )
        # convolutions are fastest with a pixel's channels adjacent in memory, as they are in the input
        self.network = _vision_part(model, entry).to(self.torch_device, memory_format=torch.channels_last)
        self.config = self.network.config
        self._last_layer: Any = None  # the module that returns hidden_states[-1]
        vision_names = {name for name, _ in self.network.named_parameters()}
        self.dimension = try_out(
            self,
            self.where,
            repeatable=_how_to_make_repeatable(self.config),
            otherwise=OTHERWISE,
            missing=[name for name in missing if {name, name.partition(".")[2]} & vision_names] or missing,
            catch=FAILURES,
        )
        self.versions = store.versions("torch", "transformers", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Map an RGB image to (height, width, 3) uint8, or to the processor's own output; see ``Preparation``."""
        return self._preparation.prepare(image)

    def feature(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Map (n, ...) prepared images to the feature, (n, ...) float32."""
        pixels = self._preparation.pixels(batch, self.dtype)
        feature = self._feature(pixels).float()
        self.layout = self._layout(tuple(feature.shape), tuple(pixels.shape[2:]))
        return feature

    def _feature(self, pixels: "torch.Tensor") -> "torch.Tensor":
        arguments: dict[str, Any] = {"pixel_values": pixels}
        forward = self.network.get_image_features if self.entry.feature == "image_features" else self.network.forward
        if self._other_size(pixels) and "interpolate_pos_encoding" in inspect.signature(forward).parameters:
            arguments["interpolate_pos_encoding"] = True
        if self.entry.feature == "image_features":
            features = forward(**arguments)
            features = features if hasattr(features, "shape") else getattr(features, "pooler_output", features)
            if not hasattr(features, "shape"):
                kind = type(features).__name__
                raise LookalikeError(f"{self.where}: returns a {kind}, not one vector per image. {OTHERWISE}")
            return features
        if self.entry.feature == "hidden_states[-1]":
            return self._last_state(arguments)
        feature = getattr(self.network(**arguments), self.entry.feature, None)
        if feature is None:
            raise LookalikeError(f"{self.where}: this architecture has no such feature. Choose another feature.")
        return feature.flatten(1) if self.entry.feature == "pooler_output" else feature

    def _last_state(self, arguments: dict[str, Any]) -> "torch.Tensor":
        """``hidden_states[-1]``, caught at the output of its layer, so that the other states need not stay in memory.

        That layer is located once, with the first batch; if it is missing, all states are kept.
        """
        if self._last_layer is None:
            states, self._last_layer = _find_last_layer(self.network, arguments)
            if states is None:
                raise LookalikeError(f"{self.where}: this architecture has no hidden states. Use last_hidden_state.")
            return states[-1]
        caught: list[torch.Tensor] = []
        hook = self._last_layer.register_forward_hook(lambda _, __, output: caught.append(_first(output)))
        try:
            self.network(**arguments)
        finally:
            hook.remove()
        return caught[-1]

    def _other_size(self, pixels: "torch.Tensor") -> bool:
        """Whether the images' size differs from the one that the position embeddings were trained for."""
        trained = getattr(_vision_config(self.config), "image_size", None)
        sides = tuple(trained) if isinstance(trained, list | tuple) else (trained, trained)
        return trained is not None and tuple(pixels.shape[2:]) != sides

    def _layout(self, shape: tuple[int, ...], sides: tuple[int, int]) -> Layout:
        """Where the patches are in a feature of this shape, (n, ...), of images with these sides, (height, width)."""
        if self.pooling == "none":
            return VECTOR
        if len(shape) == 4:
            return MAP if self._channels_first(shape, sides) else Layout(axes=(1, 2))
        if len(shape) != 3:
            raise LookalikeError(
                f"{self.where}: the feature has the shape {shape}, which is neither tokens nor a map. {OTHERWISE}"
            )
        return self._tokens(shape[1], sides)

    def _channels_first(self, shape: tuple[int, ...], sides: tuple[int, int]) -> bool:
        """Whether a feature map is (n, channels, height, width): by the image's aspect ratio, else by the config.

        SAM's vision encoder returns its hidden states as (n, height, width, channels).
        """
        (a, b, c), (height, width) = shape[1:], sides
        first, last = b * width == c * height, a * width == b * height
        if first == last:
            known = _numbers(_vision_config(self.config).to_dict())
            first, last = a in known, c in known
        if first == last:
            raise LookalikeError(
                f"{self.where}: the feature is a map of {a} x {b} x {c} numbers, and it is ambiguous which of them are "
                "channels. Use feature: pooler_output, or another size."
            )
        return first

    def _tokens(self, tokens: int, sides: tuple[int, int]) -> Layout:
        """How many class and register tokens come before the patches."""
        if (known := getattr(getattr(self.network, "timm_model", None), "num_prefix_tokens", None)) is not None:
            return Layout(axes=(1,), first_patch=int(known))
        config = _vision_config(self.config)
        patch = getattr(config, "patch_size", None)
        height, width = patch if isinstance(patch, list | tuple) else (patch, patch)
        special = tokens - (sides[0] // height) * (sides[1] // width) if height and width else -1
        if special in (0, 1 + (getattr(config, "num_register_tokens", None) or 0), 2):  # 2: DeiT's distillation
            return Layout(axes=(1,), first_patch=special)
        remedy = _how_to_make_repeatable(self.config)  # a network that masks patches returns fewer of them
        remedy = "Use pooling: mean, or feature: pooler_output." if remedy == OTHERWISE else remedy
        return Layout(axes=(1,), problem=f"cannot tell which of the {tokens} tokens are patches. {remedy}")


def _find_last_layer(network: Any, arguments: dict[str, Any]) -> tuple[Any, Any]:
    """All hidden states, and the module that returned the last one; None for either that does not exist."""
    outputs: list[tuple[Any, Any]] = []

    def record(module: Any, _: Any, output: Any) -> None:
        if hasattr(tensor := _first(output), "shape"):
            outputs.append((module, weakref.ref(tensor)))  # weak: all outputs of a large network exceed the memory

    hooks = [module.register_forward_hook(record) for module in network.modules() if module is not network]
    try:
        states = getattr(network(**arguments, output_hidden_states=True), "hidden_states", None)
    finally:
        for hook in hooks:
            hook.remove()
    return states, next((module for module, output in outputs if states and output() is states[-1]), None)


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _vision_config(config: Any) -> Any:
    return getattr(config, "vision_config", config)


def _numbers(settings: Any) -> set[int]:
    """All integers in nested settings; the channel counts of every stage are among them."""
    if isinstance(settings, dict | list | tuple):
        children = settings.values() if isinstance(settings, dict) else settings
        return set().union(*map(_numbers, children))
    return {settings} if isinstance(settings, int) else set()


def _how_to_make_repeatable(config: Any) -> str:
    """Remedy for a network that is not deterministic: switch off its random masks, if it has any."""
    masks = {name: value for name, value in _vision_config(config).to_dict().items() if name.startswith("mask_")}
    masks = {name: value for name, value in masks.items() if isinstance(value, float) and value > 0}
    if not masks:
        return OTHERWISE
    active = ", ".join(f"{name}: {value}" for name, value in masks.items())
    return (
        f"Its config.json has {active}: copy the checkpoint to a folder, set this to 0.0 there, and set 'checkpoint' "
        "to that folder."
    )


def _vision_part(model: Any, entry: Transformers) -> Any:
    """The vision part of a model that may also read text.

    The whole model is loaded first, so that transformers decides which weights, under which names, belong to the vision
    part. The text part is dropped before anything is moved to the device.
    """
    if entry.feature == "image_features":
        if not hasattr(model, "get_image_features"):
            raise LookalikeError(
                f"{entry.checkpoint}: feature image_features: this architecture has no such feature. "
                "Use pooler_output, or last_hidden_state with pooling."
            )
        for name, _ in list(model.named_children()):
            if name.startswith("text") or name == "language_model":
                delattr(model, name)
        return model
    return model.vision_model if hasattr(model, "get_image_features") and hasattr(model, "vision_model") else model
