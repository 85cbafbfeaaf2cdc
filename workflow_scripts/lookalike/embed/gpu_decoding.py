"""`decode: gpu`, an experiment: torchvision decodes JPEG files on the device (nvJPEG), and torch resizes them there.

The decoder's pixels differ a little from Pillow's, mostly where a JPEG has fewer colors than pixels and they are
interpolated: so this is in a model's key. Resizing gives Pillow's pixels. Other formats, JPEGs that must be turned, and
color spaces that the decoder would misread are decoded and resized by Pillow, as with `decode: full`.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.embed.encoders import Computed, Size
from lookalike.embed.preprocess import Geometry
from lookalike.embed.resize import FILTERS, resize
from lookalike.embed.torch_encoder import TorchEncoder
from lookalike.io import images
from lookalike.io.image_containers import JPEG, essentials
from lookalike.io.store import versions
from lookalike.job.devices import out_of_memory
from lookalike.job.errors import LookalikeError

if TYPE_CHECKING:
    import torch

TOGETHER = 32  # files per call of the decoder; each may have MAX_PIXELS pixels
MAX_PIXELS = 25_000_000
ORIENTATION = 0x0112  # EXIF tag
END = b"\xff\xd9"  # of a JPEG


class GpuDecoding:
    """Computes as ``encoder`` does, of JPEG files that ``take`` accepts and of prepared images in the same batch."""

    def __init__(self, encoder: TorchEncoder) -> None:
        self._encoder = encoder
        if encoder.geometry is None or (encoder.geometry.size and encoder.geometry.resample not in FILTERS):
            raise LookalikeError(
                "decode: gpu needs a model whose image processor can be reproduced, and that does not resize with the "
                "filter nearest. Use decode: full."
            )
        self._geometry: Geometry = encoder.geometry
        self._decode_files = _decoder(encoder.torch_device)
        self.versions: dict[str, str] = {**encoder.versions, **versions("torchvision")}  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def take(self, data: bytes) -> tuple[NDArray[np.uint8], Size] | None:
        """A JPEG file as (bytes,) uint8 for ``launch``, and its (width, height); None if Pillow must decode it."""
        if not (data.startswith(JPEG) and data.endswith(END)):  # otherwise it may be cut short
            return None
        try:
            data = essentials(data)
            with Image.open(BytesIO(data), formats=["JPEG"]) as image:
                plain = image.mode == "L" or (image.mode == "RGB" and _is_ycbcr(image))
                upright = image.getexif().get(ORIENTATION, 1) == 1
                small = image.width * image.height <= MAX_PIXELS
                narrow = max(image.size) <= images.MAX_RATIO * min(image.size)
                if not (plain and upright and small and narrow) or image.info.get("progressive"):
                    return None
                return np.frombuffer(bytearray(data), np.uint8), image.size
        except Exception:  # a broken file may make Pillow raise anything; ``images.decode`` says what is wrong
            return None

    def encode(self, batch: NDArray[Any]) -> NDArray[np.float32]:
        """Map (n, ...) prepared images to (n, dimension) float32."""
        return self._encoder.encode(batch)

    def launch(self, prepared: Sequence[NDArray[Any]]) -> Callable[[], Computed]:
        """Start computing a batch of prepared images and files; return a function that waits for the vectors."""
        import torch

        files = [place for place, item in enumerate(prepared) if item.ndim == 1]
        if not files:
            return self._encoder.launch(prepared)
        device = self._encoder.torch_device
        with torch.inference_mode():
            batch: list[torch.Tensor] = [torch.empty(0)] * len(prepared)
            for place, item in enumerate(prepared):
                if item.ndim > 1:
                    batch[place] = torch.tensor(item, device=device)
            for start in range(0, len(files), TOGETHER):
                places = files[start : start + TOGETHER]
                for place, pixels in zip(places, self._pixels([prepared[place] for place in places]), strict=True):
                    batch[place] = pixels
            return self._encoder.compute(torch.stack(batch))

    def _pixels(self, files: list[NDArray[np.uint8]]) -> "Iterator[torch.Tensor]":
        """Files to (height, width, 3) uint8 on the device, resized and cropped. One that fails is left to Pillow."""
        import torch

        try:
            decoded = self._decode_files(files)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            if len(files) > 1:
                for file in files:
                    yield from self._pixels([file])
                return
            yield self._by_pillow(files[0].tobytes())
            return
        by_size: dict[tuple[int, ...], list[int]] = {}
        for place, pixels in enumerate(decoded):
            by_size.setdefault(tuple(pixels.shape), []).append(place)
        prepared: dict[int, torch.Tensor] = {}
        for places in by_size.values():  # starting work on the device takes the time of many images
            together = self._resized(torch.stack([decoded[place] for place in places]))
            prepared.update(zip(places, together, strict=True))
        yield from (prepared[place] for place in range(len(files)))

    def _by_pillow(self, data: bytes) -> "torch.Tensor":
        import torch

        try:
            prepared = self._encoder.prepare(images.decode(data))  # type: ignore[attr-defined]
        except images.BadImage as bad:
            raise LookalikeError(
                f"an image that looked sound cannot be decoded: {bad}. Use decode: full, which names and rejects it."
            ) from None
        return torch.tensor(prepared, device=self._encoder.torch_device)

    def _resized(self, pixels: "torch.Tensor") -> "torch.Tensor":
        """Resize and crop (n, 3, height, width) uint8 as ``Geometry`` does, to the same (n, height, width, 3)."""
        from torch.nn.functional import pad

        geometry = self._geometry
        if geometry.size is not None:
            pixels = resize(pixels, geometry.needs((pixels.shape[3], pixels.shape[2])), geometry.resample)
        if geometry.crop is not None:
            height, width = geometry.crop
            left, top = geometry.corner((pixels.shape[3], pixels.shape[2]))
            right, bottom = pixels.shape[3] - width - left, pixels.shape[2] - height - top
            pixels = pad(pixels, (-left, -right, -top, -bottom))  # cuts off, or adds black
        return pixels.permute(0, 2, 3, 1)


def _is_ycbcr(image: Image.Image) -> bool:
    """Whether a JPEG with three components says that they are brightness and colors, as the decoder assumes."""
    return bool(image.info.get("adobe_transform", 1 if "jfif" in image.info else 0) == 1)


def _decoder(device: "torch.device") -> "Callable[[list[NDArray[np.uint8]]], list[torch.Tensor]]":
    """A function from JPEG files to (3, height, width) uint8 on the device."""
    try:
        from torchvision.io import ImageReadMode, decode_jpeg
    except (ImportError, RuntimeError):  # missing, or built for another torch
        raise LookalikeError(
            "decode: gpu needs torchvision, built for the installed torch. Run `pip install torchvision`, or set "
            "decode: full."
        ) from None
    import torch

    warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities of TorchVision are deprec")

    def decode(files: list[NDArray[np.uint8]]) -> list[torch.Tensor]:
        decoded: list[torch.Tensor] = decode_jpeg(
            [torch.from_numpy(file) for file in files], mode=ImageReadMode.RGB, device=device
        )
        return decoded

    return decode
