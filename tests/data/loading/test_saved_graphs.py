import collections

import pytest
import torch
from torch_geometric.data import Batch, Data, HeteroData

from pyg_avig import InputError
from pyg_avig.data.loading.saved_graphs import read_graphs


def test_graphs_are_read_as_they_were_saved(tmp_path):
    path = tmp_path / "graph.pt"
    graph = Data(x=torch.randn(3, 2), edge_index=torch.tensor([[0, 1], [1, 2]]), name="a")
    torch.save(graph, path)
    (found,) = read_graphs(path)
    assert torch.equal(found.x, graph.x)
    assert torch.equal(found.edge_index, graph.edge_index)
    assert found.name == "a"
    torch.save([graph, Data(x=torch.zeros(1, 2))], path)
    assert [len(found.x) for found in read_graphs(path)] == [3, 1]


class Code:
    """Runs a function when it is unpickled."""

    def __reduce__(self):
        return (print, ("this code was run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3), "it holds Tensor"),
        ([Data(), 3], "it holds int"),
        (HeteroData(), "it holds torch_geometric.*Storage"),
        (Batch.from_data_list([Data(x=torch.zeros(1, 1))]), "it holds torch_geometric.data.batch"),
        (collections.Counter("ab"), "it holds Counter"),
        (Code(), "it holds .*print"),
    ],
)
def test_anything_else_is_named(content, message, tmp_path, capsys):
    path = tmp_path / "a.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match=f"a.pt: expected a Data of PyG, .* .{message}"):
        read_graphs(path)
    assert "this code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"no graph", b"hello", b"q", None])
def test_files_that_cannot_be_read_are_named(content, tmp_path):
    path = tmp_path / "a.pt"
    if content is not None:
        path.write_bytes(content)
    reason = "there is no such file" if content is None else "it cannot be read"
    with pytest.raises(InputError, match=f"a.pt: expected a Data .*{reason}"):
        read_graphs(path)
