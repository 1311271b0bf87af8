import sys

import onnx
import pytest
import torch
from torch_geometric.data import Batch, Data

from pyg_avig import InputError
from pyg_avig.models.exported_onnx import OnnxGraphs, OnnxModel


def save(path, said):
    """y = x + x, for x of shape (N, 2)."""
    x, y = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 2]) for name in "xy"
    )
    node = onnx.helper.make_node("Add", ["x", "x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [x], [y])
    opsets = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.helper.set_model_props(model, {} if said is None else {"pyg_avig": said})
    onnx.save(model, path)
    return path


def test_a_model_runs_and_says_what_it_is(tmp_path):
    model = OnnxModel(save(tmp_path / "a.onnx", '{"name": "b", "c": 1}'), ["name"])
    assert (model.inputs, model.outputs) == (["x"], ["y"])
    assert model.description == {"name": "b", "c": 1}
    assert torch.equal(model(torch.ones(3, 2)), torch.full((3, 2), 2.0))
    with pytest.raises(InputError, match="a.onnx: expected inputs that it takes"):
        model(torch.ones(3, 3))
    with pytest.raises(InputError, match="expected inputs that it takes"):
        model(torch.ones(3, 2, dtype=torch.double))


def test_graphs_are_given_field_by_field():
    def program(*inputs):
        return inputs

    program.inputs = ["x", "edge_index", "edge_attr", "num_nodes"]
    one = Data(
        x=torch.ones(3, 2),
        edge_index=torch.tensor([[0, 1], [1, 2]], dtype=torch.int32),
        edge_attr=torch.ones(2),
    )
    x, edge_index, edge_attr, sizes = OnnxGraphs(program, 1)(one)
    assert (x.shape, edge_index.dtype, edge_attr.shape) == ((3, 2), torch.long, (2, 1))
    assert sizes.tolist() == [3]
    assert OnnxGraphs(program, 1)(Batch.from_data_list([one, one]))[-1].tolist() == [3, 3]
    sparse = one.clone().update({"x": one.x.to_sparse()})
    assert torch.equal(OnnxGraphs(program, 1)(sparse)[0], x)
    del one.edge_attr
    with pytest.raises(InputError, match="the field edge_attr"):
        OnnxGraphs(program, 1)(one)


@pytest.mark.parametrize("said", [None, "3", "{", '{"c": 1}'])
def test_files_of_others_are_refused(said, tmp_path):
    path = save(tmp_path / "a.onnx", said)
    with pytest.raises(InputError, match="a.onnx: expected an ONNX file that `pyg-avig export`"):
        OnnxModel(path, ["name"])


@pytest.mark.parametrize("content", [None, b"", b"broken"])
def test_what_is_no_onnx_is_refused(content, tmp_path):
    path = tmp_path / "a.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="a.onnx: expected an ONNX file") as error:
        OnnxModel(path)
    assert len(str(error.value).splitlines()) == 1


def test_a_missing_onnxruntime_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"expected onnxruntime .*pyg_avig\[onnx\]"):
        OnnxModel(tmp_path / "a.onnx")
