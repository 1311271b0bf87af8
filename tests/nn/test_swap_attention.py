import copy

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import Attention
from torch import nn

from pyg_avig import InputError, freeze_beta
from pyg_avig.nn import CosineAttention, CosineWindowAttention, swap_attention
from pyg_avig.ops import affinity_names


def vit(**args):
    return timm.create_model(
        "vit_tiny_patch16_224",
        img_size=32,
        depth=2,
        embed_dim=24,
        num_heads=3,
        num_classes=5,
        **args,
    )


def swin(**args):
    # Stages of 8 x 8 and 4 x 4 tokens: the first has shifted windows.
    return timm.create_model(
        "swin_tiny_patch4_window7_224",
        img_size=32,
        window_size=4,
        embed_dim=12,
        depths=(2, 2),
        num_heads=(2, 3),
        num_classes=5,
        **args,
    )


MODELS = {"vit": vit, "swin": swin}


def cosine_softmax(layer, x, beta, bias=None):
    """Softmax attention by cosines, written out."""
    batch, number, _ = x.shape
    qkv = layer.qkv(x).view(batch, number, 3, layer.num_heads, -1)
    query, key, value = (qkv[:, :, i].transpose(1, 2) for i in range(3))
    logits = F.cosine_similarity(query.unsqueeze(3), key.unsqueeze(2), dim=-1)
    logits = logits * torch.as_tensor(beta, dtype=x.dtype).view(-1, 1, 1)
    if bias is not None:
        logits = logits + bias
    out = logits.softmax(-1) @ value
    return layer.proj(out.transpose(1, 2).reshape(batch, number, -1))


@pytest.mark.parametrize("affinity", affinity_names())
@pytest.mark.parametrize("name", MODELS)
def test_a_model_keeps_its_parameters_and_learns(name, affinity):
    model = MODELS[name](attn_drop_rate=0.1)
    before = model.state_dict()
    assert swap_attention(model, affinity=affinity, beta=2.0) is model
    after = model.state_dict()
    own = {key for key in after if key.endswith("log_beta")}
    assert after.keys() - own == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert {after[key].numel() for key in own} == {"vit": {3}, "swin": {2, 3}}[name]
    out = model(torch.randn(2, 3, 32, 32))
    assert out.shape == (2, 5)
    assert out.isfinite().all()
    out.square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
    assert not any(isinstance(module, Attention) for module in model.modules())


@pytest.mark.parametrize("name", MODELS)
def test_swapped_weights_load_and_models_are_copied(name):
    model = swap_attention(MODELS[name]()).eval()
    other = swap_attention(MODELS[name]()).eval()
    other.load_state_dict(model.state_dict())
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(other(image), model(image))
    assert torch.equal(copy.deepcopy(model)(image), model(image))
    # A state of the model as it was lacks beta alone.
    missing, unexpected = other.load_state_dict(MODELS[name]().state_dict(), strict=False)
    assert unexpected == []
    assert all(key.endswith("log_beta") for key in missing)


def test_beta_can_be_frozen():
    model = freeze_beta(swap_attention(vit()))
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen == ["blocks.0.attn.log_beta", "blocks.1.attn.log_beta"]


def test_softmax_is_that_of_cosines():
    old = Attention(24, num_heads=3, qkv_bias=True).double().eval()
    new = CosineAttention(old, "softmax", beta=4.0)
    x = torch.randn(2, 7, 24, dtype=torch.double)
    assert torch.allclose(new(x), cosine_softmax(old, x, [4.0] * 3))


def test_the_exponential_lets_tokens_be():
    old = Attention(8, num_heads=1).double().eval()
    new = CosineAttention(old, beta=3.0)
    x = torch.randn(1, 5, 8, dtype=torch.double)
    query, key, value = old.qkv(x)[0].chunk(3, -1)
    similarity = F.cosine_similarity(query.unsqueeze(1), key.unsqueeze(0), dim=-1)
    weight = torch.exp(-3 * (1 - similarity))
    assert torch.allclose(new(x)[0], old.proj(weight @ value))
    mean = CosineAttention(old, beta=3.0, normalize=True)
    assert torch.allclose(mean(x)[0], old.proj(weight @ value / 5))
    # What another token is does not change a weight.
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[:, 4] = False
    assert torch.allclose(new(x, mask)[0], old.proj(weight[:, :4] @ value[:4]))


@pytest.mark.parametrize("affinity", affinity_names())
def test_masks_leave_tokens_out(affinity):
    new = CosineAttention(Attention(24, num_heads=3).double().eval(), affinity)
    x = torch.randn(2, 6, 24, dtype=torch.double, requires_grad=True)
    mask = torch.zeros(6, 6, dtype=torch.bool)
    mask[:, :4] = True
    alone = new(x[:, :4])
    assert torch.allclose(new(x, mask)[:, :4], alone)
    for low in (-100.0, -torch.inf):
        added = torch.zeros(6, 6, dtype=torch.double).masked_fill(~mask, low)
        assert torch.allclose(new(x, added)[:, :4], alone)
    causal = new(x, is_causal=True)
    assert torch.allclose(causal[:, :3], new(x[:, :3], is_causal=True))
    assert torch.allclose(causal[:, :1], new(x[:, :1]))
    # A token that sees none, not even itself, reads nothing, and has a gradient.
    mask[2] = False
    out = new(x, mask)
    assert torch.allclose(out[:, 2], new.proj.bias.expand(2, -1))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert gradient.isfinite().all()


def test_what_a_mask_adds_is_added_to_the_logits():
    old = Attention(24, num_heads=3).double().eval()
    new = CosineAttention(old, "softmax", beta=2.0)
    x = torch.randn(2, 6, 24, dtype=torch.double)
    bias = torch.randn(6, 6, dtype=torch.double)
    assert torch.allclose(new(x, bias), cosine_softmax(old, x, [2.0] * 3, bias))


def test_windows_have_biases_and_regions():
    block = swin().double().eval().layers[0].blocks[1]
    old, mask = block.attn, block.attn_mask
    assert mask.shape == (4, 16, 16)
    assert mask.unique().tolist() == [-100, 0]
    nn.init.normal_(old.relative_position_bias_table)
    new = CosineWindowAttention(old, "softmax", beta=2.0)
    x = torch.randn(8, 16, 12, dtype=torch.double)
    bias = old._get_rel_pos_bias()
    assert torch.allclose(new(x), cosine_softmax(old, x, [2.0] * 2, bias))
    masked = bias + mask.masked_fill(mask < 0, -torch.inf).repeat(2, 1, 1).unsqueeze(1)
    assert torch.allclose(new(x, mask), cosine_softmax(old, x, [2.0] * 2, masked))
    # The exponential has the bias in its exponent.
    query, key, _ = (new.qkv(x).view(8, 16, 3, 2, 6)[:, :, i].transpose(1, 2) for i in range(3))
    similarity = F.cosine_similarity(query.unsqueeze(3), key.unsqueeze(2), dim=-1)
    exponential = CosineWindowAttention(old, beta=2.0)
    weight = exponential._weights(query, key, None, bias)
    assert torch.allclose(weight, torch.exp(-2 * (1 - similarity) + bias))


def test_norms_and_gates_of_the_layer_stay():
    old = Attention(24, 3, qk_norm=True, scale_norm=True, gated=True, norm_layer=nn.LayerNorm)
    new = CosineAttention(old)
    assert old.state_dict().keys() == new.state_dict().keys() - {"log_beta"}
    new(torch.randn(2, 5, 24)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in new.parameters())


def test_weights_are_dropped_in_training():
    layer = CosineAttention(Attention(24, 3, attn_drop=0.5))
    x = torch.randn(1, 5, 24)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_half_precision_under_autocast():
    model = swap_attention(vit()).eval()
    image = torch.randn(2, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(image)
    assert half.isfinite().all()
    assert torch.allclose(half.float(), model(image), atol=0.1, rtol=0.1)


def test_windows_keep_their_size():
    model = swap_attention(swin())
    model.set_input_size(img_size=(64, 64), window_size=4)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)
    with pytest.raises(InputError, match=r"windows of \(4, 4\).*got \(8, 8\)"):
        model.set_input_size(img_size=(64, 64), window_size=8)


@pytest.mark.parametrize("name", MODELS)
def test_programs_take_any_batch(name):
    model = swap_attention(MODELS[name]()).eval()
    batch = {0: torch.export.Dim("batch", min=1)}
    program = torch.export.export(model, (torch.randn(2, 3, 32, 32),), dynamic_shapes=(batch,))
    for number in (1, 3):
        images = torch.randn(number, 3, 32, 32)
        assert torch.allclose(program.module()(images), model(images), atol=1e-5)


@pytest.mark.parametrize(
    ("make", "args", "message"),
    [
        (lambda: nn.Linear(2, 2), {}, "timm.layers.Attention .*got Linear with none"),
        (vit, {"affinity": "linear"}, "affinity must be one of .* .got 'linear'"),
        (vit, {"beta": 0}, r"beta must lie in \(0, 100\] .got 0"),
    ],
)
def test_bad_input(make, args, message):
    with pytest.raises(InputError, match=message):
        swap_attention(make(), **args)
