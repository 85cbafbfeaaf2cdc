"""Shared by the families with Hugging Face checkpoints: preparing images as the processor does, loading weights."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError

from lookalike.config.models import Checkpoint
from lookalike.embed import checkpoints, timm_settings
from lookalike.embed.encoders import Size
from lookalike.embed.preprocess import Geometry, Values, geometry_of, invalid_setting
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

PROBES = ((331, 200), (200, 331), (97, 97), (640, 427), (64, 301))  # width, height
ONE_SIZE = "Set size, and resize: squash or crop, in the model's entry."
FAILURES = (
    AssertionError,
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
    """Prepares images for the network as the checkpoint's image processor does, with the entry's overrides.

    ``prepare`` returns (height, width, 3) uint8 if the fast path equals the processor within float rounding, otherwise
    the processor's own (3, height, width) float32.
    """

    def __init__(self, entry: Checkpoint, folder: Path, device: "torch.device", remote_code: bool = False) -> None:
        self.prepare: Prepare
        self.values: Values | None
        self._entry, self._device = entry, device
        self._line: tuple[torch.Tensor, torch.Tensor] | None = None  # of the values, on the device
        processor, settings, self._file = _processor(entry, folder, remote_code)
        geometry = geometry_of(settings)
        overridden = bool(entry.size or entry.interpolation or entry.resize != "processor")
        if overridden or processor is None:
            geometry = self._overridden(geometry, settings)
        if processor is None:
            assert geometry is not None
            self.prepare, self.values = geometry, Values.of(settings)
            self._check_shapes()
            if settings.get("image_processor_type") == timm_settings.NAME:
                return
            log.warning(
                "%s: its processor, %s, needs torchvision, which Lookalike never uses; images are prepared from its "
                "settings instead, and the result could not be compared with the processor",
                entry.checkpoint,
                settings.get("image_processor_type", "unnamed"),
            )
            return
        reference: Prepare = _call(processor)
        if overridden and geometry:  # geometry from the entry, values from the processor
            reference = _after(geometry, _call(processor, do_resize=False, do_center_crop=False))
        self.prepare, self.values = reference, None
        self._check_shapes()
        self.values = _measured(processor)
        if geometry and self.values and _agree(geometry, self.values, reference):
            self.prepare = geometry
        else:
            self.prepare, self.values = reference, None
            log.warning(
                "%s: the fast path for preparing images differs from its processor, %s; using the processor",
                entry.checkpoint,
                type(processor).__name__,
            )

    def _check_shapes(self) -> None:
        """Raise LookalikeError unless images of all shapes become arrays of one shape, as batching needs."""
        shapes = []
        for width, height in PROBES:
            try:
                shapes.append(self.prepare(_probe((width, height))).shape)
            except LookalikeError as error:
                raise LookalikeError(f"{self._file}: {error}") from None
            except FAILURES as error:
                raise LookalikeError(
                    f"{self._file}: its image processor fails: {_first_line(error)} {ONE_SIZE}"
                ) from error
            if shapes[-1] != shapes[0]:
                raise LookalikeError(
                    f"{self._file}: has no fixed output size: an image of {PROBES[0][0]} x {PROBES[0][1]} pixels "
                    f"becomes an array of shape {shapes[0]}, one of {width} x {height} pixels of shape {shapes[-1]}, "
                    f"and they cannot be batched. {ONE_SIZE}"
                )

    def _overridden(self, geometry: Geometry | None, settings: dict[str, Any]) -> Geometry:
        entry = self._entry
        if geometry is None and entry.size and entry.resize != "processor":
            resample = settings.get("resample")
            geometry = Geometry(
                (entry.size, entry.size), None, Image.Resampling.BICUBIC if resample is None else resample
            )
        if geometry is None or not (entry.size or geometry.side):
            raise LookalikeError(
                f"{self._file}: has no fixed output size, so its resizing cannot be changed. {ONE_SIZE}"
            )
        return geometry.overridden(entry.size, entry.resize, entry.interpolation)

    @property
    def geometry(self) -> Geometry | None:
        """The resizing of the fast path; None where the processor itself prepares images."""
        return self.prepare if isinstance(self.prepare, Geometry) else None

    def needs(self, size: Size) -> Size:
        """Smallest size to decode an image at (``encoders.needs``)."""
        if self.geometry is None:
            raise LookalikeError(
                f"{self._entry.checkpoint}: decode: fast needs the size that its processor resizes an image to, which "
                "only the processor itself knows. Use decode: full, or set size, and resize: squash or crop."
            )
        return self.geometry.needs(size)

    def pixels(self, batch: "torch.Tensor", dtype: "torch.dtype") -> "torch.Tensor":
        """Map a batch of prepared images on the device to (n, 3, height, width) ``dtype``, rescaled and normalised."""
        import torch

        if self.values is None:
            return batch.to(dtype)
        if self._line is None:  # copied once: a copy for every batch would wait for the previous batch
            values = self.values
            scale, offset = (torch.from_numpy(array).to(self._device) for array in (values.scale, values.offset))
            self._line = scale, offset
        scale, offset = self._line
        return (batch.float() * scale + offset).to(dtype).permute(0, 3, 1, 2)


def _processor(entry: Checkpoint, folder: Path, remote_code: bool) -> tuple[Any, dict[str, Any], Path]:
    """The checkpoint's image processor, always with the PIL backend, its settings and their file.

    The processor is None if transformers has no PIL backend for it; its settings are followed instead.
    """
    import transformers

    if timm := checkpoints.read_settings(folder / "config.json").get("pretrained_cfg"):
        timm_settings.check_installed(entry.checkpoint, timm=True)
        settings = timm_settings.settings_of(timm)
        _check_settings(folder / "config.json", settings)
        return None, settings, folder / "config.json"
    file, settings = _settings(entry.checkpoint, folder)
    name = _class_name(file, settings, folder, remote_code, "remote_code" in type(entry).model_fields)
    if entry.interpolation:
        settings["resample"] = int(Image.Resampling[entry.interpolation.upper()])
    _check_settings(file, settings if "resample" in settings else settings | {"do_resize": False})  # else: a default
    processor = None
    try:
        with quiet():
            processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=remote_code
            )
    except (ImportError, *FAILURES) as error:
        if out_of_memory(error):
            raise
        if (name and _has(f"{name}Pil")) or "image_std" not in settings:
            raise LookalikeError(
                f"{file}: cannot create its image processor: {_first_line(error)} "
                "Fix the file, or use that of a model trained the same way."
            ) from None
    # an installed torchvision must change nothing: ignore a fallback to it
    if getattr(processor, "backend", "") == "torchvision":
        processor = None
    if processor is not None:
        chosen = {"resample": settings["resample"]} if entry.interpolation else {}
        settings = processor.to_dict() | chosen
    _check_settings(file, settings)
    if processor is None and geometry_of(settings) is None:
        raise LookalikeError(
            f"{file}: its image processor, {name or 'unnamed'}, needs torchvision, which Lookalike never uses, and "
            f"its settings do not define how an image is resized. {ONE_SIZE}"
        )
    return processor, settings, file


def _check_settings(file: Path, settings: dict[str, Any]) -> None:
    if problem := invalid_setting(settings):
        raise LookalikeError(
            f"{file}: {problem}. Fix it in a copy of the checkpoint, and set 'checkpoint' to that folder."
        )


def _settings(checkpoint: str, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file that defines how images are prepared, and its settings."""
    for name, section in (("processor_config.json", "image_processor"), ("preprocessor_config.json", "")):
        if (folder / name).is_file():
            settings = checkpoints.read_settings(folder / name)
            settings = settings.get(section, {}) if section else settings
            if settings:
                return folder / name, settings
    raise LookalikeError(
        f"{checkpoint}: has no preprocessor_config.json, which defines how to prepare images for it. Copy the "
        "checkpoint to a folder, add the file of a model trained the same way, and set 'checkpoint' to that folder."
    )


def _class_name(file: Path, settings: dict[str, Any], folder: Path, remote_code: bool, may_run: bool) -> str:
    """Name of the transformers image processor class without "Fast"; empty if only the architecture determines it.

    Raises LookalikeError if transformers has no such class: a substitute would prepare images differently.
    """
    name = settings.get("image_processor_type") or settings.get("feature_extractor_type") or ""
    name = name.replace("FeatureExtractor", "ImageProcessor")
    own = settings.get("auto_map") or (
        {} if name else checkpoints.read_settings(folder / "config.json").get("auto_map")
    )
    own = own or {}
    own_class = own.get("AutoImageProcessor") or own.get("AutoFeatureExtractor")
    if isinstance(own_class, list | tuple):
        own_class = next((name for name in own_class if name), None)
    if remote_code and own_class:
        return ""
    required = own_class.rpartition(".")[2] if own_class else name
    if required and not _has(required) and not _has(required.removesuffix("Fast")):
        trust = "Read the checkpoint's code; if you trust it, set remote_code: true. Otherwise, s"
        raise LookalikeError(
            f"{file}: its image processor, {required}, is not part of transformers, and no other is substituted. "
            f"{trust if own_class and may_run else 'S'}et image_processor_type in a copy of the checkpoint to a "
            "transformers class that prepares images the same way."
        )
    return name.removesuffix("Fast")


def _has(name: str) -> bool:
    import transformers

    with quiet():
        return hasattr(transformers, name)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{lines[0].rstrip('.')}." if lines else f"{type(error).__name__}."


def _probe(size: Size) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), np.uint8))


def _call(processor: Any, **settings: Any) -> Prepare:
    def prepare(image: Image.Image) -> NDArray[np.float32]:
        output = processor(images=image, return_tensors="np", **settings)
        values = output["pixel_values"][0] if "pixel_values" in output else 0
        pixels: NDArray[np.float32] = np.asarray(values, np.float32)
        if pixels.ndim != 3:
            raise LookalikeError(
                f"its image processor, {type(processor).__name__}, returns {', '.join(output)} for an image, not one "
                "array of color, height and width. Use a checkpoint whose network takes images of one size."
            )
        return pixels

    return prepare


def _after(geometry: Geometry, then: Prepare) -> Prepare:
    return lambda image: then(Image.fromarray(geometry(image)))


def _measured(processor: Any) -> Values | None:
    """How the processor maps 8-bit values, measured by running it on all of them."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)
    try:
        output = _call(processor, do_resize=False, do_center_crop=False)(Image.fromarray(ramp))
    except FAILURES:
        return None
    return Values.through(output.reshape(3, 256)) if output.shape == (3, 16, 16) else None


def _agree(geometry: Geometry, values: Values, reference: Prepare) -> bool:
    """Whether the fast path equals the processor: the same pixels, up to float rounding of their values."""
    for size in PROBES:
        image = _probe(size)
        ours, theirs = values(geometry(image)), reference(image)
        # a pixel that differs by 1/255 before normalisation differs by more than 1e-3 after it
        if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-5, atol=1e-5):
            return False
    return True


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bars and reports: Lookalike checks and reports what matters itself."""
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


def load_model(architecture: Any, where: str, *arguments: Any, **settings: Any) -> Any:
    """Call ``from_pretrained`` offline and silently; return the model and the sorted names of its missing weights.

    Missing weights become NaN instead of random numbers. If the vectors depend on them, the vectors are NaN too, and
    the trial run (``trial.try_out``) fails. Raises LookalikeError if the checkpoint cannot be loaded.
    """
    import torch

    try:
        with quiet():
            model, report = architecture.from_pretrained(
                *arguments, local_files_only=True, output_loading_info=True, **settings
            )
    except (ImportError, *FAILURES) as error:
        if out_of_memory(error):
            raise
        remedy = "If its files are damaged, delete them and run fetch_weights again (--forcerun fetch_weights)."
        if "trust_remote_code" in str(error):
            remedy = "It contains its own Python code. Read it; if you trust it, set remote_code: true."
        raise LookalikeError(f"{where}: the checkpoint cannot be loaded: {_first_line(error)} {remedy}") from None
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name in report["missing_keys"]:
            if name in tensors and tensors[name].is_floating_point():
                tensors[name].fill_(torch.nan)
    return model.eval(), sorted(report["missing_keys"])
