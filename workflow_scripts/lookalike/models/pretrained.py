"""What the families with a Hugging Face checkpoint share: reading pictures as its processor does, and its weights."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from lookalike import checkpoints
from lookalike.config import Checkpoint
from lookalike.devices import out_of_memory
from lookalike.errors import LookalikeError
from lookalike.models import Size
from lookalike.preprocess import Geometry, Values, geometry_of

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

PROBES = ((331, 200), (200, 331), (97, 97), (640, 427), (64, 301))  # width, height
FAILURES = (
    AttributeError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
)
Prepare = Callable[[Image.Image], NDArray[Any]]


class Preparation:
    """A picture to what the network is given, as the checkpoint's image processor does it, or as the entry says.

    ``prepare`` gives (height, width, 3) uint8 where the fast way was found to be equal to the processor's within float
    rounding, else the processor's own (3, height, width) float32.
    """

    def __init__(self, entry: Checkpoint, folder: Path, device: "torch.device", remote_code: bool = False) -> None:
        self.prepare: Prepare
        self.values: Values | None
        self._entry, self._device = entry, device
        self._line: tuple[torch.Tensor, torch.Tensor] | None = None  # of the values, on the device
        processor, settings = _processor(entry.checkpoint, folder, remote_code)
        geometry = geometry_of(settings)
        overridden = bool(entry.size or entry.interpolation or entry.resize != "processor")
        if overridden or processor is None:
            geometry = self._overridden(geometry)
        if processor is None:
            assert geometry is not None
            self.prepare, self.values = geometry, Values.of(settings)
            log.warning(
                "%s: its processor, %s, needs torchvision, which is never used here; pictures are prepared from its "
                "settings instead, and that could not be compared with the processor",
                entry.checkpoint,
                settings.get("image_processor_type", "unnamed"),
            )
            return
        reference: Prepare = _call(processor)
        if overridden and geometry:  # the entry decides about the geometry, the processor about the values
            reference = _after(geometry, _call(processor, do_resize=False, do_center_crop=False))
        self.values = _measured(processor)
        if geometry and self.values and _agree(geometry, self.values, reference):
            self.prepare = geometry
        else:
            self.prepare, self.values = reference, None
            log.warning(
                "%s: the fast way of preparing pictures is not equal to its processor, %s, which is used itself",
                entry.checkpoint,
                type(processor).__name__,
            )

    def _overridden(self, geometry: Geometry | None) -> Geometry:
        entry = self._entry
        if geometry is None and entry.size and entry.resize != "processor":
            geometry = Geometry((entry.size, entry.size), None, int(Image.Resampling.BICUBIC))
        if geometry is None or not (entry.size or geometry.side):
            raise LookalikeError(
                f"{entry.checkpoint}: its processor has no fixed size, so nothing can be changed about it. "
                "Give size, and resize: squash or crop."
            )
        return geometry.overridden(entry.size, entry.resize, entry.interpolation)

    def needs(self, size: Size) -> Size:
        """How large a picture must at least be decoded (``models.needs``)."""
        if not isinstance(self.prepare, Geometry):
            raise LookalikeError(
                f"{self._entry.checkpoint}: decode: fast needs to know the size that its processor makes of a picture, "
                "which only the processor itself knows. Use decode: full, or give size, and resize: squash or crop."
            )
        return self.prepare.needs(size)

    def pixels(self, batch: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
        """A batch of prepared pictures, on the device, to (n, 3, height, width), rescaled and normalised."""
        import torch

        if self.values is None:
            return batch.to(dtype)
        if self._line is None:  # once: copying them there for every batch would wait for the batch before
            scale, offset = (torch.from_numpy(one).to(self._device) for one in (self.values.scale, self.values.offset))
            self._line = scale, offset
        scale, offset = self._line
        return (batch.float() * scale + offset).to(dtype).permute(0, 3, 1, 2)


def _processor(checkpoint: str, folder: Path, remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """The checkpoint's image processor, always of the PIL backend, and its settings; None where it has no such one."""
    import transformers

    try:
        with quiet():
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=remote_code
            )
    except (ImportError, *FAILURES) as error:
        if out_of_memory(error):
            raise
        settings = _settings(checkpoint, folder, error)
        if "image_std" not in settings or geometry_of(settings) is None:
            raise LookalikeError(f"{checkpoint}: its image processor cannot be loaded: {error}") from None
        return None, settings
    settings = processor.to_dict()
    # an installed torchvision must change nothing: where transformers falls back to it, we do as if it were not there
    return (None if getattr(processor, "backend", "") == "torchvision" else processor), settings


def _settings(checkpoint: str, folder: Path, reason: BaseException) -> dict[str, Any]:
    for name, inside in (("processor_config.json", "image_processor"), ("preprocessor_config.json", "")):
        if (folder / name).is_file():
            settings = checkpoints.read_settings(folder / name)
            settings = settings.get(inside, {}) if inside else settings
            if settings:
                return settings
    raise LookalikeError(
        f"{checkpoint}: has no preprocessor_config.json, which says how pictures are prepared for it ({reason}). "
        "Copy the checkpoint to a folder, add the file of a model that was trained alike, and name that folder."
    ) from None


def _call(processor: Any, **settings: Any) -> Prepare:
    def prepare(image: Image.Image) -> NDArray[np.float32]:
        with_arrays = processor(images=image, return_tensors="np", **settings)
        pixels: NDArray[np.float32] = np.asarray(with_arrays["pixel_values"][0], np.float32)
        return pixels

    return prepare


def _after(geometry: Geometry, then: Prepare) -> Prepare:
    return lambda image: then(Image.fromarray(geometry(image)))


def _measured(processor: Any) -> Values | None:
    """How the processor maps 8-bit values, found by asking it for all of them."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    try:
        answer = _call(processor, do_resize=False, do_center_crop=False)(Image.fromarray(ramp))
    except FAILURES:
        return None
    return Values.through(answer.reshape(3, 256)) if answer.shape == (3, 16, 16) else None


def _agree(geometry: Geometry, values: Values, reference: Prepare) -> bool:
    """Whether the fast way gives what the processor gives: the same pixels, up to float rounding of their values."""
    draw = np.random.default_rng(0)
    for width, height in PROBES:
        image = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
        ours, theirs = values(geometry(image)), reference(image)
        # a pixel that differs by 1 of 255 differs by more than 1e-3 here
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-5, atol=1e-5):
            return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars and reports: what matters of them, we check and say ourselves."""
    from transformers.utils import logging as noise

    level, bars = noise.get_verbosity(), noise.is_progress_bar_enabled()
    noise.set_verbosity_error()
    noise.disable_progress_bar()
    try:
        yield
    finally:
        noise.set_verbosity(level)
        if bars:
            noise.enable_progress_bar()


def choose_dtype(wanted: str, device: "torch.device", where: str) -> str:
    """The precision to compute in: on a CPU always float32, since half precision is slower there and less exact."""
    if wanted != "float32" and device.type == "cpu":
        log.warning("%s: computing in float32, not %s: this is a CPU", where, wanted)
        return "float32"
    return wanted


def load_model(architecture: Any, where: str, *arguments: Any, **settings: Any) -> Any:
    """``from_pretrained`` without the network, without noise, and with the reasons why it may fail.

    Weights that the checkpoint lacks become NaN instead of random numbers: where the vectors depend on them, they are
    NaN too, which is found when the model is tried.
    """
    import torch

    try:
        with quiet():
            model, found = architecture.from_pretrained(
                *arguments, local_files_only=True, output_loading_info=True, **settings
            )
    except (ImportError, *FAILURES) as error:
        if out_of_memory(error):
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "If its files are damaged, delete them and run fetch_weights again (--forcerun fetch_weights)."
        if "trust_remote_code" in str(error):
            remedy = "It comes with code of its own. Read that code; if you trust it, set remote_code: true."
        raise LookalikeError(f"{where}: the checkpoint cannot be loaded: {reason} {remedy}") from None
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name in found["missing_keys"]:
            if name in tensors and tensors[name].is_floating_point():
                tensors[name].fill_(torch.nan)
    return model.eval(), sorted(found["missing_keys"])


def try_out(encode: Callable[[NDArray[Any]], NDArray[np.float32]], prepare: Prepare, where: str, missing: Any) -> int:
    """Encode one picture; returns the vector's length. Raises LookalikeError where that fails or gives no numbers."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 331, 3), np.uint8))
    try:
        vectors = encode(np.stack([prepare(image)]))
    except FAILURES as error:
        if out_of_memory(error):
            raise
        raise LookalikeError(f"{where}: {error}") from None
    if vectors.ndim != 2:
        raise LookalikeError(f"{where}: gives an array of shape {vectors.shape} for one picture, not one vector.")
    if not np.isfinite(vectors).all():
        lacks = f"the checkpoint lacks {', '.join(missing[:3])}" if missing else "the weights are damaged"
        raise LookalikeError(f"{where}: gives NaN or infinite numbers, since {lacks}. Choose another feature.")
    return int(vectors.shape[1])
