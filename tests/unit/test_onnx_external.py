"""Which files an ONNX file keeps its weights in is read without the package onnx, as that reads it."""

from pathlib import Path

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from lookalike.embed.onnx_external import locations
from onnx_networks import save


def outside(location: str) -> TensorProto:
    tensor = TensorProto(name=location, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def inside(size: int = 1) -> TensorProto:
    return numpy_helper.from_array(np.ones(size, np.float32), "inside")


def test_tensors_are_found_wherever_a_model_can_have_them(tmp_path: Path) -> None:
    sparse = helper.make_sparse_tensor(outside("sparse"), inside(), [4])
    branch = GraphProto(name="branch", initializer=[outside("branch"), inside()])
    node = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=GraphProto(name="empty"))
    constant = helper.make_node("Constant", [], ["c"], value=outside("attribute"))
    several = helper.make_node("Custom", [], ["d"], tensors=[outside("list"), inside()], graphs=[branch])
    function = helper.make_function("mine", "F", [], ["c"], [constant], [helper.make_opsetid("", 20)])
    graph = GraphProto(name="graph", initializer=[inside(5000), outside("data/weights é.bin")])
    graph.node.extend([node, several])
    graph.sparse_initializer.append(sparse)
    path = tmp_path / "net.onnx"
    path.write_bytes(helper.make_model(graph, functions=[function]).SerializeToString())
    assert locations(path) == {"sparse", "branch", "attribute", "list", "data/weights é.bin"}


def test_a_network_in_one_file_has_none(tmp_path: Path) -> None:
    assert locations(save(tmp_path / "net.onnx")) == set()
    assert locations(save(tmp_path / "other.onnx", external=True)) == {"other.onnx.data"}


@pytest.mark.parametrize("content", [b"", b"no network", b"\x89PNG\r\n\x1a\n", b"\x08" + b"\xff" * 20, b"\x08\x09"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"no (graph|field|number)|empty"):
        locations(path)


def test_a_file_that_was_cut_off_is_refused_wherever_that_hits_its_graph(tmp_path: Path) -> None:
    content = save(tmp_path / "net.onnx", external=True).read_bytes()
    model = ModelProto.FromString(content)
    first = content.index(model.graph.SerializeToString())
    path = tmp_path / "cut.onnx"
    for length in range(first, first + model.graph.ByteSize()):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"no (graph|field|number)"):
            locations(path)
