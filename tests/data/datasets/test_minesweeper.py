import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pyg_avig import InputError
from pyg_avig.data import GraphData, Minesweeper

SPLITS = ("train", "val", "test")


@given(st.integers(3, 12), st.integers(3, 12), st.floats(0.3, 0.6), st.floats(0, 1))
def test_a_known_cell_shows_its_neighbouring_mines(tmp_path_factory, rows, columns, mines, unknown):
    root = tmp_path_factory.mktemp("minesweeper")
    assume(4 <= round(mines * rows * columns) <= rows * columns - 4)
    board = Minesweeper(str(root), size=(rows, columns), mines=mines, unknown=unknown)[0]
    y = board.y.view(rows, columns).tolist()
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    edges = set()
    for n, (r, c) in enumerate(cells):
        around = [
            (a, b)
            for a in range(max(r - 1, 0), min(r + 2, rows))
            for b in range(max(c - 1, 0), min(c + 2, columns))
            if (a, b) != (r, c)
        ]
        edges |= {(a * columns + b, n) for a, b in around}
        shown = int(board.x[n].argmax())
        assert shown in (0, 1 + min(sum(y[a][b] for a, b in around), 5))
    assert set(map(tuple, board.edge_index.T.tolist())) == edges
    assert len(edges) == board.num_edges
    assert (board.x.sum(1) == 1).all()
    assert int(board.y.sum()) == round(mines * len(cells))
    assert int(board.x[:, 0].sum()) == round(unknown * len(cells))


def test_the_board_of_the_paper(tmp_path):
    data_set = Minesweeper(str(tmp_path))
    board = data_set[0]
    assert (board.num_nodes, board.num_edges, board.num_features) == (10_000, 78_804, 7)
    assert board.is_undirected()
    assert board.y.bincount().tolist() == [8000, 2000]
    assert (data_set.num_classes, data_set.classes) == (2, ["no mine", "mine"])
    parts = [board[f"{name}_mask"] for name in SPLITS]
    assert all(part.shape == (10_000, 10) for part in parts)
    assert (torch.stack(parts).sum(0) == 1).all()
    for part, cells in zip(parts, (5000, 2500, 2500), strict=True):
        assert part.sum(0).tolist() == [cells] * 10
        assert board.y[part[:, 3]].sum() == cells / 5
    # Independent splits share a quarter of the cells in a half of each.
    assert abs(int((parts[0][:, 0] & parts[0][:, 1]).sum()) - 2500) < 200
    # Mines lie at random: an inner cell has 8 * 0.2 of them around it.
    known = board.x[:, 1:].sum(0)
    mean = float((known * torch.arange(6)).sum() / known.sum())
    assert mean == pytest.approx(8 * 0.2, abs=0.1)


def test_a_board_is_a_function_of_its_arguments(tmp_path):
    first = Minesweeper(str(tmp_path), size=10)[0]
    torch.manual_seed(7)
    again = Minesweeper(str(tmp_path / "again"), size=10)[0]
    assert all(torch.equal(first[key], again[key]) for key in first.to_dict())
    for other in ({"seed": 1}, {"mines": 0.3}, {"unknown": 0.4}, {"size": (10, 11)}):
        board = Minesweeper(str(tmp_path), **{"size": 10, **other})[0]
        assert not (torch.equal(first.x, board.x) and torch.equal(first.y, board.y))
    assert torch.equal(Minesweeper(str(tmp_path), size=10)[0].x, first.x)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_prepared_board_is_not_drawn_again(tmp_path, monkeypatch):
    Minesweeper(str(tmp_path), size=10)
    monkeypatch.setattr(Minesweeper, "process", lambda self: 1 / 0)
    assert Minesweeper(str(tmp_path), size=10)[0].num_nodes == 100


def test_every_split_can_be_trained_on(tmp_path):
    board = Minesweeper(str(tmp_path), size=10)
    for fold in (0, 9):
        (batch,) = GraphData(board, level="node", split={"fold": fold}).train_dataloader()
        assert torch.equal(batch.train_mask, board[0].train_mask[:, fold])


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"size": 0}, "size must be a positive int or two .got 0"),
        ({"size": (3, 4, 5)}, "size must be a positive int or two"),
        ({"mines": 1.5}, r"shares in \[0, 1\] .got 1.5 and 0.5"),
        ({"unknown": -1}, r"shares in \[0, 1\] .got 0.2 and -1"),
        ({"size": 4}, "at least 4 mines and .* .got 3 mines on 16 cells"),
        ({"mines": 1}, "4 other cells, .* .got 10000 mines on 10000 cells"),
    ],
)
def test_bad_arguments(tmp_path, args, message):
    with pytest.raises(InputError, match=message):
        Minesweeper(str(tmp_path), **args)
