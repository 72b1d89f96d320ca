"""Feed-forward layers: torch, a plain loop, counts and laws."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import refused
from litformer.feedforward import (
    FeedForward,
    GatedFeedForward,
    gelu,
    swiglu_width,
)

B, T, D, F_ = 2, 5, 11, 23
LAYERS = [FeedForward, GatedFeedForward]


def tensor(*shape, seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)


def close(a, b, tol=1e-5):
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


def count(layer):
    return sum(p.numel() for p in layer.parameters())


# --- 1. oracle --------------------------------------------------------------


def test_gelu_equals_torch_and_its_definition():
    x = torch.linspace(-6, 6, 101, dtype=torch.double).requires_grad_()
    close(gelu(x), F.gelu(x), 1e-12)
    below = torch.distributions.Normal(0.0, 1.0).cdf(x)
    close(gelu(x), x * below, 1e-7)
    (mine,) = torch.autograd.grad(gelu(x).sum(), x)
    (theirs,) = torch.autograd.grad(F.gelu(x).sum(), x)
    close(mine, theirs, 1e-12)


@pytest.mark.parametrize("activation", [F.relu, F.gelu, F.silu, gelu])
def test_plain_equals_torch_forward_and_gradients(activation):
    layer = FeedForward(D, F_, activation=activation)
    with torch.no_grad():
        layer.up_proj.bias.copy_(tensor(F_, seed=1))
        layer.down_proj.bias.copy_(tensor(D, seed=2))
    up, down = nn.Linear(D, F_), nn.Linear(F_, D)
    up.load_state_dict(layer.up_proj.state_dict())
    down.load_state_dict(layer.down_proj.state_dict())
    x = tensor(B, T, D).requires_grad_()
    out, expected = layer(x), down(activation(up(x)))
    close(out, expected)
    rise = tensor(B, T, D, seed=3)
    mine = torch.autograd.grad(out, [x, *layer.parameters()], rise)
    params = [x, *up.parameters(), *down.parameters()]
    for a, b in zip(
        mine, torch.autograd.grad(expected, params, rise), strict=True
    ):
        close(a, b)


@pytest.mark.parametrize(
    ("activation", "by_hand"),
    [
        (F.silu, lambda g: g / (1 + math.exp(-g))),
        (torch.sigmoid, lambda g: 1 / (1 + math.exp(-g))),
        (F.gelu, lambda g: g * 0.5 * (1 + math.erf(g / math.sqrt(2)))),
    ],
)
def test_gated_equals_a_loop(activation, by_hand):
    layer = GatedFeedForward(D, F_, activation=activation).double()
    with torch.no_grad():
        for i, p in enumerate(layer.parameters()):
            p.copy_(tensor(*p.shape, seed=i, dtype=torch.double) / 3)
    x = tensor(D, dtype=torch.double)
    out = layer(x)
    gate, up, down = layer.gate_proj, layer.up_proj, layer.down_proj
    for d in range(D):
        total = down.bias[d].item()
        for f in range(F_):
            g = (gate.weight[f] @ x + gate.bias[f]).item()
            u = (up.weight[f] @ x + up.bias[f]).item()
            total += down.weight[d, f].item() * by_hand(g) * u
        assert out[d].item() == pytest.approx(total, abs=1e-10)


# --- 2. laws ----------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_each_token_computes_by_itself(kind):
    layer = kind(D, F_)
    x = tensor(B, T, D)
    close(layer(x)[1, 3], layer(x[1, 3]))
    close(layer(x).flatten(0, 1), layer(x.flatten(0, 1)))  # (N, D), for experts
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(layer(leaf)[0, 2].sum(), leaf)
    reached = grad.abs().amax(-1) > 0
    assert reached.nonzero().tolist() == [[0, 2]]


def test_without_a_bend_two_layers_are_one():
    layer = FeedForward(D, F_, activation=nn.Identity()).double()
    one = layer.down_proj.weight @ layer.up_proj.weight
    x = tensor(B, T, D, dtype=torch.double)
    close(layer(x), x @ one.T, 1e-10)


@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_in_training_only(kind):
    layer = kind(D, F_, dropout=0.5)
    x = tensor(B, T, D)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    plain = kind(D, F_)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_dropout_keeps_the_mean(kind):
    layer = kind(D, F_, dropout=0.3).double()
    x = tensor(1, D, dtype=torch.double)
    torch.manual_seed(0)
    mean = layer(x.expand(40_000, D)).mean(0)
    close(mean, layer.eval()(x)[0], 2e-2)


# --- 3. sizes ---------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
def test_counts(bias):
    assert count(FeedForward(D, F_, bias=bias)) == 2 * D * F_ + bias * (F_ + D)
    gated = GatedFeedForward(D, F_, bias=bias)
    assert count(gated) == 3 * D * F_ + bias * (2 * F_ + D)


@pytest.mark.parametrize(
    ("options", "width"),
    [
        (dict(d_model=4096, multiple_of=256), 11008),  # Llama 7B
        (dict(d_model=5120, multiple_of=256), 13824),  # Llama 13B
        (dict(d_model=576), 1536),  # SmolLM2-135M
        (dict(d_model=6), 16),
        (dict(d_model=7), 19),
        (dict(d_model=7, multiple_of=8), 24),
        (dict(d_model=9, expansion=2.0), 12),
        (dict(d_model=3, expansion=0.5), 1),
    ],
)
def test_swiglu_width(options, width):
    assert swiglu_width(**options) == width


@pytest.mark.parametrize("d_model", [64, 100, 333, 512])
def test_swiglu_width_makes_equal_layers(d_model):
    plain = count(FeedForward(d_model, 4 * d_model, bias=False))
    gated = count(GatedFeedForward(d_model, swiglu_width(d_model), bias=False))
    assert 0 <= gated - plain < 3 * d_model


@pytest.mark.parametrize("kind", LAYERS)
def test_initialisation(kind):
    torch.manual_seed(0)
    layer = kind(256, 1024)
    for name, p in layer.named_parameters():
        if name.endswith("bias"):
            assert (p == 0).all()
        else:
            expected = math.sqrt(2 / (256 + 1024))
            assert p.std().item() == pytest.approx(expected, rel=0.02)
            assert p.abs().max() <= math.sqrt(3) * expected + 1e-6


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_runs_in_the_dtype_of_its_weights(kind, dtype):
    layer, x = kind(D, F_), tensor(T, D)
    expected = layer(x)
    out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    close(out.float(), expected, 5e-2 if dtype == torch.bfloat16 else 1e-5)


# --- 4. errors --------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("kind", LAYERS)
class TestErrors:
    def test_another_width(self, kind):
        refused(
            ValueError,
            f"{kind.__name__}: x must have shape (..., D=11), got (2, 5, 7). "
            "This layer was built with d_model=11.",
            *(kind(D, F_), tensor(B, T, 7)),
        )

    @pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (5, -3)])
    def test_no_width(self, kind, sizes):
        refused(
            ValueError,
            f"{kind.__name__}: sizes must be at least 1, got d_model="
            f"{sizes[0]}, d_ff={sizes[1]}.",
            *(kind, *sizes),
        )

    @pytest.mark.parametrize("dropout", [-0.1, 1.0, 1.5])
    def test_dropout_outside(self, kind, dropout):
        refused(
            ValueError,
            f"{kind.__name__}: dropout must lie in [0, 1), got {dropout}.",
            *(kind, D, F_),
            dropout=dropout,
        )


@pytest.mark.parametrize(
    "options",
    [dict(d_model=0), dict(d_model=4, multiple_of=0), dict(d_model=-1)],
)
def test_swiglu_width_of_nothing(options):
    given = {"expansion": 4.0, "multiple_of": 1, **options}
    refused(
        ValueError,
        "swiglu_width: needs positive sizes, got d_model="
        f"{given['d_model']}, expansion=4.0, multiple_of="
        f"{given['multiple_of']}.",
        swiglu_width,
        **options,
    )
    with pytest.raises(ValueError, match=r"expansion=0.0"):
        swiglu_width(4, expansion=0.0)
