"""`LayerNorm` and `RMSNorm`: torch's, a plain loop, and laws."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import refused
from litformer.norm import LayerNorm, RMSNorm, layer_norm, rms_norm

B, T, D = 2, 5, 11
NORMS = [LayerNorm, RMSNorm]


def tensor(*shape, seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)


def close(a, b, tol=1e-5):
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


def filled(norm, *, seed=3):
    """A layer with a weight and a bias that are not one and zero."""
    with torch.no_grad():
        for i, p in enumerate(norm.parameters()):
            p.copy_(tensor(*p.shape, seed=seed + i) + 1)
    return norm


# --- 1. oracle --------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 1e-12, 0.1])
def test_layer_norm_equals_torch_forward_and_gradients(bias, eps):
    ours = filled(LayerNorm(D, eps=eps, bias=bias))
    theirs = nn.LayerNorm(D, eps=eps, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    x = 3 * tensor(B, T, D) + 2
    leaves = [x.clone().requires_grad_() for _ in range(3)]
    outs = [
        theirs(leaves[0]),
        ours(leaves[1]),
        layer_norm(leaves[2], ours.weight, ours.bias, eps=eps),
    ]
    up = tensor(B, T, D, seed=1)
    grads = []
    for module, leaf, out in zip(
        (theirs, ours, ours), leaves, outs, strict=True
    ):
        wanted = [leaf, *module.parameters()]
        grads.append(torch.autograd.grad(out, wanted, up))
    for out, found in zip(outs[1:], grads[1:], strict=True):
        close(out, outs[0])
        for mine, expected in zip(found, grads[0], strict=True):
            close(mine, expected)


@pytest.mark.parametrize("eps", [1e-6, 0.1])
def test_rms_norm_equals_torch_forward_and_gradients(eps):
    ours = filled(RMSNorm(D, eps=eps))
    theirs = nn.RMSNorm(D, eps=eps)
    theirs.load_state_dict(ours.state_dict())
    x = 3 * tensor(B, T, D) + 2
    calls = (
        theirs,
        ours,
        lambda y: rms_norm(y, ours.weight, eps=eps),
    )
    up = tensor(B, T, D, seed=1)
    found = []
    for call, weight in zip(
        calls, (theirs.weight, ours.weight, ours.weight), strict=True
    ):
        leaf = x.clone().requires_grad_()
        out = call(leaf)
        found.append([out, *torch.autograd.grad(out, [leaf, weight], up)])
    for mine in found[1:]:
        for a, b in zip(mine, found[0], strict=True):
            close(a, b)


def test_layer_norm_equals_a_loop_over_tokens():
    weight, bias = tensor(D, seed=1), tensor(D, seed=2)
    x = tensor(T, D, dtype=torch.double)
    out = layer_norm(x, weight.double(), bias.double())
    for t in range(T):
        row = x[t].tolist()
        mean = math.fsum(row) / D
        variance = math.fsum((v - mean) ** 2 for v in row) / D
        for d in range(D):
            y = (row[d] - mean) / math.sqrt(variance + 1e-5)
            expected = y * weight[d].item() + bias[d].item()
            assert out[t, d].item() == pytest.approx(expected, abs=1e-10)


def test_rms_norm_equals_a_loop_over_tokens():
    weight = tensor(D, seed=1, dtype=torch.double)
    x = tensor(T, D, dtype=torch.double)
    out = rms_norm(x, weight)
    for t in range(T):
        row = x[t].tolist()
        rms = math.sqrt(math.fsum(v * v for v in row) / D + 1e-6)
        for d in range(D):
            expected = row[d] / rms * weight[d].item()
            assert out[t, d].item() == pytest.approx(expected, abs=1e-10)


# --- 2. laws ----------------------------------------------------------------


@pytest.mark.parametrize("norm", NORMS)
def test_a_token_is_normed_by_its_own_numbers(norm):
    layer = filled(norm(D))
    x = tensor(B, T, D)
    whole = layer(x)
    close(whole[1, 3], layer(x[1, 3]))
    close(whole.flatten(0, 1), layer(x.flatten(0, 1)))


@pytest.mark.parametrize("norm", NORMS)
def test_size_is_forgotten_and_only_layer_norm_forgets_the_mean(norm):
    layer = filled(norm(D, eps=1e-12)).double()
    x = tensor(B, T, D, dtype=torch.double)
    close(layer(7 * x), layer(x), 1e-9)
    assert not torch.allclose(layer(-x), layer(x))
    same = torch.allclose(layer(x + 5), layer(x), atol=1e-9)
    assert same == (norm is LayerNorm)


def test_layer_norm_is_rms_norm_of_the_centred_token():
    ln, rms = LayerNorm(D, bias=False), RMSNorm(D, eps=1e-5)
    x = tensor(B, T, D)
    close(rms(x - x.mean(-1, keepdim=True)), ln(x))


@pytest.mark.parametrize("norm", NORMS)
def test_no_gradient_along_the_token_itself(norm):
    """The size is forgotten, so growing the token changes nothing."""
    layer = filled(norm(D, eps=1e-12)).double()
    x = tensor(T, D, dtype=torch.double).requires_grad_()
    up = tensor(T, D, seed=1, dtype=torch.double)
    (grad,) = torch.autograd.grad(layer(x), x, up)
    assert grad.abs().min() > 1e-6
    close((grad * x).sum(-1), torch.zeros(T, dtype=torch.double), 1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_token_gives_finite_numbers_and_gradients(norm, value):
    layer = norm(D)
    x = torch.full((1, D), value, requires_grad=True)
    out = layer(x)
    out.square().sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    if norm is LayerNorm:
        close(out, torch.zeros(1, D), 1e-3)


@pytest.mark.parametrize("function", [layer_norm, rms_norm])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_in_half_precision_do_not_overflow(function, dtype):
    x = (1000 * tensor(T, D)).to(dtype)  # squares beyond what fp16 holds
    weight = torch.ones(D, dtype=dtype)
    out = function(x, weight)
    assert out.dtype == dtype
    expected = function(x.float(), weight.float())
    close(out.float(), expected, 2e-2)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_runs_in_the_dtype_of_its_weights(norm, dtype):
    x = tensor(T, D)
    out = norm(D).to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    close(out.float(), norm(D)(x), 4e-2 if dtype == torch.bfloat16 else 1e-5)


# --- 3. initialisation, state -----------------------------------------------


def test_parameters_begin_as_one_and_zero():
    norm = LayerNorm(D)
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()
    assert (RMSNorm(D).weight == 1).all()
    filled(norm).reset_parameters()
    assert (norm.weight == 1).all()
    assert (norm.bias == 0).all()


def test_names_of_the_parameters_are_torchs():
    for mine, theirs in (
        (LayerNorm(D), nn.LayerNorm(D)),
        (LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)),
        (RMSNorm(D), nn.RMSNorm(D)),
    ):
        shapes = [
            {n: tuple(p.shape) for n, p in m.state_dict().items()}
            for m in (mine, theirs)
        ]
        assert shapes[0] == shapes[1]


def test_the_formulas_need_no_parameters_of_a_layer():
    x = tensor(T, D)
    ones = torch.ones(D)
    close(layer_norm(x, ones), F.layer_norm(x, (D,)))
    close(rms_norm(x, ones), F.rms_norm(x, (D,), eps=1e-6))


# --- 4. errors --------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize("norm", NORMS)
    def test_another_width(self, norm):
        refused(
            ValueError,
            f"{norm.__name__}: x must have shape (..., D=11), got (2, 5, 7). "
            "This layer was built with d_model=11.",
            *(norm(D), tensor(B, T, 7)),
        )

    @pytest.mark.parametrize("norm", NORMS)
    def test_tokens_that_are_not_embedded(self, norm):
        refused(
            TypeError,
            f"{norm.__name__}: x must be floating point, got torch.int64. "
            "Embed the tokens first.",
            *(norm(D), torch.zeros(B, D, dtype=torch.int64)),
        )

    @pytest.mark.parametrize("norm", NORMS)
    def test_no_width(self, norm):
        refused(
            ValueError,
            f"{norm.__name__}: d_model must be at least 1, got 0.",
            *(norm, 0),
        )

    @pytest.mark.parametrize("norm", NORMS)
    @pytest.mark.parametrize("eps", [0.0, -1e-5, math.nan])
    def test_no_eps(self, norm, eps):
        refused(
            ValueError,
            f"{norm.__name__}: eps must be positive, got {eps}. It keeps a "
            "token whose numbers are all equal from a division by zero.",
            *(norm, D),
            eps=eps,
        )
