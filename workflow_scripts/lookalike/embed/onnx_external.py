"""Which files an ONNX file keeps its weights in, read from its bytes: neither the package onnx nor memory is needed.

An ONNX file is a Protocol Buffers message (https://protobuf.dev/programming-guides/encoding/) of the type ModelProto
(https://github.com/onnx/onnx/blob/main/onnx/onnx.proto). Field numbers never change.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path

# message -> field number -> the message in that field; no other field holds a tensor
PARTS: Mapping[str, Mapping[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
GRAPH, EXTERNAL_DATA, DATA_LOCATION = 7, 13, 14
KEY, VALUE = 1, 2
VARINT, EIGHT_BYTES, MESSAGE, FOUR_BYTES = 0, 1, 2, 5
Field = tuple[int, int, int]  # number, and where its content begins and ends; of a varint, its value as both


def locations(path: Path) -> set[str]:
    """The values of ``location`` of all tensors outside the file. Raises ValueError where it is not an ONNX file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if all(number != GRAPH for number, *_ in _fields(content, 0, len(content))):
            raise ValueError("no graph")
        return {
            location
            for start, end in _tensors(content, "model", 0, len(content))
            if (location := _location(content, start, end)) is not None
        }


def _tensors(content: mmap.mmap, kind: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where the tensors in a message begin and end."""
    if kind == "tensor":
        yield start, end
        return
    for number, first, last in _fields(content, start, end):
        if inner := PARTS[kind].get(number):
            yield from _tensors(content, inner, first, last)


def _location(content: mmap.mmap, start: int, end: int) -> str | None:
    """Where a tensor's values are; None for those in the file itself."""
    outside, location = False, None
    for number, first, last in _fields(content, start, end):
        if number == DATA_LOCATION:
            outside = bool(first)
        elif number == EXTERNAL_DATA:
            pair = {field: content[begin:stop] for field, begin, stop in _fields(content, first, last)}
            location = pair.get(VALUE, b"").decode() if pair.get(KEY) == b"location" else location
    return (location or "") if outside else None


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[Field]:
    at = start
    while at < end:
        tag, at = _varint(content, at, end)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(content, at, end)
            yield number, value, value
            continue
        length = {EIGHT_BYTES: 8, FOUR_BYTES: 4}.get(wire)
        if wire == MESSAGE:
            length, at = _varint(content, at, end)
        if not number or length is None or at + length > end:
            raise ValueError(f"no field at byte {at}")
        yield number, at, at + length
        at += length


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = content[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise ValueError(f"no number at byte {at}")
