import pytest
import torch

from pyg_avig import InputError
from pyg_avig.data import Cluster, GraphData, Pattern


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return str(tmp_path_factory.mktemp("block_models"))


@pytest.fixture(scope="module")
def pattern(root):
    return Pattern(root + "/pattern", share=0.01)


@pytest.fixture(scope="module")
def cluster(root):
    return Cluster(root + "/cluster", share=0.02)


def density(graphs, of):
    """Edges over pairs of different nodes, both in ``of``, over all graphs."""
    edges = pairs = 0
    for data in graphs:
        for a, b in of(data):
            source, target = data.edge_index
            edges += int((a[source] & b[target]).sum())
            pairs += int(a.sum() * b.sum() - (a & b).sum())
    return edges / pairs


def test_edges_within_and_between_the_communities(cluster):
    def groups(data):
        return [data.y == label for label in range(6)]

    within = density(cluster, lambda data: [(group, group) for group in groups(data)])
    between = density(cluster, lambda data: [(group, ~group) for group in groups(data)])
    assert within == pytest.approx(0.55, abs=0.005)
    assert between == pytest.approx(0.25, abs=0.005)


def test_edges_of_patterns(pattern):
    hidden = density(pattern, lambda data: [(data.y == 1, data.y == 1)])
    across = density(pattern, lambda data: [(data.y == 1, data.y == 0)])
    outside = density(pattern, lambda data: [(data.y == 0, data.y == 0)])
    # A hundred patterns of about 190 pairs each, the same in all parts.
    assert hidden == pytest.approx(0.5, abs=0.02)
    assert across == pytest.approx(0.5, abs=0.005)
    # Of five communities of s nodes a share of E[s(s - 1)] / E[n(n - 1)] pairs are within one.
    size, square = 19.5, 19.5**2 + (30**2 - 1) / 12
    share = 5 * (square - size) / (5 * (square - size) + 20 * size**2)
    assert outside == pytest.approx(0.5 * share + 0.35 * (1 - share), abs=0.01)


@pytest.mark.parametrize("name", ["pattern", "cluster"])
def test_graphs_are_undirected_without_loops_and_shuffled(name, request):
    graphs = request.getfixturevalue(name)
    for data in graphs[:10]:
        data.validate()
        assert data.is_undirected()
        assert not data.has_self_loops()
        assert (data.edge_index[1].diff() >= 0).all()
        assert (data.x.sum(1) == 1).all()
        assert (data.y.diff() < 0).any()


def test_one_node_of_each_community_is_known(cluster):
    sizes = []
    for data in cluster:
        known = data.x.argmax(1)
        assert sorted(known[known > 0].tolist()) == list(range(1, 7))
        assert torch.equal(known[known > 0] - 1, data.y[known > 0])
        sizes += data.y.bincount(minlength=6).tolist()
    assert (min(sizes), max(sizes)) == (5, 34)
    assert sum(sizes) / len(sizes) == pytest.approx(19.5, abs=0.7)


def test_a_pattern_is_the_same_in_every_part(pattern):
    split = pattern.split()
    sizes = {}
    for name, index in split.items():
        graphs = pattern[index]
        sizes[name] = [int(data.y.sum()) for data in graphs]
        signals = [data.x[data.y == 1].sum(0).tolist() for data in graphs]
        edges = [int(data.y[data.edge_index].all(0).sum()) for data in graphs]
        sizes[name] = list(zip(sizes[name], signals, edges, strict=True))
    assert sizes["train"] == sizes["val"] == sizes["test"]
    hidden = [size for size, _, _ in sizes["train"]]
    assert (min(hidden), max(hidden)) >= (5, 30)
    assert max(hidden) <= 34
    # The signals themselves are uniform, in the pattern and around it.
    counts = torch.stack([data.x.sum(0) for data in pattern]).sum(0)
    assert (counts / counts.sum()).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_sizes_of_the_parts(pattern, cluster):
    assert [len(index) for index in pattern.split().values()] == [100, 100, 100]
    assert [len(index) for index in cluster.split().values()] == [200, 20, 20]
    for graphs in (pattern, cluster):
        assert torch.cat(list(graphs.split().values())).tolist() == list(range(len(graphs)))
    whole = Pattern.__new__(Pattern)
    whole.share = 1.0
    assert whole.sizes == [10_000, 2_000, 2_000]
    whole.share = 0.1
    assert whole.sizes == [1_000, 200, 200]


@pytest.mark.parametrize("kind", [Pattern, Cluster])
def test_graphs_are_a_function_of_seed_and_share(kind, tmp_path, monkeypatch):
    def make(root, share=0.002, **args):
        return kind(str(tmp_path / root), share=share, **args)

    first = make("a")
    torch.manual_seed(7)
    again = make("b")
    assert torch.equal(first[3].edge_index, again[3].edge_index)
    assert torch.equal(first[3].x, again[3].x)
    assert not torch.equal(make("a", seed=1)[3].y, first[3].y)
    monkeypatch.setattr(kind, "process", lambda self: 1 / 0)
    assert torch.equal(make("a")[3].y, first[3].y)


@pytest.mark.parametrize("name", ["pattern", "cluster"])
def test_they_can_be_trained_on(name, request):
    data_set = request.getfixturevalue(name)
    module = GraphData(data_set, level="node", batch_size=4)
    assert module.facts["classes"] == list(data_set.classes)
    assert module.facts["in_channels"] == data_set.num_features == {"pattern": 3}.get(name, 7)
    batch = next(iter(module.train_dataloader()))
    assert batch.num_graphs == 4
    assert batch.y.shape == (batch.num_nodes,)


@pytest.mark.parametrize("share", [0, 1.1, -1])
def test_bad_shares(tmp_path, share):
    with pytest.raises(InputError, match=r"share must lie in \(0, 1\]"):
        Cluster(str(tmp_path), share=share)
