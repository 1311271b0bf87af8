import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.data import Batch, Data, HeteroData

from pyg_avig import AxialGraph, InputError
from pyg_avig.graphs import (
    AxialEdges,
    DegradedEdges,
    ExpanderEdges,
    GraphConstructor,
    KNNEdges,
    NeighborhoodEdges,
    RadiusEdges,
    WindowEdges,
    graph_names,
    make_graph,
    register_graph,
)
from pyg_avig.graphs.adjacency import to_edge_list

RANDOM = {"expander", "degraded"}
LATTICE = {
    "axial",
    "dynamic_axial",
    "mobile_graph",
    "neighborhood",
    "neighborhood_attention",
    "window",
}


def lattices(size, copies):
    """Graphs on lattices, that also have positions, features and edges of their own."""
    nodes = torch.cartesian_prod(*map(torch.arange, size)).view(-1, len(size)).float()
    ring = torch.arange(len(nodes))
    ring = torch.stack([ring, ring.roll(1)])[:, : len(nodes) if len(nodes) > 1 else 0]
    generator = torch.Generator().manual_seed(0)
    return [
        Data(
            x=torch.randn(len(nodes), 5, generator=generator),
            pos=nodes,
            lattice_size=size,
            edge_index=ring,
            y=torch.ones(1),
        )
        for _ in range(copies)
    ]


@pytest.mark.parametrize("name", graph_names())
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), st.integers(1, 3))
def test_the_contract(name, size, copies):
    graphs = lattices(size, copies)
    constructor = make_graph(name)
    batch = constructor(Batch.from_data_list(graphs))
    source, target = batch.edge_index
    assert batch.edge_index.dtype == torch.long
    assert batch.edge_index.is_contiguous()
    assert (source != target).all()
    assert (target.diff() >= 0).all()
    assert torch.equal(batch.batch[source], batch.batch[target])
    pairs = source * batch.num_nodes + target
    assert len(pairs.unique()) == len(pairs)
    again = constructor(Batch.from_data_list(lattices(size, copies)))
    if name != "knn":  # Of nodes equally far away any may be taken.
        assert torch.equal(again.edge_index, batch.edge_index)
    if name not in RANDOM:
        alone = Batch.from_data_list([constructor(graph) for graph in lattices(size, copies)])
        assert alone.edge_index.shape == batch.edge_index.shape
        assert name == "knn" or torch.equal(alone.edge_index, batch.edge_index)


@pytest.mark.parametrize("name", sorted(set(graph_names()) - RANDOM))
@given(st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple), st.integers(1, 3))
def test_node_features_on_lattices_are_joined_as_a_batch_is(name, size, copies):
    batch = Batch.from_data_list(lattices(size, copies))
    batch.x = torch.randn_like(batch.x)
    constructor = make_graph(name)
    edges = to_edge_list(constructor.on_lattice(batch.x, size)).edge_index
    expected = constructor(batch).edge_index
    assert edges.shape == expected.shape
    assert name == "knn" or torch.equal(edges, expected)  # Of equally near ones any.


@pytest.mark.parametrize("name", graph_names())
def test_a_graph_without_nodes_has_no_edges(name):
    empty = Data(
        x=torch.empty(0, 3), pos=torch.empty(0, 2), edge_index=torch.empty(2, 0, dtype=torch.long)
    )
    if name in LATTICE:
        with pytest.raises(InputError, match="lattice_size"):
            make_graph(name)(empty)
    else:
        assert make_graph(name)(empty).edge_index.shape == (2, 0)


@pytest.mark.parametrize("name", graph_names())
def test_the_rest_of_the_data_stays_and_old_edge_features_go(name):
    (data,) = lattices((4, 4), 1)
    data.edge_attr = torch.randn(data.edge_index.size(1), 2)
    x, y = data.x, data.y
    out = make_graph(name)(data)
    assert out.x is x
    assert out.y is y
    assert "edge_attr" not in out
    assert repr(make_graph(name)).startswith(type(make_graph(name)).__name__)


def test_what_was_said_of_the_old_edges_goes():
    def graph(nodes, edges):
        data = Data(
            x=torch.randn(nodes, 2),
            pos=torch.randn(nodes, 2),
            edge_index=torch.randint(nodes, (2, edges)),
            edge_type=torch.zeros(edges, dtype=torch.long),
            edge_label=torch.ones(edges),
            edge_names=[str(n) for n in range(edges)],
            bond=torch.zeros(edges, 3),
            edge_free=torch.zeros(nodes + edges),
            train_mask=torch.ones(nodes, dtype=torch.bool),
            y=torch.zeros(edges),
        )
        return data

    kept = ["edge_free", "edge_index", "pos", "train_mask", "x", "y"]
    assert sorted(KNNEdges(2)(graph(5, 8)).keys()) == kept
    # As many edges as nodes, or as there are graphs: only a name tells.
    assert sorted(KNNEdges(2)(graph(5, 5)).keys()) == sorted([*kept, "bond"])
    assert sorted(KNNEdges(2)(graph(5, 1)).keys()) == sorted([*kept, "bond"])
    batch = KNNEdges(2)(Batch.from_data_list([graph(5, 8), graph(4, 2)]))
    assert sorted(batch.keys()) == sorted([*kept, "batch", "ptr"])


def test_the_pairs_of_a_link_prediction_stay():
    data = Data(
        pos=torch.randn(5, 2),
        edge_index=torch.randint(5, (2, 8)),
        edge_label_index=torch.randint(5, (2, 8)),
        edge_label=torch.ones(8),
        adj_t=torch.eye(5).to_sparse_csr(),
    )
    assert sorted(KNNEdges(2)(data).keys()) == [
        "edge_index",
        "edge_label",
        "edge_label_index",
        "pos",
    ]


@pytest.mark.parametrize("name", graph_names())
def test_a_batch_comes_apart_with_its_new_edges(name):
    graphs = lattices((2, 3), 2) + lattices((2, 3), 1)
    for graph in graphs:
        graph.pos = torch.randn(6, 2)
    before = Batch.from_data_list(graphs)
    batch = make_graph(name)(before)
    parts = batch.to_data_list()
    assert sum(part.num_edges for part in parts) == batch.num_edges
    for part, first in zip(parts, batch.ptr.tolist(), strict=False):
        mine = batch.batch[batch.edge_index[1]] == batch.batch[first]
        assert torch.equal(part.edge_index + first, batch.edge_index[:, mine])
    assert torch.equal(before[0].edge_index, graphs[0].edge_index)


def test_graphs_of_several_kinds_are_refused():
    with pytest.raises(InputError, match="one kind of nodes .got HeteroData"):
        KNNEdges()(HeteroData())


def test_numbers_of_numpy():
    data = Data(pos=torch.randn(20, 2), lattice_size=(4, 5))
    for make, number in (
        (lambda n: KNNEdges(n, dilation=n), 2),
        (lambda n: RadiusEdges(n, max_neighbors=n), 2),
        (lambda n: NeighborhoodEdges(n, n), 3),
        (lambda n: WindowEdges(n), 3),
        (lambda n: AxialEdges(n), 2),
        (lambda n: ExpanderEdges(n, n), 2),
        (lambda n: DegradedEdges("knn", {"k": n}, 0.5, n, n), 2),
    ):
        for kind in (np.int64, np.int32):
            edges = to_edge_list(make(kind(number)).graph(data)).edge_index
            assert torch.equal(edges, to_edge_list(make(number).graph(data)).edge_index)
    assert RadiusEdges(np.float32(0.5)).r == 0.5
    assert repr(KNNEdges(np.int64(3))) == repr(KNNEdges(3))


@pytest.mark.parametrize("name", graph_names())
@pytest.mark.parametrize("features", [2, 20])
def test_batches_of_no_graph_and_of_one(name, features):
    none = {"x": torch.empty(0, 3), "pos": torch.empty(0, features), "lattice_size": (2, 3)}
    none |= {"edge_index": torch.empty(2, 0).long(), "batch": torch.empty(0).long()}
    assert make_graph(name)(Data(**none)).edge_index.shape == (2, 0)
    (data,) = lattices((2, 3), 1)
    data.pos = torch.randn(6, features)
    one = make_graph(name)(Batch.from_data_list([data]))
    assert torch.equal(one.edge_index, make_graph(name)(data).edge_index)


def nearest(points, k):
    distance = torch.cdist(points, points)
    distance.fill_diagonal_(torch.inf)
    return distance.topk(min(k, len(points) - 1), largest=False)


@pytest.mark.parametrize(("of", "dimensions"), [("pos", 2), ("pos", 3), ("x", 8)])
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 3))
def test_nearest_neighbours(of, dimensions, sizes, k, dilation):
    graphs = [Data(**{of: torch.randn(n, dimensions, dtype=torch.double)}) for n in sizes]
    for graph in graphs:
        graph.num_nodes = len(graph[of])
    batch = KNNEdges(k, of, dilation)(Batch.from_data_list(graphs))
    expected = []
    for graph, first in zip(graphs, batch.ptr.tolist(), strict=False):
        if graph.num_nodes == 1:
            continue
        near = nearest(graph[of], k * dilation).indices[:, ::dilation]
        targets = torch.arange(graph.num_nodes).repeat_interleave(near.size(1))
        expected.append(torch.stack([near.flatten(), targets]) + first)
    assert torch.equal(batch.edge_index, torch.cat(expected or [torch.empty(2, 0).long()], 1))


@pytest.mark.parametrize("dimensions", [3, 8, 32])
@pytest.mark.parametrize("tree", [True, False])
def test_points_far_from_the_origin(dimensions, tree, monkeypatch):
    if not tree:
        monkeypatch.setattr("pyg_avig.graphs.distances.find_spec", lambda name: None)
    points = torch.rand(200, dimensions, dtype=torch.double) + 1000
    data = Data(pos=points.float())
    expected = nearest(data.pos.double(), 5).indices
    found = KNNEdges(5).graph(data)[0].view(200, 5)
    assert (found == expected).float().mean() > 0.97  # Some lie equally far away.
    r = float(torch.cdist(points, points).median())
    edges = RadiusEdges(r).graph(data)
    close = torch.cdist(data.pos.double(), data.pos.double()) <= r
    assert abs(edges.size(1) - (int(close.sum()) - 200)) <= 0.02 * edges.size(1)


def test_half_precision_and_batches_of_nothing():
    points = torch.randn(20, 3)
    for dtype in (torch.half, torch.bfloat16):
        assert KNNEdges(3).graph(Data(pos=points.to(dtype))).shape == (2, 60)
    empty = Data(pos=torch.empty(0, 3), x=torch.empty(0, 8), batch=torch.empty(0).long())
    for name in ("knn", "radius", "expander"):
        assert make_graph(name).graph(empty).shape == (2, 0)


def test_degrading_leaves_out_loops_and_repeats():
    edges = torch.tensor([[0, 0, 1, 2, 0], [0, 1, 2, 0, 1]])
    spoilt = DegradedEdges(remove=0, add=0).graph(Data(edge_index=edges, num_nodes=3))
    assert spoilt.tolist() == [[2, 0, 1], [0, 1, 2]]


@pytest.mark.parametrize("dimensions", [3, 8])
def test_nodes_in_one_place_are_still_not_their_own_neighbours(dimensions):
    data = KNNEdges(4)(Data(pos=torch.zeros(12, dimensions)))
    assert data.edge_index.shape == (2, 48)
    assert (data.edge_index[0] != data.edge_index[1]).all()


def test_many_nodes_are_compared_in_parts(monkeypatch):
    data = Data(x=torch.randn(50, 6), num_nodes=50)
    whole = KNNEdges(5, "x").graph(data)
    monkeypatch.setattr("pyg_avig.graphs.distances._NUMBERS", 200)
    assert torch.equal(KNNEdges(5, "x").graph(data), whole)


def test_directions_alone():
    x = torch.tensor([[1.0, 0.0], [100.0, 1.0], [0.9, 0.9], [1.0, 0.9]])
    data = Data(x=x)
    assert KNNEdges(1, "x").graph(data)[0].tolist() == [3, 3, 3, 2]
    assert KNNEdges(1, "x", cosine=True).graph(data)[0].tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("dimensions", [2, 5])
@given(st.integers(1, 40), st.floats(0.1, 3))
def test_radius(dimensions, number, r):
    points = torch.randn(number, dimensions, dtype=torch.double)
    edges = RadiusEdges(r).graph(Data(pos=points))
    close = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist") <= r
    assert edges.size(1) == int(close.sum()) - number
    assert close[edges[1], edges[0]].all()
    few = RadiusEdges(r, max_neighbors=3).graph(Data(pos=points))
    degrees = close.sum(1) - 1
    assert few[1].bincount(minlength=number).tolist() == degrees.clamp(max=3).tolist()


def test_axial_edges_are_those_of_the_graph():
    batch = Batch.from_data_list(lattices((3, 4), 2))
    graph = AxialEdges(stride=(1, 2)).graph(batch)
    assert graph == AxialGraph((3, 4), (1, 2), 2)
    assert torch.equal(AxialEdges((1, 2))(batch).edge_index, graph.edge_index)


@pytest.mark.parametrize("size", [(5,), (4, 5), (3, 4, 3)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_a_neighborhood_is_what_a_convolution_sees(size, dilation):
    (data,) = lattices(size, 1)
    source, target = NeighborhoodEdges(3, dilation).graph(data)
    grid = torch.randn(1, 1, *size, dtype=torch.double)
    conv = (torch.conv1d, torch.conv2d, torch.conv3d)[len(size) - 1]
    kernel = torch.ones(1, 1, *[3] * len(size), dtype=torch.double)
    seen = conv(grid, kernel, padding=dilation, dilation=dilation).flatten()
    x = grid.flatten()
    assert torch.allclose(x.index_add(0, target, x[source]), seen)


def test_windows():
    (data,) = lattices((5, 4), 1)
    source, target = WindowEdges(3).graph(data)
    window = [(int(r) // 3, int(c) // 3) for r, c in data.pos]
    assert all(
        window[s] == window[t] for s, t in zip(source.tolist(), target.tolist(), strict=True)
    )
    # 3 x 3, 3 x 1, 2 x 3 and 2 x 1 nodes, all joined.
    assert len(source) == 9 * 8 + 3 * 2 + 6 * 5 + 2 * 1


def test_an_expander_reaches_all_in_few_steps():
    edges = ExpanderEdges(4).graph(Data(x=torch.randn(1000, 1)))
    degrees = edges[1].bincount()
    assert degrees.max() <= 4
    assert degrees.float().mean() > 3.9
    reached, steps = torch.zeros(1000, dtype=torch.bool), 0
    reached[0] = True
    while not reached.all():
        reached[edges[1][reached[edges[0]]]] = True
        steps += 1
    assert steps < 15
    assert not torch.equal(edges, ExpanderEdges(4, seed=1).graph(Data(x=torch.randn(1000, 1))))


@given(st.floats(0, 1), st.floats(0, 1))
def test_degraded_graphs(remove, add):
    data = Batch.from_data_list([Data(pos=torch.randn(n, 3)) for n in (40, 60)])
    true = KNNEdges(5).graph(data)
    spoilt = DegradedEdges("knn", {"k": 5}, remove, add).graph(data)
    codes = [edges[0] * 100 + edges[1] for edges in (true, spoilt)]
    kept = torch.isin(codes[1], codes[0])
    assert abs(int(kept.sum()) - (1 - remove) * 500) < 60
    assert int((~kept).sum()) == round(add * 500)


def test_a_full_graph_has_no_room_for_random_edges():
    data = Data(pos=torch.randn(4, 2), num_nodes=4)
    spoilt = DegradedEdges("knn", {"k": 2}, remove=0, add=10).graph(data)
    assert spoilt.size(1) == 12


def test_drawing_anew():
    data = Data(pos=torch.randn(50, 2))
    for constructor in (ExpanderEdges(seed=None), DegradedEdges("knn", seed=None)):
        assert not torch.equal(constructor.graph(data), constructor.graph(data))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_graph("none"), "graph must be one of .'axial'.*'none'"),
        (lambda: make_graph("knn", j=3), "arguments of the graph 'knn'"),
        (lambda: KNNEdges(0), "k must be a positive int .got 0"),
        (lambda: KNNEdges(2.5), "k must be a positive int .got 2.5"),
        (lambda: RadiusEdges(-1), "r must be a positive float .got -1"),
        (lambda: NeighborhoodEdges(4), "kernel must be odd .got 4"),
        (lambda: WindowEdges(0), "side must be a positive int"),
        (lambda: ExpanderEdges(3), "degree must be even .got 3"),
        (lambda: DegradedEdges(remove=2), r"remove in \[0, 1\] .* .got 2"),
        (lambda: KNNEdges()(Data(x=torch.randn(3, 2))), "data.pos of shape .N, D.* .got None"),
        (lambda: KNNEdges()(Data(pos=torch.ones(3, 2).long())), "floating point"),
        (lambda: KNNEdges()(Data(pos=torch.full((3, 2), torch.nan))), "NaN"),
        (lambda: KNNEdges()(Data(pos=torch.full((3, 5), torch.inf))), "NaN or infinity"),
        (lambda: RadiusEdges()(Data(pos=torch.full((3, 2), torch.nan))), "NaN"),
        (lambda: KNNEdges()(Data(pos=torch.randn(6, 3), x=torch.ones(4, 1))), "4 points"),
        (
            lambda: KNNEdges()(Data(pos=torch.randn(2, 3), batch=torch.tensor([1, 0]))),
            "graph after graph",
        ),
        (lambda: DegradedEdges()(Data(x=torch.randn(3, 2))), "edge_index, to spoil it"),
        (lambda: AxialEdges()(Data(x=torch.randn(3, 2))), "lattice_size"),
    ],
)
def test_bad_input_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_constructor_of_ones_own():
    from pyg_avig.graphs import constructors

    @register_graph("own")
    class Own(GraphConstructor):
        def graph(self, data):
            return torch.tensor([[0], [1]])

    try:
        assert make_graph("own")(Data(x=torch.randn(2, 1))).edge_index.tolist() == [[0], [1]]
    finally:
        del constructors._CONSTRUCTORS["own"]


@pytest.mark.parametrize("name", sorted(LATTICE))
def test_lattices_are_counted_by_their_nodes(name):
    batch = Batch.from_data_list(lattices((3, 4), 2))
    expected = make_graph(name)(batch.clone()).edge_index
    plain = Data(x=batch.x, batch=batch.batch, lattice_size=(3, 4))
    assert torch.equal(make_graph(name)(plain).edge_index, expected)
    with pytest.raises(InputError, match=r"whole lattices \(3, 4\), 12 each .got 13"):
        make_graph(name)(Data(x=torch.randn(13, 2), lattice_size=(3, 4)))
