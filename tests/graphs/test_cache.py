import gc
import weakref

import torch
from torch._subclasses import FakeTensorMode

from pyg_avig.graphs.cache import SIZES, cache_by_size


def counted_by(calls):
    @cache_by_size
    def tensor(size):
        calls.append(size)
        return torch.arange(size)

    return tensor


def test_the_last_few_sizes_are_kept_and_no_more():
    calls = []
    tensor = counted_by(calls)
    first = weakref.ref(tensor(0))
    for size in range(SIZES):
        assert tensor(size) is tensor(size)
    assert calls == list(range(SIZES))
    assert first() is tensor(0)
    for size in range(1, 3 * SIZES):
        tensor(size)
    gc.collect()
    assert first() is None
    assert len(calls) == 3 * SIZES


def test_what_is_kept_outlives_the_mode_it_was_made_in():
    tensor = counted_by([])
    with torch.inference_mode():
        assert not tensor(3).is_inference()
    calls = []
    tensor = counted_by(calls)
    with FakeTensorMode():
        assert type(tensor(3)) is not torch.Tensor
    assert type(tensor(3)) is torch.Tensor
    with FakeTensorMode():
        assert type(tensor(3)) is not torch.Tensor
    assert calls == [3, 3, 3]


def test_a_compiled_program_has_symbolic_sizes():
    tensor = counted_by([])
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda x: x + tensor(x.size(0)), fullgraph=True, backend="eager", dynamic=True
    )
    for size in (3, 4, 5):
        assert torch.equal(compiled(torch.zeros(size)), torch.arange(size).float())
