"""Small ONNX networks for images, made node by node, and what they should give."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIDE = 32
_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
KERNEL = np.random.default_rng(0).standard_normal((8, 3, 3, 3)).astype(np.float32)


def map_of(pixels: NDArray[Any]) -> NDArray[np.float32]:
    """(n, 3, height, width) to the feature map (n, 8, height - 2, width - 2) of the networks here."""
    with torch.no_grad():
        found: NDArray[np.float32] = torch.conv2d(torch.from_numpy(pixels), torch.from_numpy(KERNEL)).relu().numpy()
    return found


def save(
    path: Path,
    *,
    layout: str = "nchw",
    dtype: str = "float32",
    batch: int | None = None,
    sides: tuple[int | None, int | None] = (None, None),
    channels: int | None = 3,
    give: str = "vector",
    before: tuple[Any, ...] = (),
    external: bool = False,
    inputs: int = 1,
) -> Path:
    """Write a convolution whose map is averaged (``vector``), given as it is (``map``) or as tokens, or several.

    ``before`` are nodes from "features" to "changed", the map that is then given.
    """
    shape: list[Any] = [batch or "n", channels, *sides] if layout == "nchw" else [batch or "n", *sides, channels]
    names = "abcdefgh"
    shape = [side if side is not None else names[axis] for axis, side in enumerate(shape)]
    nodes = [helper.make_node("Cast", ["pixels"], ["cast"], to=TensorProto.FLOAT)]
    if layout == "nhwc":
        nodes += [helper.make_node("Transpose", ["cast"], ["ordered"], perm=[0, 3, 1, 2])]
    nodes += [
        helper.make_node("Conv", ["ordered" if layout == "nhwc" else "cast", "kernel"], ["convolved"]),
        helper.make_node("Relu", ["convolved"], ["features"]),
        *before,
    ]
    last = "changed" if before else "features"
    outputs = {
        "vector": [helper.make_node("ReduceMean", [last], ["vector"], axes=[2, 3], keepdims=0)],
        "pooled": [helper.make_node("GlobalAveragePool", [last], ["pooled"])],
        "map": [helper.make_node("Identity", [last], ["map"])],
        "tokens": [
            helper.make_node("Reshape", [last, "flat"], ["flattened"]),
            helper.make_node("Transpose", ["flattened"], ["tokens"], perm=[0, 2, 1]),
        ],
    }
    chosen = give.split("+")
    nodes += [node for name in chosen for node in outputs[name]]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("pixels", _TYPES[dtype], shape)]
        + [helper.make_tensor_value_info(f"text{number}", TensorProto.FLOAT, [1]) for number in range(1, inputs)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in chosen],
        [numpy_helper.from_array(KERNEL, "kernel"), numpy_helper.from_array(np.array([0, 8, -1]), "flat")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    where = {"save_as_external_data": True, "location": f"{path.name}.data", "size_threshold": 100} if external else {}
    onnx.save(model, path, **where)
    return path
