"""Family `blip2`: BLIP-2's vision tower and Q-Former, without the language model.

The vector is the mean of the Q-Former's output over its query tokens. Only these two parts' weights are read, so the
language model (2.7 billion parameters or more) is never in memory.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Blip2
from lookalike.embed import checkpoints
from lookalike.embed.encoders import Machine
from lookalike.embed.layout import TOKENS
from lookalike.embed.precision import choose_dtype
from lookalike.embed.pretrained import FAILURES, Preparation, load_model
from lookalike.embed.torch_encoder import TorchEncoder, exact_float32
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

PARTS = ("vision_model.", "query_tokens", "qformer.")  # prefixes of tensor names in the checkpoint
OTHERWISE = "Use a checkpoint of Blip2Model or Blip2ForConditionalGeneration."


def fetch(entry: Blip2) -> Weights:
    """Fetch the checkpoint's files that hold the two parts."""
    return checkpoints.fetch(entry.checkpoint, entry.revision, parts=PARTS)


def check_available(entry: Blip2) -> None:
    """Raise LookalikeError if the checkpoint is neither a local folder nor in the Hub's cache."""
    checkpoints.check_available(entry.checkpoint, entry.revision, parts=PARTS)


def load(entry: Blip2, weights: Weights, machine: Machine) -> "QFormer":
    """Load the recorded files, offline."""
    return QFormer(entry, checkpoints.locate(entry.checkpoint, weights), machine)


def _architecture() -> Any:
    """``Blip2Model`` without its language model; equal names, so each weight is loaded into the same place."""
    import torch
    from transformers import Blip2QFormerModel, Blip2VisionModel
    from transformers.models.blip_2.modeling_blip_2 import Blip2PreTrainedModel

    class Blip2VisionAndQFormer(Blip2PreTrainedModel):  # type: ignore[misc]
        main_input_name = "pixel_values"
        _keep_in_fp32_modules = ("query_tokens", "qformer")  # as in Blip2Model

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.vision_model = Blip2VisionModel._from_config(config.vision_config)
            shape = (1, config.num_query_tokens, config.qformer_config.hidden_size)
            self.query_tokens = torch.nn.Parameter(torch.zeros(shape))
            self.qformer = Blip2QFormerModel._from_config(config.qformer_config)
            self.post_init()

        def forward(self, pixel_values: "torch.Tensor", interpolate_pos_encoding: bool) -> "torch.Tensor":
            """As ``Blip2Model.get_qformer_features``, without its all-ones mask, which costs a GPU sync."""
            patches = self.vision_model(
                pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding
            ).last_hidden_state
            queries = self.query_tokens.expand(patches.shape[0], -1, -1)
            return self.qformer(query_embeds=queries, encoder_hidden_states=patches).last_hidden_state

    return Blip2VisionAndQFormer


def _tensors(folder: Path) -> Iterator[tuple[str, "torch.Tensor"]]:
    from safetensors import safe_open

    for name in checkpoints.weight_files(folder, PARTS):
        with safe_open(folder / name, framework="pt") as file:
            for tensor in file.keys():  # noqa: SIM118  not a mapping: it has only keys()
                if tensor.startswith(PARTS):
                    yield tensor, file.get_tensor(tensor)


class QFormer(TorchEncoder):
    """Vision tower and Q-Former, loaded on a device."""

    layout = TOKENS

    def __init__(self, entry: Blip2, folder: Path, machine: Machine) -> None:
        import torch
        from transformers import Blip2Config

        super().__init__(machine)
        self.compute_dtype = choose_dtype(entry.compute_dtype, self.torch_device, entry.checkpoint)
        self.dtype = getattr(torch, self.compute_dtype)
        exact_float32()
        self.where = entry.checkpoint
        self._preparation = Preparation(entry, folder, self.torch_device)
        self.geometry = self._preparation.geometry
        if entry.decode == "fast":
            self.needs = self._preparation.needs
        try:
            config = Blip2Config.from_pretrained(folder, local_files_only=True)
            tensors = dict(_tensors(folder))
        except FAILURES as error:
            if out_of_memory(error):
                raise
            raise LookalikeError(
                f"{entry.checkpoint}: cannot be read: {error}. If its files are damaged, delete them and run "
                "fetch_weights again (--forcerun fetch_weights)."
            ) from None
        if lacking := [part for part in PARTS if not any(name.startswith(part) for name in tensors)]:
            # checked before the network of 4 GB is created
            raise LookalikeError(f"{entry.checkpoint}: lacks {', '.join(lacking)}. {OTHERWISE}")
        self.network, missing = load_model(
            _architecture(), entry.checkpoint, None, config=config, state_dict=tensors, dtype=self.dtype
        )
        self.network = self.network.to(self.torch_device)
        self.dimension = try_out(
            self,
            entry.checkpoint,
            repeatable="Use another checkpoint.",
            otherwise=OTHERWISE,
            missing=missing,
            catch=FAILURES,
        )
        self.versions = store.versions("torch", "transformers", "pillow", "numpy")

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """Map an RGB image to (height, width, 3) uint8, or to the processor's own output; see ``Preparation``."""
        return self._preparation.prepare(image)

    def feature(self, batch: "torch.Tensor") -> "torch.Tensor":
        """Map (n, ...) prepared images to (n, query tokens, dimension) float32."""
        trained = self.network.config.vision_config.image_size
        pixels = self._preparation.pixels(batch, self.dtype)
        tokens: torch.Tensor = self.network(
            pixels, interpolate_pos_encoding=tuple(pixels.shape[2:]) != (trained, trained)
        )
        return tokens.float()
