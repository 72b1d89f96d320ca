"""Positions against the papers' formulas, the laws they obey, and refusals.

The oracles are loops over the formulas, complex numbers, and the edges of
T5's buckets in exact arithmetic; none of them shares code with the package.
"""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from litformer.attention import MultiHeadAttention, attention, fused_attention
from litformer.kv_cache import KVCache
from litformer.positions import (
    ALiBi,
    LearnedPositions,
    RotaryEmbedding,
    SinusoidalPositions,
    T5Bias,
    Turns,
    WithBias,
    alibi_slopes,
    half_to_interleaved,
    interleaved_to_half,
    relative_bucket,
    sinusoidal_table,
)

B, H, T, S, DH, D = 2, 3, 5, 7, 22, 26
LAYOUTS = pytest.mark.parametrize("interleaved", [False, True])


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


# ---------------------------------------------------- against the formulas


@pytest.mark.parametrize("base", [10_000.0, 37.0])
def test_sinusoidal_table_is_the_papers_formula(base):
    table = sinusoidal_table(4099, D, base=base)
    assert table.dtype == torch.float32
    for p in (0, 1, 2, 31, 1009, 4098):
        for i in range(D // 2):
            angle = p / base ** (2 * i / D)
            assert table[p, 2 * i].item() == pytest.approx(
                math.sin(angle), abs=1e-6
            )
            assert table[p, 2 * i + 1].item() == pytest.approx(
                math.cos(angle), abs=1e-6
            )


def turned_by_complex_numbers(x, positions, base, interleaved):
    """RoPE as the paper derives it: each pair times exp(i p theta)."""
    width = x.shape[-1]
    out = x.double().clone()
    for i in range(width // 2):
        a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + width // 2)
        angle = positions.double() * base ** (-2 * i / width)
        unit = torch.polar(torch.ones_like(angle), angle)
        if unit.ndim == 2:
            unit = unit[:, None]
        z = torch.complex(x[..., a].double(), x[..., b].double()) * unit
        out[..., a], out[..., b] = z.real, z.imag
    return out


@LAYOUTS
@pytest.mark.parametrize("base", [10_000.0, 53.0])
def test_rotary_is_a_product_of_complex_numbers(interleaved, base):
    x = torch.randn(B, H, T, DH)
    rotary = RotaryEmbedding(DH, base=base, interleaved=interleaved)
    for positions in (
        torch.arange(T),
        torch.tensor([3, 0, 61, 7, 11]),
        torch.tensor([[3, 0, 61, 7, 11], [1, 1, 2, 3, 5]]),
        torch.tensor([[0.5, 1.5, 2.0, 3.25, 4.0]]),
    ):
        want = turned_by_complex_numbers(x, positions, base, interleaved)
        got = rotary(x, positions)
        assert got.dtype == torch.float32
        torch.testing.assert_close(got.double(), want, atol=2e-5, rtol=1e-5)
    assert torch.equal(rotary(x), rotary(x, torch.arange(T)))


@LAYOUTS
def test_rotary_gradient(interleaved):
    rotary = RotaryEmbedding(6, interleaved=interleaved)
    x = torch.randn(1, 2, 3, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(rotary, x)


def test_rotary_half_layout_is_llamas():
    """x cos + rotate_half(x) sin with doubled tables, as in Llama."""
    x = torch.randn(B, H, T, DH)
    speeds = 1.0 / 10_000.0 ** (torch.arange(0, DH, 2).float() / DH)
    table = torch.arange(T)[:, None] * speeds
    cos, sin = (f(table).repeat(1, 2) for f in (torch.cos, torch.sin))
    rotated = torch.cat([-x[..., DH // 2 :], x[..., : DH // 2]], -1)
    want = x * cos + rotated * sin
    torch.testing.assert_close(RotaryEmbedding(DH)(x), want)


def test_alibi_slopes_of_the_paper():
    eighths = [2.0**-i for i in range(1, 9)]
    assert alibi_slopes(8).tolist() == eighths
    got = alibi_slopes(16)
    want = torch.tensor([2 ** (-i / 2) for i in range(1, 17)])
    torch.testing.assert_close(got, want, atol=0, rtol=1e-6)
    assert alibi_slopes(1).tolist() == [2.0**-8]


@settings(deadline=None)
@given(st.integers(1, 70))
def test_alibi_slopes_between_powers_of_two(n):
    """The authors' recursive rule, written as they describe it."""
    below = 1
    while below * 2 <= n:
        below *= 2
    want = [2 ** (-8 * i / below) for i in range(1, below + 1)]
    extra = [2 ** (-8 * i / (2 * below)) for i in range(1, 2 * below + 1, 2)]
    want += extra[: n - below]
    assert alibi_slopes(n).tolist() == pytest.approx(want, rel=1e-6)
    assert len(set(alibi_slopes(n).tolist())) == n


def bucket_by_powers(away, side, most):
    """The bucket by exact comparison of integer powers: no logarithm.

    Bucket exact + j begins at exact * (most / exact) ** (j / steps).
    """
    exact = side // 2
    if away < exact:
        return away
    steps = side - exact
    j = 0
    while j + 1 < steps and Fraction(away, exact) ** steps >= Fraction(
        most, exact
    ) ** (j + 1):
        j += 1
    return exact + j


# Where an edge is a whole number, fp32 may round it to either side; T5's
# weights were trained with the rounding, which these lists pin down.
@pytest.mark.parametrize(
    ("n_buckets", "most", "edges"),
    [(32, 128, {16, 32, 64}), (64, 128, {32, 64}), (16, 20, set())],
)
def test_buckets_are_powers_but_for_rounded_edges(n_buckets, most, edges):
    for bidirectional in (True, False):
        side = n_buckets // 2 if bidirectional else n_buckets
        away = torch.arange(3 * most)
        got = relative_bucket(
            -away,
            n_buckets=n_buckets,
            max_distance=most,
            bidirectional=bidirectional,
        ).tolist()
        want = [bucket_by_powers(a, side, most) for a in away.tolist()]
        off = {a for a in away.tolist() if got[a] != want[a]}
        assert off <= edges
        assert all(want[a] - got[a] == 1 for a in off)
        to_the_right = relative_bucket(
            away[1:],
            n_buckets=n_buckets,
            max_distance=most,
            bidirectional=bidirectional,
        ).tolist()
        if bidirectional:
            assert to_the_right == [b + side for b in got[1:]]
        else:
            assert set(to_the_right) == {0}


def test_buckets_of_t5():
    """The defaults at every first distance of a bucket, seen in T5's code."""
    away = torch.arange(200)
    bucket = relative_bucket(-away)
    firsts = [int((bucket == b).nonzero()[0]) for b in range(16)]
    assert firsts == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]


@pytest.mark.parametrize("bidirectional", [False, True])
def test_t5_bias_looks_up_one_number_a_head(bidirectional):
    bias = T5Bias(H, n_buckets=8, max_distance=11, bidirectional=bidirectional)
    torch.nn.init.normal_(bias.table.weight)
    got = bias(T, S)
    assert got.shape == (1, H, T, S)
    for i in range(T):
        for j in range(S):
            bucket = relative_bucket(
                torch.tensor(j - (S - T + i)),
                n_buckets=8,
                max_distance=11,
                bidirectional=bidirectional,
            )
            assert torch.equal(got[0, :, i, j], bias.table.weight[bucket])


def test_alibi_is_minus_slope_times_distance():
    got = ALiBi(H)(T, S)
    assert got.shape == (1, H, T, S)
    for h, slope in enumerate(alibi_slopes(H).tolist()):
        for i in range(T):
            for j in range(S):
                want = -slope * abs(S - T + i - j)
                assert got[0, h, i, j].item() == pytest.approx(want, rel=1e-6)


# ------------------------------------------------------------------- laws


@LAYOUTS
@settings(deadline=None)
@given(start=st.integers(0, 500), seed=st.integers(0, 2**31))
def test_rotary_scores_know_distances_only(interleaved, start, seed):
    make = torch.Generator().manual_seed(seed)
    q, k = torch.randn(2, 1, 2, T, DH, generator=make).unbind()
    rotary = RotaryEmbedding(DH, interleaved=interleaved)
    here, there = torch.arange(T), torch.arange(T) + start
    one = rotary(q, here) @ rotary(k, here).mT
    two = rotary(q, there) @ rotary(k, there).mT
    torch.testing.assert_close(one, two, atol=2e-3, rtol=0)


def test_rotary_keeps_lengths_and_turns_back():
    x = torch.randn(B, H, T, DH)
    rotary = RotaryEmbedding(DH)
    y = rotary(x)
    torch.testing.assert_close(y.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(rotary(y, -torch.arange(T)), x)
    assert (y[:, :, 1:] - x[:, :, 1:]).abs().max() > 0.1


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9))
def test_biases_know_distances_only(t, cached, more):
    """The last rows of the whole: what a cache needs."""
    s = t + cached
    t5 = T5Bias(H, n_buckets=8, max_distance=13)
    torch.nn.init.normal_(t5.table.weight)
    for bias in (ALiBi(H), t5):
        whole = bias(s + more, s + more)
        assert torch.equal(bias(t, s), whole[..., s - t : s, :s])
        later = whole[..., more + s - t :, more:]
        assert torch.equal(bias(t, s), later)


def test_sinusoidal_product_knows_the_distance_only():
    table = sinusoidal_table(211, D).double()
    gram = table @ table.T
    for k in (1, 17, 100):
        diagonal = gram.diagonal(k)
        want = sum(math.cos(k * 10_000 ** (-2 * i / D)) for i in range(D // 2))
        assert diagonal.min().item() == pytest.approx(want, abs=1e-5)
        assert diagonal.max().item() == pytest.approx(want, abs=1e-5)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_layouts_are_permutations_and_inverse(heads, pairs, seed):
    make = torch.Generator().manual_seed(seed)
    rows = heads * 2 * pairs
    weight = torch.randn(rows, 3, generator=make)
    half = interleaved_to_half(weight, heads)
    assert torch.equal(half_to_interleaved(half, heads), weight)
    for h in range(heads):
        for f in range(pairs):
            for two in range(2):
                row = h * 2 * pairs
                assert torch.equal(
                    half[row + two * pairs + f], weight[row + 2 * f + two]
                )
    bias = weight[:, 0]
    assert torch.equal(interleaved_to_half(bias, heads), half[:, 0])


def test_reordered_rows_give_the_same_layer():
    make = dict(n_kv_heads=1, head_dim=10)
    one = MultiHeadAttention(
        D, H, rotary=RotaryEmbedding(10, interleaved=True), **make
    )
    two = MultiHeadAttention(D, H, rotary=RotaryEmbedding(10), **make)
    state = one.state_dict()
    for name, heads in (("q_proj", H), ("k_proj", 1)):
        for part in ("weight", "bias"):
            key = f"{name}.{part}"
            state[key] = interleaved_to_half(state[key], heads)
    x = torch.randn(B, T, D)
    two.load_state_dict(state)
    torch.testing.assert_close(one(x), two(x), atol=1e-5, rtol=1e-5)
    two.load_state_dict(one.state_dict())
    assert (one(x) - two(x)).abs().max() > 1e-3


def layers():
    t5 = T5Bias(H, n_buckets=8, max_distance=11, bidirectional=False)
    torch.nn.init.normal_(t5.table.weight)
    return {
        "rotary": dict(rotary=RotaryEmbedding(DH)),
        "interleaved": dict(rotary=RotaryEmbedding(DH, interleaved=True)),
        "alibi": dict(attend=WithBias(ALiBi(H))),
        "t5": dict(attend=WithBias(t5)),
        "t5 by hand": dict(attend=WithBias(t5, attention)),
    }


@pytest.mark.parametrize("kind", list(layers()))
def test_cached_is_uncached_and_shift_changes_nothing(kind):
    layer = MultiHeadAttention(D, H, head_dim=DH, **layers()[kind]).eval()
    x = torch.randn(B, T, D)
    whole = layer(x, causal=True)
    cache = KVCache()
    parts = [
        layer(part, causal=True, cache=cache) for part in x.split((2, 1, 2), 1)
    ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    hidden = 30
    n = hidden + T
    mask = (torch.arange(n) >= hidden).expand(n, n)
    longer = torch.cat([torch.randn(B, hidden, D), x], 1)
    later = layer(longer, mask=mask, causal=True)[:, hidden:]
    torch.testing.assert_close(later, whole, atol=1e-4, rtol=1e-4)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert (layer(x[:, order]) - layer(x)[:, order]).abs().max() > 1e-3


def test_only_alibi_is_blind_to_a_mirror():
    x = torch.randn(B, T, D)
    t5 = T5Bias(H)
    torch.nn.init.normal_(t5.table.weight)
    for options, blind in (
        (dict(attend=WithBias(ALiBi(H))), True),
        (dict(attend=WithBias(t5)), False),
        (dict(rotary=RotaryEmbedding(DH)), False),
    ):
        layer = MultiHeadAttention(D, H, head_dim=DH, **options)
        gap = (layer(x.flip(1)).flip(1) - layer(x)).abs().max()
        assert (gap < 1e-5) == blind


def test_one_bias_can_serve_all_layers():
    shared = T5Bias(H)
    attend = WithBias(shared)
    stack = torch.nn.Sequential(
        *(MultiHeadAttention(D, H, head_dim=DH, attend=attend) for _ in "ab")
    )
    assert sum(p is shared.table.weight for p in stack.parameters()) == 1
    stack(torch.randn(B, T, D)).sum().backward()
    assert shared.table.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("attend", [attention, fused_attention])
def test_with_bias_adds_both_biases(attend):
    q, k, v = (torch.randn(B, H, n, DH) for n in (T, S, S))
    extra = torch.randn(T, S)
    mask = torch.rand(T, S) < 0.7
    own = ALiBi(H)
    wrapped = WithBias(own, attend)
    got = wrapped(q, k, v, mask, causal=True, bias=extra)
    want = attention(q, k, v, mask, causal=True, bias=own(T, S) + extra)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        wrapped(q, k, v), attention(q, k, v, bias=own(T, S)),
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    dropped = wrapped(q, k, v, dropout_p=0.9)
    assert (dropped - wrapped(q, k, v)).abs().max() > 0.1


# ------------------------------------------------------- tables and modules


@pytest.mark.parametrize("kind", [SinusoidalPositions, LearnedPositions])
def test_rows_are_added_at_their_places(kind):
    if kind is SinusoidalPositions:
        add = SinusoidalPositions(D, max_len=13)
        table = sinusoidal_table(13, D)
    else:
        add = LearnedPositions(13, D)
        table = add.table.weight.detach()
    x = torch.randn(B, T, D)
    torch.testing.assert_close(add(x), x + table[:T])
    one = torch.tensor([12, 0, 3, 3, 1])
    torch.testing.assert_close(add(x, one), x + table[one])
    each = torch.stack([one, one.flip(0)])
    torch.testing.assert_close(add(x, each), x + table[each])
    assert add(torch.randn(B, 13, D)).shape == (B, 13, D)
    assert add(x.bfloat16()).dtype == torch.bfloat16
    assert add(x[:, :0]).shape == (B, 0, D)


def test_initialisation():
    weight = LearnedPositions(997, 101).table.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().abs() < 1e-3
    assert (T5Bias(H).table.weight == 0).all()
    assert not T5Bias(H)(T, S).any()


def test_what_is_saved():
    assert not SinusoidalPositions(D).state_dict()
    assert not RotaryEmbedding(DH).state_dict()
    assert not ALiBi(H).state_dict()
    assert list(LearnedPositions(7, D).state_dict()) == ["table.weight"]
    bias = T5Bias(H)
    torch.nn.init.normal_(bias.table.weight)
    other = T5Bias(H)
    other.load_state_dict(bias.state_dict())
    assert torch.equal(other(T, S), bias(T, S))


def test_half_precision_keeps_the_angles():
    """Of a model in bf16 the angles stay those of fp32."""
    x = torch.randn(1, 1, 2, DH).bfloat16()
    far = torch.tensor([1000, 1001])
    rotary = RotaryEmbedding(DH)
    want = turned_by_complex_numbers(x, far, 10_000.0, False)
    got = rotary.bfloat16()(x, far)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.double(), want, atol=2e-2, rtol=1e-2)
    # distances above 256 are not whole numbers in bf16
    penalty = ALiBi(8).bfloat16()(1, 600)
    assert penalty.dtype == torch.float32
    assert penalty[0, 0, 0, 0].item() == -299.5


@LAYOUTS
@pytest.mark.parametrize("shape", [(T,), (1, T), (B, T)])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16]
)
def test_turns_made_once_are_the_turns_of_each_call(interleaved, shape, dtype):
    rotary = RotaryEmbedding(DH, interleaved=interleaved)
    x, places = torch.randn(B, H, T, DH).to(dtype), torch.randint(90, shape)
    turns = rotary.turns(places, dtype=dtype)
    assert isinstance(turns, Turns)
    assert turns.cos.dtype == torch.promote_types(dtype, torch.float32)
    assert torch.equal(rotary(x, turns), rotary(x, places))


@LAYOUTS
def test_a_layer_hands_turns_on(interleaved):
    rotary = RotaryEmbedding(DH, interleaved=interleaved)
    layer = MultiHeadAttention(D, H, head_dim=DH, rotary=rotary).eval()
    x, places = torch.randn(B, T, D), torch.randperm(90)[:T]
    got = layer(x, positions=rotary.turns(places))
    assert torch.equal(got, layer(x, positions=places))
    assert not torch.allclose(got, layer(x))


@LAYOUTS
def test_rotary_compiles(interleaved, unchecked):
    rotary = RotaryEmbedding(DH, interleaved=interleaved)
    x = torch.randn(B, H, T, DH)
    compiled = torch.compile(rotary, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), rotary(x))


# --------------------------------------------------------------- refusals

X = torch.zeros(B, T, D)
HEADS = torch.zeros(B, H, T, DH)
REFUSED = {
    "odd width": (
        lambda: sinusoidal_table(5, 7),
        r"sinusoidal_table: d_model must be even, got 7\. Each speed",
    ),
    "no width": (lambda: sinusoidal_table(5, 0), r"must be even, got 0"),
    "no places": (
        lambda: sinusoidal_table(0, 8),
        r"sinusoidal_table: needs n >= 1 places, got 0",
    ),
    "odd module": (lambda: SinusoidalPositions(7), r"d_model must be even"),
    "too long, sinusoidal": (
        lambda: SinusoidalPositions(D, max_len=4)(X),
        r"SinusoidalPositions: positions 0 to 4 exceed max_len=4, whose rows "
        r"are 0 to 3\. .*max_len=5 or more",
    ),
    "too long, learned": (
        lambda: LearnedPositions(4, D)(X),
        r"LearnedPositions: positions 0 to 4 exceed max_len=4",
    ),
    "a place beyond": (
        lambda: LearnedPositions(9, D)(X, torch.tensor([0, 1, 9, 2, 3])),
        r"LearnedPositions: positions 0 to 9 exceed max_len=9",
    ),
    "a negative place": (
        lambda: LearnedPositions(9, D)(X, torch.arange(T) - 1),
        r"LearnedPositions: positions must be 0 or more, got -1\. For padding",
    ),
    "wrong width": (
        lambda: LearnedPositions(9, 8)(X),
        r"LearnedPositions: x must have shape \(B, T, D=8\), got \(2, 5, 26\)",
    ),
    "wrong width, sinusoidal": (
        lambda: SinusoidalPositions(8)(X),
        r"SinusoidalPositions: x must have shape \(B, T, D=8\)",
    ),
    "places of another length": (
        lambda: SinusoidalPositions(D)(X, torch.arange(4)),
        r"SinusoidalPositions: positions must have shape \(T=5,\) or \(B=2, "
        r"T=5\), got \(4,\)",
    ),
    "places of another batch": (
        lambda: RotaryEmbedding(DH)(HEADS, torch.zeros(3, T)),
        r"RotaryEmbedding: positions must have shape .* got \(3, 5\)",
    ),
    "turns of other places": (
        lambda: RotaryEmbedding(DH)(
            HEADS, RotaryEmbedding(DH).turns(torch.arange(3))
        ),
        rf"RotaryEmbedding: turns must end with \(T=5, Dh={DH}\), got "
        rf"\(3, {DH}\)\. Make them by turns\(\) of a module with this",
    ),
    "turns of another width": (
        lambda: RotaryEmbedding(DH)(
            HEADS, RotaryEmbedding(2).turns(torch.arange(T))
        ),
        r"RotaryEmbedding: turns must end with .* got \(5, 2\)",
    ),
    "odd head": (
        lambda: RotaryEmbedding(7),
        r"RotaryEmbedding: head_dim must be even, got 7\. It turns pairs",
    ),
    "no head": (lambda: RotaryEmbedding(0), r"must be even, got 0"),
    "wrong head": (
        lambda: RotaryEmbedding(8)(HEADS),
        r"RotaryEmbedding: x must have shape \(B, H, T, Dh=8\)",
    ),
    "rows without pairs": (
        lambda: interleaved_to_half(torch.zeros(6, 4), 2),
        r"interleaved_to_half: weight must have n_heads \* head_dim rows .* "
        r"got shape \(6, 4\) for n_heads=2\. A key projection",
    ),
    "rows without pairs, back": (
        lambda: half_to_interleaved(torch.zeros(9, 4), 2),
        r"half_to_interleaved: weight must have",
    ),
    "no heads in weight": (
        lambda: interleaved_to_half(torch.zeros(8, 4), 0),
        r"for n_heads=0",
    ),
    "no slopes": (
        lambda: alibi_slopes(0),
        r"alibi_slopes: needs n_heads >= 1, got 0",
    ),
    "alibi across": (
        lambda: ALiBi(H)(7, 5),
        r"ALiBi: needs 1 <= T <= S, got T=7 queries and S=5 keys\. The "
        r"queries are the last T",
    ),
    "t5 across": (lambda: T5Bias(H)(7, 5), r"T5Bias: needs 1 <= T <= S"),
    "no queries": (lambda: ALiBi(H)(0, 5), r"got T=0 queries"),
    "too few buckets": (
        lambda: relative_bucket(torch.arange(3), n_buckets=2),
        r"relative_bucket: n_buckets=2 leaves 0 exact distances a side; .*"
        r"max_distance=128",
    ),
    "short range": (
        lambda: relative_bucket(torch.arange(3), max_distance=8),
        r"n_buckets=32 leaves 8 exact .* below max_distance=8",
    ),
    "heads of another bias": (
        lambda: WithBias(ALiBi(1))(HEADS, HEADS, HEADS),
        r"WithBias: the bias has 1 heads, q has 3\. Was it built",
    ),
    "bias of rank 3": (
        lambda: WithBias(ALiBi(H))(
            HEADS, HEADS, HEADS, bias=torch.zeros(H, T, T)
        ),
        r"WithBias: bias must have rank 2 .* got shape \(3, 5, 5\)",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_say_what_and_why(name, unchecked):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_rows_are_whole_numbers(dtype, unchecked):
    with pytest.raises(TypeError, match=r"positions must be integers, got"):
        LearnedPositions(9, D)(X, torch.zeros(T, dtype=dtype))
