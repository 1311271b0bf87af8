"""What a drop-in PyG attention layer must do, one function a row.

Each takes a maker of layers and fails if the layer does not keep the row. The tests run them
for CrossAttnConv; ``python tests/nn/pyg_contract.py`` runs them for PyG's attention layers too
and prints the table of docs/pyg_contract.md.
"""

import copy
import io
import pickle
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric import EdgeIndex
from torch_geometric.data import Data, HeteroData
from torch_geometric.explain import AttentionExplainer, Explainer
from torch_geometric.nn import (
    AGNNConv,
    GATConv,
    GATv2Conv,
    GPSConv,
    HeteroConv,
    Sequential,
    SuperGATConv,
    TransformerConv,
    to_hetero,
)
from torch_geometric.nn.models.basic_gnn import BasicGNN
from torch_geometric.typing import WITH_TORCH_SPARSE, SparseTensor
from torch_geometric.utils import add_self_loops, remove_self_loops, trim_to_layer

from pyg_avig import CrossAttnConv

ROWS = {}


def row(title, needs=None):
    def register(function):
        ROWS[function.__name__] = (title, function, needs)
        return function

    return register


EDGES = torch.tensor([[0, 1, 2, 3, 3], [0, 0, 1, 1, 2]])
BIPARTITE = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
NUM_EDGES = EDGES.size(1)


def x1():
    return torch.linspace(-1, 1, 32).sin().view(4, 8) + torch.eye(4, 8)


def x2():
    return torch.linspace(1, 3, 32).cos().view(2, 16)


def close(a, b, atol=1e-6):
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-5)


def differs(a, b):
    assert not torch.allclose(a, b)


@row("lazy `in_channels=-1` equals eager")
def lazy(make):
    first, second = make(-1, 4, heads=2), make(8, 4, heads=2)
    first(x1(), EDGES)
    second.load_state_dict(first.state_dict())
    close(first(x1(), EDGES), second(x1(), EDGES))


@row("`copy`, `deepcopy`, pickle, `torch.save`, `reset_parameters`")
def copies(make):
    conv = make(8, 4)
    buffer = io.BytesIO()
    torch.save(conv, buffer)
    buffer.seek(0)
    others = [copy.copy(conv), copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))]
    for other in [*others, torch.load(buffer, weights_only=False)]:
        close(other(x1(), EDGES), conv(x1(), EDGES))
    assert str(conv).startswith(type(conv).__name__)
    before = [p.clone() for p in conv.parameters() if p.dim() > 1]
    conv.reset_parameters()
    after = [p for p in conv.parameters() if p.dim() > 1]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@row("bipartite `(x_src, x_dst)`")
def bipartite(make):
    conv = make((8, 16), 4)
    out = conv((x1(), x2()), BIPARTITE)
    assert out.size(0) == 2
    # A target depends on its own sources alone.
    x = x1()
    x[2:] += 1
    changed = conv((x, x2()), BIPARTITE)
    close(changed[0], out[0])
    differs(changed[1], out[1])


@row("... with `size=`")
def bipartite_size(make):
    conv = make((8, 16), 4)
    close(conv((x1(), x2()), BIPARTITE, size=(4, 2)), conv((x1(), x2()), BIPARTITE))


def same_gradients(make, adjacencies):
    conv = make(8, 4)
    found = []
    for adjacency in [EDGES, *adjacencies]:
        x = x1().requires_grad_()
        out = conv(x, adjacency)
        conv.zero_grad()
        out.square().sum().backward()
        found.append([out, x.grad, *[p.grad for p in conv.parameters() if p.grad is not None]])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            close(a, b)


@row("int32 `edge_index`")
def int32(make):
    same_gradients(make, [EDGES.int()])


@row("`EdgeIndex`")
def edge_index(make):
    index = EdgeIndex(EDGES, sparse_size=(4, 4))
    same_gradients(make, [index, EdgeIndex(EDGES, sparse_size=(4, 4), sort_order="col")])


def matrix():
    return torch.sparse_coo_tensor(EDGES.flip(0), torch.ones(NUM_EDGES), (4, 4)).coalesce()


@row("torch.sparse COO")
def coo(make):
    same_gradients(make, [matrix()])


@row("torch.sparse CSR")
def csr(make):
    same_gradients(make, [matrix().to_sparse_csr()])


@row("torch.sparse CSC")
def csc(make):
    same_gradients(make, [matrix().to_sparse_csc()])


@row("`SparseTensor`", needs="torch-sparse")
def sparse_tensor(make):
    adjacency = SparseTensor.from_edge_index(EDGES, sparse_sizes=(4, 4)).t()
    same_gradients(make, [adjacency])


@row("an out-of-range index is an `IndexError` that names the range")
def index_error(make):
    for bad in ([[-1], [0]], [[4], [0]], [[0], [-1]], [[0], [4]]):
        with pytest.raises(IndexError, match=r"\[0, 4\)"):
            make(8, 4)(x1(), torch.tensor(bad))


@row("`heads` and `concat`")
def heads(make):
    assert make(8, 4, heads=3)(x1(), EDGES).shape == (4, 12)
    assert make(8, 4, heads=3, concat=False)(x1(), EDGES).shape == (4, 4)


@row("`dropout` on the attention, in training only")
def dropout(make):
    conv = make(8, 4, dropout=0.5)
    outs = [conv(x1(), EDGES) for _ in range(8)]
    assert any(not torch.equal(out, outs[0]) for out in outs)
    # A node without neighbours has no attention to drop.
    assert all(torch.equal(out[3], outs[0][3]) for out in outs)
    conv.eval()
    close(conv(x1(), EDGES), conv(x1(), EDGES))


@row("`edge_dim`: 2-D `edge_attr` matters")
def edge_attr_2d(make):
    conv = make(8, 4, edge_dim=3)
    attr = torch.linspace(-1, 1, 3 * NUM_EDGES).view(-1, 3)
    differs(conv(x1(), EDGES, attr), conv(x1(), EDGES, attr.flip(0) * 3))


@row("`edge_dim=1`: 1-D `edge_attr` equals 2-D")
def edge_attr_1d(make):
    conv = make(8, 4, edge_dim=1)
    attr = torch.linspace(-1, 1, NUM_EDGES)
    close(conv(x1(), EDGES, attr), conv(x1(), EDGES, attr.view(-1, 1)))


@row("`add_self_loops`: one a node, in place of those that are there; `fill_value`")
def self_loops(make):
    index = torch.cat([EDGES, torch.tensor([[1], [1]])], 1)
    attr = torch.linspace(-1, 1, 3 * index.size(1)).view(-1, 3)
    for fill_value in ("mean", 0.5):
        options = {"edge_dim": 3, "fill_value": fill_value}
        conv, plain = make(8, 4, add_self_loops=True, **options), make(8, 4, **options)
        plain.load_state_dict(conv.state_dict())
        looped = add_self_loops(*remove_self_loops(index, attr), fill_value, 4)
        close(conv(x1(), index, attr), plain(x1(), *looped))


@row("`root_weight=False`: a node without neighbours gives the bias")
def root_weight(make):
    with_it, without = (
        make(8, 4, root_weight=root_weight)(x1(), EDGES)[3] for root_weight in (True, False)
    )
    differs(with_it, torch.zeros(4))
    conv = make(8, 4, root_weight=False)
    x = x1()
    x[3] += 1
    close(conv(x, EDGES)[3], conv(x1(), EDGES)[3])
    differs(conv(x, EDGES)[2], conv(x1(), EDGES)[2])
    assert not without.any()


@row("`residual`")
def residual(make):
    conv = make(8, 4, heads=2, residual=True)
    with_it = conv(x1(), EDGES)
    torch.nn.init.zeros_(conv.res.weight)
    assert with_it.shape == (4, 8)
    differs(conv(x1(), EDGES), with_it)


@row("`return_attention_weights`: None and False give the tensor alone")
def no_weights(make):
    conv = make(8, 4)
    out = conv(x1(), EDGES)
    for value in (None, False):
        close(conv(x1(), EDGES, return_attention_weights=value), out)


@row("`return_attention_weights=True`: weights of the very edges given")
def weights(make):
    conv = make(8, 4, heads=2)
    out, (index, alpha) = conv(x1(), EDGES, return_attention_weights=True)
    close(out, conv(x1(), EDGES))
    assert torch.equal(index, EDGES)
    assert alpha.shape == (NUM_EDGES, 2)
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert (alpha > 0).any()
    # The edges may come in any order, and the weights follow.
    order = torch.tensor([4, 2, 0, 1, 3])
    close(conv(x1(), EDGES[:, order], return_attention_weights=True)[1][1], alpha[order])


@row("... and for torch.sparse the matrix with the weights as values")
def weights_of_a_matrix(make):
    conv = make(8, 4, heads=2)
    expected = conv(x1(), EDGES, return_attention_weights=True)[1][1]
    for adjacency in (matrix(), matrix().to_sparse_csr()):
        _, (weighted, alpha) = conv(x1(), adjacency, return_attention_weights=True)
        assert weighted.layout == adjacency.layout
        assert alpha.shape == expected.shape
        close(weighted.values(), expected)  # EDGES are sorted by target, as the matrix is.


@row("... and for a `SparseTensor` likewise", needs="torch-sparse")
def weights_of_a_sparse_tensor(make):
    conv = make(8, 4, heads=2)
    adjacency = SparseTensor.from_edge_index(EDGES, sparse_sizes=(4, 4)).t()
    expected = conv(x1(), EDGES, return_attention_weights=True)[1][1]
    _, weighted = conv(x1(), adjacency, return_attention_weights=True)
    target, source, alpha = weighted.coo()
    order = [EDGES.T.tolist().index(e) for e in torch.stack([source, target]).T.tolist()]
    close(alpha, expected[order])


@row("isolated nodes, no edges, no nodes: results, no NaN")
def empty(make):
    conv = make(8, 4)
    none = torch.empty(2, 0, dtype=torch.long)
    out, alone = conv(x1(), EDGES), conv(x1(), none)
    assert out.isfinite().all()
    assert alone.isfinite().all()
    close(out[3], alone[3])  # Node 3 receives nothing.
    assert conv(x1()[:0], none).size(0) == 0


@row("a feature vector of zeros: no NaN, also in the gradient")
def zero_features(make):
    conv = make(8, 4)
    x = x1()
    x[1] = 0
    x.requires_grad_()
    conv(x, EDGES).sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in conv.parameters())


@row("`[B, N, F]` features on one graph")
def static_graph(make):
    conv = make(8, 4)
    x = torch.stack([x1(), 2 * x1() + 1, x1().flip(0)])
    close(conv(x, EDGES), torch.stack([conv(one, EDGES) for one in x]))


@row("message hooks change what passes")
def hooks(make):
    conv = make(8, 4)
    before = conv(x1(), EDGES)
    handle = conv.register_message_forward_hook(lambda module, inputs, out: 3 * out)
    differs(conv(x1(), EDGES), before)
    handle.remove()
    close(conv(x1(), EDGES), before)


@row("`aggr` and `flow` of `MessagePassing`")
def aggr_and_flow(make):
    conv, mean = make(8, 4), make(8, 4, aggr="mean")
    back = make(8, 4, flow="target_to_source")
    mean.load_state_dict(conv.state_dict())
    back.load_state_dict(conv.state_dict())
    differs(mean(x1(), EDGES), conv(x1(), EDGES))
    close(back(x1(), EDGES.flip(0)), conv(x1(), EDGES))


@row("`explain=True`: edge masks of zeros silence, of ones change nothing")
def explain(make):
    conv = make(8, 4)
    before, without = conv(x1(), EDGES), conv(x1(), EDGES[:, :0])
    conv.explain = True
    conv._apply_sigmoid = False
    conv._loop_mask = EDGES[0] != EDGES[1]  # As PyG's explainers set it.
    conv._edge_mask = torch.ones(NUM_EDGES)
    close(conv(x1(), EDGES), before)
    conv._edge_mask = torch.zeros(NUM_EDGES)
    close(conv(x1(), EDGES), without)
    conv.explain = None
    close(conv(x1(), EDGES), before)


class TwoLayers(nn.Module):
    def __init__(self, make, in_channels=8):
        super().__init__()
        self.conv1, self.conv2 = make(in_channels, 8), make(in_channels, 8)

    def forward(self, x, edge_index):
        return self.conv2(self.conv1(x, edge_index).relu(), edge_index)


def explainer(model, **kwargs):
    config = {"mode": "multiclass_classification", "task_level": "node", "return_type": "raw"}
    return Explainer(
        model,
        AttentionExplainer(),
        explanation_type="model",
        edge_mask_type="object",
        model_config=config,
    )


@row("`AttentionExplainer`")
def attention_explainer(make):
    explanation = explainer(TwoLayers(make))(x1(), EDGES)
    assert explanation.edge_mask.shape == (NUM_EDGES,)
    assert (explanation.edge_mask > 0).any()


def hetero_graph():
    data = HeteroData()
    data["a"].x, data["b"].x = torch.randn(4, 8), torch.randn(3, 8)
    data["a", "to", "b"].edge_index = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2]])
    data["b", "to", "a"].edge_index = torch.tensor([[0, 1, 2, 2], [0, 1, 2, 3]])
    return data


@row("`to_hetero` of lazy layers, forward and backward")
def hetero(make):
    data = hetero_graph()
    model = to_hetero(TwoLayers(make, in_channels=(-1, -1)), data.metadata())
    with torch.no_grad():
        model(data.x_dict, data.edge_index_dict)
    out = model(data.x_dict, data.edge_index_dict)
    sum(o.sum() for o in out.values()).backward()
    assert {k: len(v) for k, v in out.items()} == {"a": 4, "b": 3}


@row("... explained by `AttentionExplainer`")
def hetero_explainer(make):
    data = hetero_graph()
    model = to_hetero(TwoLayers(make, in_channels=(-1, -1)), data.metadata())
    model(data.x_dict, data.edge_index_dict)

    class ToA(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x_dict, edge_index_dict):
            return self.model(x_dict, edge_index_dict)["a"]

    explanation = explainer(ToA())(data.x_dict, data.edge_index_dict)
    masks = [store.edge_mask for store in explanation.edge_stores]
    assert sum((mask > 0).sum() for mask in masks) > 0


@row("`HeteroConv`")
def hetero_conv(make):
    data = hetero_graph()
    conv = HeteroConv({edge_type: make((8, 8), 4) for edge_type in data.edge_types})
    out = conv(data.x_dict, data.edge_index_dict)
    sum(o.sum() for o in out.values()).backward()
    assert {k: len(v) for k, v in out.items()} == {"a": 4, "b": 3}


@row("`Sequential` and `BasicGNN`")
def stacks(make):
    model = Sequential("x, index", [(make(8, 8), "x, index -> x"), (make(8, 8), "x, index -> x")])
    assert model(x1(), EDGES).shape == (4, 8)

    class GNN(BasicGNN):
        supports_edge_weight = supports_edge_attr = False

        def init_conv(self, in_channels, out_channels, **kwargs):
            return make(in_channels, out_channels, **kwargs)

    GNN(8, 8, num_layers=3, jk="cat")(x1(), EDGES).sum().backward()


@row("`GPSConv(conv=...)`")
def gps(make):
    conv = GPSConv(8, make(8, 8), heads=2)
    conv(x1(), EDGES).sum().backward()


@row("`trim_to_layer`")
def trimmed(make):
    conv1, conv2 = make(8, 8), make(8, 8)
    # Seed 0; its neighbours 1 and 2; theirs 3. Two hops.
    index = torch.tensor([[1, 2, 3], [0, 0, 1]])
    full = conv2(conv1(x1(), index), index)
    x, edges = x1(), index
    for layer, conv in enumerate((conv1, conv2)):
        x, edges, _ = trim_to_layer(layer, [1, 2, 1], [2, 1], x, edges)
        x = conv(x, edges)
    close(x[:1], full[:1])


@row("`NeighborLoader`: seed outputs equal the full graph's", needs="torch-sparse")
def neighbor_loader(make):
    from torch_geometric.loader import NeighborLoader

    model = TwoLayers(make).eval()
    x = torch.randn(50, 8)
    index = torch.unique(torch.randint(50, (2, 300)), dim=1)
    full = model(x, index)
    loader = NeighborLoader(Data(x=x, edge_index=index), [-1, -1], batch_size=7)
    for batch in loader:
        out = model(batch.x, batch.edge_index)[: batch.batch_size]
        close(out, full[batch.n_id[: batch.batch_size]], atol=1e-5)


@row("`torch.compile(fullgraph=True)`, static and dynamic numbers of nodes")
def compiles(make):
    conv = make(8, 4)
    for dynamic in (False, True):
        torch._dynamo.reset()
        compiled = torch.compile(conv, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        for n in (4, 7):
            x = torch.linspace(-2, 1, 8 * n).cos().view(n, 8).requires_grad_()
            index = torch.stack([torch.arange(2 * n) % n, torch.arange(2 * n) // 2])
            out, expected = compiled(x, index), conv(x, index)
            close(out, expected)
            grads = [torch.autograd.grad(o.square().sum(), x)[0] for o in (out, expected)]
            close(*grads, atol=1e-5)


def dynamic_shapes():
    return ({0: torch.export.Dim("N", min=2)}, {1: torch.export.Dim("E", min=2)})


def other_graph():
    # Duplicate edges and an isolated node.
    index = torch.tensor([[0, 0, 0, 2, 4, 4, 1, 3], [1, 1, 1, 1, 0, 0, 2, 3]])
    return torch.linspace(-1, 2, 48).sin().view(6, 8), index


@row("`torch.export` with dynamic shapes")
def exports(make):
    conv = make(8, 4).eval()
    program = torch.export.export(conv, (x1(), EDGES), dynamic_shapes=dynamic_shapes())
    close(program.module()(*other_graph()), conv(*other_graph()))


@row("ONNX (opset 18): onnxruntime equal to 1e-5, on duplicate edges too")
def onnx(make):
    import onnxruntime

    conv = make(8, 4).eval()
    program = torch.onnx.export(
        conv,
        (x1(), EDGES),
        dynamo=True,
        opset_version=18,
        dynamic_shapes=dynamic_shapes(),
        verbose=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "layer.onnx"))
        program.save(path)
        session = onnxruntime.InferenceSession(path)
    names = [i.name for i in session.get_inputs()]
    inputs = dict(zip(names, (t.numpy() for t in other_graph()), strict=True))
    (out,) = session.run(None, inputs)
    close(torch.from_numpy(out), conv(*other_graph()).detach(), atol=1e-5)


@row("fp16, bf16 and autocast: finite, near fp32, half precision out")
def half(make):
    conv = make(8, 4)
    expected = conv(x1(), EDGES)
    for dtype in (torch.float16, torch.bfloat16):
        other = make(8, 4).to(dtype)
        other.load_state_dict(conv.state_dict())
        out = other(x1().to(dtype), EDGES)
        assert out.dtype == dtype
        close(out.float(), expected, atol=0.05)
        with torch.autocast("cpu", dtype):
            out = conv(x1(), EDGES)
        assert out.dtype == dtype
        close(out.float(), expected, atol=0.05)


@row("`gradcheck` in double: input and every parameter")
def gradients(make):
    conv = make(8, 4).double()
    names = [name for name, _ in conv.named_parameters()]

    def call(x, *values):
        return torch.func.functional_call(conv, dict(zip(names, values, strict=True)), (x, EDGES))

    assert torch.autograd.gradcheck(call, (x1().double().requires_grad_(), *conv.parameters()))


@row("`torch.func.vmap`: features, ensembles, gradients of each sample")
def vmap(make):
    convs = [make(8, 4, heads=2) for _ in range(3)]
    several = torch.stack([x1(), 2 * x1() + 1, x1().flip(0)])
    mapped = torch.func.vmap(lambda x: convs[0](x, EDGES))(several)
    close(mapped, torch.stack([convs[0](x, EDGES) for x in several]))

    def call(parameters, x):
        return torch.func.functional_call(convs[0], parameters, (x, EDGES))

    parameters, _ = torch.func.stack_module_state(convs)
    outs = torch.func.vmap(call, (0, None))(parameters, x1())
    close(outs, torch.stack([conv(x1(), EDGES) for conv in convs]))

    gradient = torch.func.grad(lambda *args: call(*args).square().sum())
    own = dict(convs[0].named_parameters())
    found = torch.func.vmap(gradient, (None, 0))(own, several)
    for n, x in enumerate(several):
        expected = torch.autograd.grad(convs[0](x, EDGES).square().sum(), own.values())
        for name, grad in zip(own, expected, strict=True):
            close(found[name][n], grad, atol=1e-4)


@row("... `jvp`, `jacrev`, `jacfwd`, `hessian`")
def jacobians(make):
    conv = make(8, 4).double()
    x = x1().double()

    def call(x):
        return conv(x, EDGES).square()

    expected = torch.autograd.functional.jacobian(call, x)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        close(transform(call)(x), expected)
    tangent = torch.ones_like(x)
    close(torch.func.jvp(call, (x,), (tangent,))[1], expected.sum((-1, -2)))
    second = torch.autograd.functional.hessian(lambda x: call(x).sum(), x)
    close(torch.func.hessian(lambda x: call(x).sum())(x), second)


@row("`jacobian(vectorize=True)`, `hessian(vectorize=True)`")
def vectorized(make):
    conv = make(8, 4).double()
    x = x1().double()

    def call(x):
        return conv(x, EDGES).square()

    expected = torch.autograd.functional.jacobian(call, x)
    for strategy in ("reverse-mode", "forward-mode"):
        close(
            torch.autograd.functional.jacobian(call, x, vectorize=True, strategy=strategy), expected
        )
    scalar = torch.autograd.functional.hessian
    second = scalar(lambda x: call(x).sum(), x)
    close(scalar(lambda x: call(x).sum(), x, vectorize=True), second)


@row("`torch.jit.trace`, run on another graph")
def traces(make):
    conv = make(8, 4).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # Of checks of shapes.
        traced = torch.jit.trace(conv, (x1(), EDGES))
    close(traced(*other_graph()), conv(*other_graph()))


@row("sparse `x` (COO), forward and backward")
def sparse_features(make):
    conv = make(8, 4)
    x = x1().relu()
    found = []
    for features in (x.to_sparse(), x):
        conv.zero_grad()
        out = conv(features, EDGES)
        out.square().sum().backward()
        found.append([out, *[p.grad for p in conv.parameters() if p.grad is not None]])
    for a, b in zip(*found, strict=True):
        close(a, b, atol=1e-5)


@row("NumPy integers as sizes")
def numpy_sizes(make):
    conv = make(np.int64(8), np.int32(4), heads=np.int64(2))
    assert conv(x1(), EDGES).shape == (4, 8)


# Options that every row is to hold with too, and the rows that speak of something else then.
OPTIONS = {
    "add_self_loops": (
        {"add_self_loops": True},
        {
            "dropout",  # No node is without neighbours.
            "root_weight",
            "weights",  # Those of self-loops are among them.
            "weights_of_a_matrix",
            "weights_of_a_sparse_tensor",
            "hetero",  # PyG refuses self-loops between nodes of two kinds.
            "hetero_explainer",
            "hetero_conv",
        },
    ),
    "root_weight": ({"root_weight": False}, set()),
}


def maker(cls, **options):
    if options:

        def make(*args, **kwargs):
            return cls(*args, **{**options, **kwargs})

    elif cls is AGNNConv:

        def make(in_channels, out_channels, **kwargs):
            if in_channels == -1 or isinstance(in_channels, tuple):
                raise TypeError("AGNNConv has no weights, so no input sizes")
            kwargs.setdefault("add_self_loops", False)
            return AGNNConv(**kwargs)

    else:

        def make(in_channels, out_channels, **kwargs):
            if cls in (GATConv, GATv2Conv, SuperGATConv):
                # Theirs by default; without them all layers see the same edges.
                kwargs.setdefault("add_self_loops", False)
            return cls(in_channels, out_channels, **kwargs)

    return make


LAYERS = [CrossAttnConv, GATConv, GATv2Conv, TransformerConv, SuperGATConv, AGNNConv]


def keeps(cls, name):
    """Whether a layer keeps a row, established by running it."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ROWS[name][1](maker(cls))
        except ImportError:
            raise
        except Exception:
            return False
    return True


def available(name):
    return ROWS[name][2] is None or WITH_TORCH_SPARSE


def table():
    """The lines of the table, for the rows that can be run here."""
    lines = [
        "| row | test | " + " | ".join(cls.__name__ for cls in LAYERS) + " |",
        "|---" * (len(LAYERS) + 2) + "|",
    ]
    for name, (title, _, _) in ROWS.items():
        if available(name):
            cells = " | ".join("yes" if keeps(cls, name) else "no" for cls in LAYERS)
            lines.append(f"| {title} | `{name}` | {cells} |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
