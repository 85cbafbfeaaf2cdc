"""Family `onnx`: an image network in an ONNX file, run by ONNX Runtime.

What the file says of its input (layout, type, size, batch) is followed; an entry that says otherwise is refused.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lookalike.config.models import Onnx
from lookalike.embed import onnx_files
from lookalike.embed.encoders import Machine
from lookalike.embed.onnx_session import Session, Tensor, open_session
from lookalike.embed.pooling import pool
from lookalike.embed.preprocess import Geometry, Values
from lookalike.embed.trial import try_out
from lookalike.io import store
from lookalike.io.formats.records import Weights
from lookalike.job.errors import LookalikeError

# Nodes that compute in 8 bits, as a file spells them: the tag and length of NodeProto.op_type, then the name.
INTEGER = [
    b"\x22" + bytes([len(name)]) + name
    for name in (b"QuantizeLinear", b"DynamicQuantizeLinear", b"QLinearConv", b"QLinearMatMul")
]
REPEATABLE = "Export it in evaluation mode; if it quantises by what is in the batch, set batch: 1 in the entry."
OTHERWISE = "Use a network that takes RGB images alone, and an output with one vector for each, or pooling."


def fetch(entry: Onnx) -> Weights:
    """Find the file, or fetch it, and record its hash and those of the files that it keeps its weights in."""
    return onnx_files.fetch(entry)


def check_available(entry: Onnx) -> None:
    """Raise LookalikeError if the file is not on this machine."""
    onnx_files.check_available(entry)


def load(entry: Onnx, weights: Weights, machine: Machine) -> "Network":
    """Load the recorded file, offline."""
    return Network(entry, onnx_files.locate(entry, weights), machine)


@dataclass(frozen=True)
class Input:
    """How a network is given images: what the file says of its one input, completed by the entry."""

    name: str
    sides: tuple[int, int]  # height and width
    channels_last: bool
    dtype: str
    batch: int | None  # images per run, where that is fixed

    @classmethod
    def of(cls, entry: Onnx, inputs: Sequence[Tensor], where: str) -> "Input":
        """Raises LookalikeError where file and entry do not fit together, or leave something open."""
        if len(inputs) != 1:
            listed = ", ".join(map(str, inputs)) or "none"
            raise LookalikeError(
                f"{where}: has {len(inputs)} inputs ({listed}), and only images can be given. Export its image part "
                "alone."
            )
        (tensor,) = inputs
        if len(tensor.shape) != 4 or tensor.dtype not in ("float32", "float16", "uint8"):
            raise LookalikeError(
                f"{where}: its input {tensor} is not a batch of images: 4 sides, and float32, float16 or uint8. "
                "Export the network with such an input."
            )
        last = cls._channels_last(entry, tensor, where)
        batch, sides = tensor.shape[0], tensor.shape[1:3] if last else tensor.shape[2:]
        if entry.batch and batch and entry.batch != batch:
            raise LookalikeError(
                f"{where}: its input {tensor} takes {batch} images, and batch is {entry.batch}. Remove it."
            )
        height, width = (side or entry.size for side in sides)
        if height is None or width is None:
            raise LookalikeError(f"{where}: its input {tensor} takes images of any size. Add size: the side in pixels.")
        if entry.size and (height, width) != (entry.size, entry.size):
            raise LookalikeError(
                f"{where}: its input {tensor} takes images of {width} x {height} pixels, and size is {entry.size}. "
                "Remove size."
            )
        if entry.resize == "crop" and height != width:
            raise LookalikeError(
                f"{where}: its input {tensor} is not square, and resize: crop cuts out a square. Use resize: squash."
            )
        if (tensor.dtype == "uint8") is bool(entry.mean):
            raise LookalikeError(
                f"{where}: its input {tensor} takes pixels as they are. Remove mean and std."
                if entry.mean
                else f"{where}: its input {tensor} takes normalised values. Add mean and std as published; "
                "for values from 0 to 1 they are [0, 0, 0] and [1, 1, 1]."
            )
        return cls(tensor.name, (height, width), last, tensor.dtype, batch or entry.batch)

    @staticmethod
    def _channels_last(entry: Onnx, tensor: Tensor, where: str) -> bool:
        found = {"nchw": tensor.shape[1], "nhwc": tensor.shape[3]}
        three = [layout for layout, channels in found.items() if channels == 3]
        layout = entry.layout or (three[0] if len(three) == 1 else None)
        if layout and found[layout] not in (3, None):
            raise LookalikeError(
                f"{where}: its input {tensor} has {found[layout]} channels where layout {layout} has them, not 3. "
                "Correct layout, or remove it."
            )
        if not layout and set(found.values()) not in ({None}, {3}):
            raise LookalikeError(
                f"{where}: its input {tensor} has no 3 color channels. Use a network for color images; if the open "
                "side is that of the channels, add layout: nchw or nhwc."
            )
        if not layout:
            raise LookalikeError(
                f"{where}: its input {tensor} does not say where the color channels are. Add layout: nchw or nhwc."
            )
        return layout == "nhwc"


class Network:
    """A loaded ONNX network; ``dimension`` is what it gives for one image."""

    engine = "onnxruntime"

    def __init__(self, entry: Onnx, path: Path, machine: Machine) -> None:
        self.entry, self.where = entry, entry.source
        self.session: Session = open_session(path, self.where, threads=machine.threads, gpu=machine.gpu)
        self.device, self.overlaps = self.session.device, self.session.overlaps
        self.input = Input.of(entry, self.session.inputs, self.where)
        self.output = self._chosen_output()
        half = "float16" in (self.input.dtype, self.output.dtype)
        self.compute_dtype = "int8" if computes_in_integers(path) else "float16" if half else "float32"
        resample = int(Image.Resampling[entry.interpolation.upper()])
        self.geometry = Geometry(self.input.sides, None, resample)
        if entry.resize == "crop":
            self.geometry = Geometry.square(self.input.sides[0], "crop", entry.interpolation)
        if entry.decode == "fast":
            self.needs = self.geometry.needs
        self._values = Values.normalising(entry.mean, entry.std) if entry.mean else None
        self.dimension = try_out(
            self, self.where, repeatable=REPEATABLE, otherwise=OTHERWISE, catch=(ValueError, TypeError)
        )
        self.versions = {**self.session.versions, **store.versions("pillow", "numpy")}

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """(height, width, 3) uint8, in the network's order of colors."""
        pixels = self.geometry(image)
        return pixels[..., ::-1] if self.entry.channels == "bgr" else pixels

    def encode(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, height, width, 3) uint8 to (n, dimension) float32, in runs of as many images as the network takes."""
        size = self.input.batch or len(batch)
        return np.concatenate([self._run(batch[start : start + size], size) for start in range(0, len(batch), size)])

    def _run(self, images: NDArray[np.uint8], size: int) -> NDArray[np.float32]:
        count = len(images)
        if count < size:  # filled up with one of its own, whose vectors are dropped
            images = np.concatenate([images, np.repeat(images[:1], size - count, axis=0)])
        (found,) = self.session.run({self.input.name: self._as_input(images)}, [self.output.name])
        if not found.ndim or len(found) != size:
            raise LookalikeError(f"{self.named}: has the shape {found.shape} for {size} images. {OTHERWISE}")
        return self._as_vectors(np.asarray(found[:count], np.float32))

    def _as_input(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        values: NDArray[Any] = images
        if self._values:
            channels = slice(None, None, -1 if self.entry.channels == "bgr" else 1)  # mean and std are given as RGB
            values = np.multiply(images, self._values.scale[channels], dtype=np.float32)
            values += self._values.offset[channels]
        if not self.input.channels_last:
            values = values.transpose(0, 3, 1, 2)
        return np.ascontiguousarray(values, self.input.dtype)

    def _as_vectors(self, found: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.entry.pooling != "none":
            return pool(found, self.entry.pooling, self.input.sides, self.named)
        if found.ndim == 4 and found.shape[2:] == (1, 1):  # a map that the network has averaged itself
            found = found[..., 0, 0]
        if found.ndim != 2:
            raise LookalikeError(
                f"{self.named}: has the shape {found.shape} for {len(found)} images, not one vector for each. Add "
                "pooling: cls, mean or gem, or choose another output."
            )
        return found

    @property
    def named(self) -> str:
        """The file and its output, for messages."""
        return f"{self.where}: output '{self.output.name}'"

    def _chosen_output(self) -> Tensor:
        outputs = {tensor.name: tensor for tensor in self.session.outputs}
        listed = ", ".join(map(str, outputs.values()))
        if self.entry.output and self.entry.output not in outputs:
            raise LookalikeError(f"{self.where}: has no output '{self.entry.output}'. Choose one of: {listed}.")
        if not self.entry.output and len(outputs) != 1:
            raise LookalikeError(f"{self.where}: has {len(outputs)} outputs. Add output: the name of one of {listed}.")
        return outputs[self.entry.output or next(iter(outputs))]


def computes_in_integers(path: Path) -> bool:
    """Whether a network rounds to 8 bits between its layers; weights alone that are stored so do not count."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(node) >= 0 for node in INTEGER)
