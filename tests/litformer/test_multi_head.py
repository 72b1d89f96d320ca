"""`MultiHeadAttention` and `KVCache`: torch, a loop over heads, and laws.

The oracles are `nn.MultiheadAttention` with copied weights, and a loop that
computes one head after the other. Sizes are different primes wherever a
divisor allows it, so that a swapped axis cannot pass.
"""

import math

import pytest
import torch
from torch import nn

from helpers import refused, runs_apart
from litformer.attention import (
    MultiHeadAttention,
    attention,
    fused_attention,
)
from litformer.kv_cache import KVCache

B, T, S, H, DH, DC = 2, 5, 7, 3, 11, 13
D = H * DH


def tensor(*shape, seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)


def make_layer(*args, seed=0, **kwargs):
    """Random weights and biases: zero biases would hide mistakes."""
    layer = MultiHeadAttention(*args, **kwargs)
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=make) / p.shape[-1] ** 0.5)
    return layer


def some_mask(*shape, seed=1):
    mask = torch.rand(shape, generator=torch.manual_seed(seed)) < 0.6
    mask[..., 0] = True  # torch's class has no answer for an empty row
    return mask


def theirs(layer):
    """`nn.MultiheadAttention` with the weights of a layer of ours."""
    other = nn.MultiheadAttention(
        layer.d_model,
        layer.n_heads,
        bias=layer.q_proj.bias is not None,
        kdim=layer.d_context,
        vdim=layer.d_context,
        batch_first=True,
    )
    projections = layer.q_proj, layer.k_proj, layer.v_proj
    with torch.no_grad():
        if other.in_proj_weight is None:
            for name, p in zip("qkv", projections, strict=True):
                getattr(other, f"{name}_proj_weight").copy_(p.weight)
        else:
            other.in_proj_weight.copy_(
                torch.cat([p.weight for p in projections])
            )
        if layer.q_proj.bias is not None:
            other.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    other.out_proj.load_state_dict(layer.o_proj.state_dict())
    return other


def weight_grads(layer):
    """Gradients under common names, for a layer of ours or of torch's."""
    if isinstance(layer, MultiHeadAttention):
        found = {n: getattr(layer, f"{n}_proj").weight.grad for n in "qkvo"}
        if layer.q_proj.bias is not None:
            found |= {
                f"{n} bias": getattr(layer, f"{n}_proj").bias.grad
                for n in "qkvo"
            }
        return found
    if layer.in_proj_weight is None:
        found = {n: getattr(layer, f"{n}_proj_weight").grad for n in "qkv"}
    else:
        chunks = layer.in_proj_weight.grad.chunk(3)
        found = dict(zip("qkv", chunks, strict=True))
    found["o"] = layer.out_proj.weight.grad
    if layer.in_proj_bias is not None:
        for name, grad in zip("qkv", layer.in_proj_bias.grad.chunk(3)):  # noqa: B905
            found[f"{name} bias"] = grad
        found["o bias"] = layer.out_proj.bias.grad
    return found


def by_heads(layer, x, context=None, mask=None, causal=False):
    """One head after the other, with plain slices: shares no code with ours."""
    source = x if context is None else context
    d, r = layer.head_dim, layer.n_heads // layer.n_kv_heads
    total = 0 if layer.o_proj.bias is None else layer.o_proj.bias
    for h in range(layer.n_heads):
        g = h // r
        q = layer.q_proj(x)[..., h * d : (h + 1) * d]
        k = layer.k_proj(source)[..., g * d : (g + 1) * d]
        v = layer.v_proj(source)[..., g * d : (g + 1) * d]
        scores = q @ k.mT / math.sqrt(d)
        if mask is not None:
            grid = (
                mask
                if mask.ndim == 2
                else mask.expand(len(x), layer.n_heads, -1, -1)[:, h]
            )
            scores = scores.masked_fill(~grid, -math.inf)
        if causal:
            t, s = scores.shape[-2:]
            future = torch.ones(t, s, dtype=torch.bool).triu(s - t + 1)
            scores = scores.masked_fill(future, -math.inf)
        found = scores.softmax(-1) @ v
        total = total + found @ layer.o_proj.weight[:, h * d : (h + 1) * d].T
    return total


def close(a, b, tol=1e-5):
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


# --- 1. oracle --------------------------------------------------------------


@pytest.mark.parametrize("attend", [attention, fused_attention])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["self", "masked", "causal", "cross", "wide"])
def test_parity_with_torch_forward_and_gradients(attend, bias, kind):
    d_context = DC if kind == "wide" else None
    layer = make_layer(D, H, bias=bias, attend=attend, d_context=d_context)
    other = theirs(layer)
    x, x2 = (tensor(B, T, D).requires_grad_() for _ in range(2))
    options, their_mask, contexts = {}, None, (None, None)
    if kind in ("cross", "wide"):
        contexts = [
            tensor(B, S, layer.d_context, seed=1).requires_grad_()
            for _ in range(2)
        ]
    if kind == "masked":
        options["mask"] = some_mask(T, T)
        their_mask = ~options["mask"]  # True means the opposite there
    if kind == "causal":
        options["causal"] = True
        their_mask = torch.ones(T, T, dtype=torch.bool).triu(1)
    ours = layer(x, contexts[0], **options)
    source = x2 if contexts[1] is None else contexts[1]
    expected, _ = other(x2, source, source, attn_mask=their_mask)
    close(ours, expected)
    up = tensor(B, T, D, seed=2)
    ours.backward(up)
    expected.backward(up)
    close(x.grad, x2.grad)
    if contexts[0] is not None:
        close(contexts[0].grad, contexts[1].grad)
    mine, reference = weight_grads(layer), weight_grads(other)
    assert mine.keys() == reference.keys()
    for name in mine:
        close(mine[name], reference[name])


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3, 6])
@pytest.mark.parametrize("kind", ["self", "causal", "cross", "mask", "mask4"])
def test_grouped_heads_equal_a_loop(n_kv_heads, kind):
    layer = make_layer(17, 6, n_kv_heads=n_kv_heads, head_dim=5).double()
    x = tensor(B, T, 17, dtype=torch.double)
    context = None
    options = {}
    if kind == "cross":
        context = tensor(B, S, 17, seed=1, dtype=torch.double)
    if kind == "causal":
        options["causal"] = True
    if kind == "mask":
        options["mask"] = some_mask(T, T)
    if kind == "mask4":
        options["mask"] = some_mask(B, 6, T, T)
    expected = by_heads(layer, x, context, **options)
    close(layer(x, context, **options), expected, 1e-10)


def test_one_head_is_attention_between_projections():
    layer = make_layer(DH, 1)
    x = tensor(B, T, DH)
    q, k, v = (
        p(x)[:, None] for p in (layer.q_proj, layer.k_proj, layer.v_proj)
    )
    close(layer(x), layer.o_proj(attention(q, k, v)[:, 0]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_runs_in_the_dtype_of_its_weights(dtype):
    layer = make_layer(D, H)
    x = tensor(B, T, D)
    out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    tol = 5e-2 if dtype == torch.bfloat16 else 1e-5
    close(out.float(), make_layer(D, H)(x), tol)


# --- 2. laws ----------------------------------------------------------------


@pytest.mark.parametrize("n_kv_heads", [1, 2, 6])
@pytest.mark.parametrize("pieces", [[1] * 7, [3, 4], [1, 5, 1], [7]])
def test_cached_equals_uncached(n_kv_heads, pieces):
    layer = make_layer(17, 6, n_kv_heads=n_kv_heads, head_dim=5).double()
    x = tensor(B, S, 17, dtype=torch.double)
    cache = KVCache()
    parts = [layer(p, causal=True, cache=cache) for p in x.split(pieces, 1)]
    close(torch.cat(parts, 1), layer(x, causal=True), 1e-10)
    assert len(cache) == S
    assert cache.k.shape == (B, n_kv_heads, S, 5)  # what grouping saves


def test_cached_equals_uncached_with_a_mask():
    """The mask of the new queries is the last rows of the whole."""
    layer = make_layer(D, H).double()
    x = tensor(B, S, D, dtype=torch.double)
    mask = some_mask(S, S)
    whole = layer(x, mask=mask, causal=True)
    cache = KVCache()
    first = layer(x[:, :4], mask=mask[:4, :4], causal=True, cache=cache)
    rest = layer(x[:, 4:], mask=mask[4:], causal=True, cache=cache)
    close(torch.cat([first, rest], 1), whole, 1e-10)


def test_future_tokens_cannot_change_the_past():
    layer = make_layer(D, H)
    x = tensor(B, T, D).requires_grad_()
    for t in range(T):
        out = layer(x, causal=True)[:, t].square().sum()
        (grad,) = torch.autograd.grad(out, x)
        assert (grad[:, t + 1 :] == 0).all()
        assert (grad[:, : t + 1].abs().amax(-1) > 0).all()


def test_self_attention_is_cross_attention_with_oneself():
    layer = make_layer(D, H)
    x = tensor(B, T, D)
    assert torch.equal(layer(x), layer(x, x))


def test_equivariant_in_the_tokens_and_invariant_in_the_context():
    layer = make_layer(D, H).double()
    x, context = (tensor(B, n, D, seed=n, dtype=torch.double) for n in (T, S))
    order = torch.randperm(T, generator=torch.manual_seed(5))
    close(layer(x[:, order]), layer(x)[:, order], 1e-10)
    order = torch.randperm(S, generator=torch.manual_seed(5))
    close(layer(x, context[:, order]), layer(x, context), 1e-10)


def test_exchanging_heads_with_their_output_rows_changes_nothing():
    layer, other = make_layer(D, H), make_layer(D, H)
    order = torch.tensor([2, 0, 1])
    rows = (order[:, None] * DH + torch.arange(DH)).flatten()
    with torch.no_grad():
        for p in (other.q_proj, other.k_proj, other.v_proj):
            p.weight.copy_(p.weight[rows])
            p.bias.copy_(p.bias[rows])
        other.o_proj.weight.copy_(other.o_proj.weight[:, rows])
    x = tensor(B, T, D)
    close(other(x), layer(x))


def test_a_fully_masked_row_says_the_bias_with_finite_gradients():
    layer = make_layer(D, H)
    mask = torch.ones(T, T, dtype=torch.bool)
    mask[2] = False
    x = tensor(B, T, D).requires_grad_()
    out = layer(x, mask=mask)
    close(out[:, 2], layer.o_proj.bias.expand(B, D))
    out.square().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())


def test_nothing_is_left_behind_on_the_layer():
    layer = make_layer(D, H)
    before = set(vars(layer))
    layer(tensor(B, T, D))
    assert set(vars(layer)) == before


def test_no_queries_give_no_output():
    layer = make_layer(D, H)
    assert layer(tensor(B, 0, D), tensor(B, S, D)).shape == (B, 0, D)


# --- 3. seams ---------------------------------------------------------------


class Turn(nn.Module):
    """A stand-in for rotary positions that records what it was given."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, x, positions=None):
        self.given.append(None if positions is None else positions.tolist())
        at = torch.arange(x.shape[2]) if positions is None else positions
        angle = 0.1 * at[:, None].to(x.dtype)
        a, b = x.chunk(2, -1)
        cos, sin = angle.cos(), angle.sin()
        return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def test_rotary_turns_queries_and_keys_and_counts_on_with_a_cache():
    layer = make_layer(20, 2, rotary=Turn()).double()
    plain = make_layer(20, 2).double()
    x = tensor(B, T, 20, dtype=torch.double)
    whole = layer(x, causal=True)
    assert layer.rotary.given == [None, None]  # queries, keys; never values
    assert not torch.allclose(whole, plain(x, causal=True))
    layer.rotary.given.clear()
    cache = KVCache()
    parts = [layer(p, causal=True, cache=cache) for p in x.split([2, 3], 1)]
    assert layer.rotary.given == [[0, 1]] * 2 + [[2, 3, 4]] * 2
    close(torch.cat(parts, 1), whole, 1e-10)
    layer.rotary.given.clear()
    layer(x, positions=torch.arange(3, 3 + T))
    assert layer.rotary.given == [[3, 4, 5, 6, 7]] * 2


def test_attend_is_given_the_contract():
    seen = {}

    def attend(q, k, v, mask=None, *, causal=False, dropout_p=0.0):
        seen.update(
            shapes=[tuple(y.shape) for y in (q, k, v)],
            mask=mask,
            causal=causal,
            dropout_p=dropout_p,
        )
        return q

    layer = make_layer(
        17, 6, n_kv_heads=2, head_dim=5, attend=attend, dropout=0.25
    )
    x, mask = tensor(B, T, 17), some_mask(T, S)
    out = layer(x, tensor(B, S, 17), mask=mask)
    assert seen["shapes"] == [(B, 6, T, 5), (B, 6, S, 5), (B, 6, S, 5)]
    assert seen["mask"] is mask
    assert (seen["causal"], seen["dropout_p"]) == (False, 0.25)
    close(out, layer.o_proj(layer.q_proj(x)))
    layer.eval()(x, causal=True)
    assert (seen["causal"], seen["dropout_p"]) == (True, 0.0)


def test_dropout_in_training_only():
    layer = make_layer(D, H, dropout=0.5)
    x = tensor(B, T, D)
    torch.manual_seed(0)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))
    close(layer(x), make_layer(D, H)(x))


# --- 4. initialisation and state --------------------------------------------


def test_initialisation():
    torch.manual_seed(0)
    layer = MultiHeadAttention(240, 6, n_kv_heads=2, d_context=120)
    for p in (layer.q_proj, layer.k_proj, layer.v_proj, layer.o_proj):
        expected = math.sqrt(2 / sum(p.weight.shape))  # Xavier
        assert abs(p.weight.std().item() / expected - 1) < 0.02
        assert p.weight.abs().max() <= math.sqrt(3) * expected + 1e-6
        assert (p.bias == 0).all()
    before = layer.q_proj.weight.clone()
    layer.reset_parameters()
    assert not torch.equal(before, layer.q_proj.weight)


def test_state_dict_round_trip_and_names():
    layer, other = make_layer(D, H), make_layer(D, H, seed=1)
    names = {f"{n}_proj.{p}" for n in "qkvo" for p in ("weight", "bias")}
    assert set(layer.state_dict()) == names
    other.load_state_dict(layer.state_dict())
    x = tensor(B, T, D)
    assert torch.equal(layer(x), other(x))
    bare = MultiHeadAttention(D, H, bias=False)
    assert set(bare.state_dict()) == {n for n in names if "weight" in n}


# --- 5. the cache -----------------------------------------------------------


def test_cache_appends_in_order_and_reorders_rows():
    cache = KVCache()
    assert len(cache) == 0
    cache.reorder(torch.tensor([1, 0]))  # nothing is kept yet: nothing to do
    k, v = tensor(B, H, S, DH), tensor(B, H, S, DC, seed=1)
    for a, b in ((0, 3), (3, 4), (4, S)):
        got = cache.update(k[:, :, a:b], v[:, :, a:b])
        assert len(cache) == b
        assert torch.equal(got[0], k[:, :, :b])
        assert torch.equal(got[1], v[:, :, :b])
    cache.reorder(torch.tensor([1, 1, 0]))
    assert torch.equal(cache.k, k[[1, 1, 0]])
    assert torch.equal(cache.v, v[[1, 1, 0]])


# --- 6. error messages ------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_width_not_divisible(self):
        refused(
            ValueError,
            "MultiHeadAttention: d_model=64 is not divisible by n_heads=5. "
            "Pass head_dim= to choose the width of a head.",
            *(MultiHeadAttention, 64, 5),
        )
        assert (
            MultiHeadAttention(64, 5, head_dim=7).q_proj.weight.shape[0] == 35
        )

    def test_groups_that_do_not_divide(self):
        refused(
            ValueError,
            "MultiHeadAttention: n_heads=8 is not a multiple of n_kv_heads=3: "
            "each key head must serve the same number of query heads.",
            *(MultiHeadAttention, 64, 8),
            n_kv_heads=3,
        )

    @pytest.mark.parametrize(
        ("sizes", "text"),
        [
            ((0, 1, None), "d_model=0, n_heads=1, n_kv_heads=1"),
            ((64, 0, None), "d_model=64, n_heads=0, n_kv_heads=0"),
            ((64, 8, 0), "d_model=64, n_heads=8, n_kv_heads=0"),
        ],
    )
    def test_sizes_below_one(self, sizes, text):
        d_model, n_heads, n_kv_heads = sizes
        refused(
            ValueError,
            f"MultiHeadAttention: sizes must be at least 1, got {text}, "
            "head_dim=None.",
            *(MultiHeadAttention, d_model, n_heads),
            n_kv_heads=n_kv_heads,
        )

    def test_no_width_of_a_head(self):
        with pytest.raises(ValueError, match="at least 1, .* head_dim=0"):
            MultiHeadAttention(64, 8, head_dim=0)

    @pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
    def test_dropout_that_is_no_probability(self, p):
        refused(
            ValueError,
            f"MultiHeadAttention: dropout must lie in [0, 1), got {p}.",
            *(MultiHeadAttention, 64, 8),
            dropout=p,
        )

    def test_wrong_width(self):
        refused(
            ValueError,
            "MultiHeadAttention: x must have shape (B, T, D=33), got "
            "(2, 5, 32). This layer was built with d_model=33.",
            *(make_layer(D, H), tensor(B, T, D - 1)),
        )

    def test_wrong_rank(self):
        refused(
            ValueError,
            "MultiHeadAttention: x must have shape (B, T, D=33), got (5, 33). "
            "This layer was built with d_model=33.",
            *(make_layer(D, H), tensor(T, D)),
        )

    def test_context_of_another_batch_or_width(self):
        layer = make_layer(D, H, d_context=DC)
        for shape in ((3, S, DC), (B, S, D)):
            refused(
                ValueError,
                "MultiHeadAttention: context must have shape (B=2, S, Dc=13), "
                f"got {shape}. This layer was built with d_context=13.",
                *(layer, tensor(B, T, D), tensor(*shape)),
            )

    def test_missing_context(self):
        refused(
            ValueError,
            "MultiHeadAttention: this layer reads a context of width "
            "d_context=13, while x has 33. Pass context=.",
            *(make_layer(D, H, d_context=DC), tensor(B, T, D)),
        )

    @pytest.mark.parametrize("seam", ["rotary", "cache"])
    def test_self_attention_seams_with_a_context(self, seam):
        layer = make_layer(D, H, rotary=Turn() if seam == "rotary" else None)
        refused(
            ValueError,
            "MultiHeadAttention: rotary= and cache= are for self-attention, "
            "got a context: it has positions of its own, and its keys do not "
            "grow.",
            *(layer, tensor(B, T, D), tensor(B, S, D)),
            cache=KVCache() if seam == "cache" else None,
        )

    def test_empty_context(self):
        with pytest.raises(ValueError, match="nothing to attend to: S=0"):
            make_layer(D, H)(tensor(B, T, D), tensor(B, 0, D))

    @pytest.mark.parametrize(
        ("error", "mask", "message"),
        [
            (
                ValueError,
                torch.ones(1, S, dtype=torch.bool),
                f"MultiHeadAttention: mask must broadcast to (B={B}, H={H}, "
                f"T=1, S={S + 1}), got (1, {S}). One row a sequence, (B, S), "
                "becomes mask[:, None, None, :].",
            ),
            (
                TypeError,
                torch.ones(1, S + 1),
                "MultiHeadAttention: mask must be bool with True = may "
                "attend, got torch.float32. For additive terms use bias=.",
            ),
        ],
    )
    def test_a_refused_mask_leaves_the_cache_alone(self, error, mask, message):
        layer, cache = make_layer(D, H), KVCache()
        layer(tensor(B, S, D), causal=True, cache=cache)
        k, v = cache.k, cache.v
        x = tensor(B, 1, D)
        refused(error, message, layer, x, mask=mask, cache=cache)
        assert len(cache) == S
        assert cache.k is k
        assert cache.v is v
        layer(x, mask=torch.ones(1, S + 1) > 0, cache=cache)
        assert len(cache) == S + 1

    def test_keys_of_another_batch_in_the_cache(self):
        cache = KVCache()
        cache.update(tensor(2, H, S, DH), tensor(2, H, S, DH))
        refused(
            ValueError,
            "KVCache: k must have shape (B=2, G=3, T, Dh=11), got "
            "(1, 3, 1, 11). 7 tokens are kept. A new text, a new cache.",
            *(cache.update, tensor(1, H, 1, DH), tensor(1, H, 1, DH)),
        )
        assert len(cache) == S  # as it was

    def test_values_that_do_not_belong_to_the_keys(self):
        refused(
            ValueError,
            "KVCache: v must have shape (B=2, G=3, T=5, Dv), got "
            "(2, 3, 4, 11).",
            *(KVCache().update, tensor(B, H, 5, DH), tensor(B, H, 4, DH)),
        )

    def test_values_of_another_width_than_those_kept(self):
        cache = KVCache()
        cache.update(tensor(B, H, S, DH), tensor(B, H, S, DC))
        refused(
            ValueError,
            "KVCache: v must have shape (B=2, G=3, T, Dv=13), got "
            "(2, 3, 1, 11). 7 tokens are kept. A new text, a new cache.",
            *(cache.update, tensor(B, H, 1, DH), tensor(B, H, 1, DH)),
        )
        assert len(cache) == S


# --- 7. compile -------------------------------------------------------------


def test_compiles_without_a_graph_break():
    """In a fresh interpreter: the import hook would break the graph."""
    runs_apart("""
        import torch
        from litformer.attention import MultiHeadAttention
        torch.manual_seed(0)
        layer = MultiHeadAttention(12, 4, n_kv_heads=2)
        x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        for args, options in (((x,), {}), ((x,), {"causal": True}),
                              ((x, context), {})):
            torch.testing.assert_close(compiled(*args, **options),
                                       layer(*args, **options))
    """)
