"""What is recorded of a network that was exported to ONNX: enough to embed with it without torch."""

from typing import Literal

from lookalike.io.formats.records import Record


class Layout(Record):
    """Which axes of a network's output (n, ...) hold an image's patches.

    ``axes``: (1,) for tokens, (2, 3) or (1, 2) for a feature map with its channels first or last, () for one vector.
    ``first_patch``: the number of class and register tokens; None where it is unknown, for the reason ``problem``.
    """

    axes: tuple[int, ...]
    first_patch: int | None = None
    problem: str = ""


class Resizing(Record):
    """How an image is resized and cropped: the fields of ``embed.preprocess.Geometry``."""

    size: tuple[int, int] | int | None
    crop: tuple[int, int] | None
    resample: int
    rounded: bool = False


class Network(Record):
    """An exported network. It takes (n, height, width, 3) uint8, and returns what is pooled afterwards.

    ``difference`` is the largest difference of its vectors from torch's, relative to their norm, over all poolings and
    ``batch_sizes``; ``rows_equal``: whether a vector was the same, bit for bit, in every batch.
    """

    files: dict[str, str]  # the ONNX file first, and its external data: name -> SHA-256
    resizing: Resizing
    layout: Layout
    difference: float
    batch_sizes: tuple[int, ...]
    rows_equal: bool
    versions: dict[str, str]  # of what exported it


class Export(Record):
    """``results/exports/{weights}/{export}/export.json``: which engine embeds on a CPU.

    ``network`` is None where the engine is torch, for the ``reason`` given.
    """

    key: str  # what changes the network or its input: ``EmbedBase.export_key``
    weights_checksum: str  # of the record of the weights
    engine: Literal["onnxruntime", "torch"]
    reason: str = ""
    network: Network | None = None
