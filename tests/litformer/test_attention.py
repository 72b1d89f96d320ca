"""`attention` and `fused_attention`: one contract, checked against torch.

The oracle is `F.scaled_dot_product_attention` with a mask written out in
full; dimensions are different primes, so that a swapped axis cannot pass.
"""

import itertools
import math

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import runs_apart
from litformer.attention import attention, attention_weights, fused_attention

B, H, T, S, DH, DV = 2, 3, 5, 7, 11, 13
BOTH = pytest.mark.parametrize("attend", [attention, fused_attention])
ALL = pytest.mark.parametrize(
    "attend", [attention, fused_attention, attention_weights]
)


def qkv(b=B, h=H, t=T, s=S, dh=DH, dv=DV, dtype=torch.float32, seed=0):
    make = torch.Generator().manual_seed(seed)
    shapes = (b, h, t, dh), (b, h, s, dh), (b, h, s, dv)
    return [
        torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)
        for shape in shapes
    ]


def some_mask(*shape, p=0.6, seed=1):
    make = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=make) < p


def call(attend, q, k, v, *args, **kwargs):
    """Any of the three functions: the weights alone take no values."""
    if attend is attention_weights:
        return attend(q, k, *args, **kwargs)
    return attend(q, k, v, *args, **kwargs)


def with_grads(attend, *tensors, **kwargs):
    """The output, then its gradient by each tensor."""
    leaves = [x.detach().clone().requires_grad_() for x in tensors]
    out = attend(*leaves, **kwargs)
    cotangent = torch.linspace(-1, 1, out.numel(), dtype=out.dtype)
    return [out, *torch.autograd.grad(out, leaves, cotangent.view_as(out))]


def oracle(q, k, v, mask, causal, bias=None):
    """SDPA with one additive grid that says everything."""
    b, h, t, s = *q.shape[:3], k.shape[2]
    allowed = torch.ones(b, h, t, s, dtype=torch.bool)
    if mask is not None:
        allowed = allowed & mask
    if causal:
        i, j = torch.arange(t)[:, None], torch.arange(s)[None, :]
        allowed = allowed & (j <= s - t + i)
    extra = torch.zeros(b, h, t, s, dtype=q.dtype)
    if bias is not None:
        extra = extra + bias
    extra = extra.masked_fill(~allowed, -math.inf)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=extra)


def close(got, expected, tol):
    for x, y in zip(got, expected, strict=True):
        assert x.isfinite().all()
        torch.testing.assert_close(x, y, atol=tol, rtol=tol)


# --- 1. oracle --------------------------------------------------------------

MASKS = {
    "none": None,
    "rank 2": some_mask(T, S),
    "full": some_mask(B, H, T, S),
    "keys of a sequence": some_mask(B, 1, 1, S),
    "a head": some_mask(1, H, T, S),
    "a column": some_mask(1, 1, T, 1),
    "dead rows": some_mask(T, S) & (torch.arange(T) % 2 == 0)[:, None],
    "all dead": torch.zeros(T, S, dtype=torch.bool),
}
BIASES = {
    "none": None,
    "rank 2": (T, S),
    "full": (B, H, T, S),
    "a head": (1, H, T, S),
    "keys": (B, 1, 1, S),
}


def test_the_masks_above_have_dead_and_partial_rows():
    rows = MASKS["dead rows"]
    assert not rows[1].any()
    assert rows[0].any()
    assert not rows[0].all()


@pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)]
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", MASKS)
@BOTH
def test_parity_with_torch(attend, name, causal, dtype, tol):
    mask = MASKS[name]
    for bias_name, shape in BIASES.items():
        bias = None
        if shape is not None:
            bias = torch.randn(shape, generator=torch.manual_seed(3)).to(dtype)
        options = dict(mask=mask, causal=causal, bias=bias)
        got = with_grads(attend, *qkv(dtype=dtype), **options)
        expected = with_grads(oracle, *qkv(dtype=dtype), **options)
        try:
            close(got, expected, tol)
        except AssertionError as error:
            raise AssertionError(f"bias: {bias_name}") from error


@pytest.mark.parametrize("t", [1, 2, S])
@pytest.mark.parametrize("masked", [False, True])
@BOTH
def test_causal_at_every_kind_of_length(attend, t, masked):
    """T = S takes the kernel's own causal path, T = 1 needs no mask."""
    mask = some_mask(t, S) if masked else None
    args = dict(mask=mask, causal=True)
    got = with_grads(attend, *qkv(t=t), **args)
    close(got, with_grads(oracle, *qkv(t=t), **args), 1e-5)


@BOTH
def test_gradcheck(attend):
    q, k, v = (x.requires_grad_() for x in qkv(1, 2, 3, 5, 2, 3, torch.double))
    bias = torch.randn(3, 5, dtype=torch.double, requires_grad=True)
    mask = torch.tensor([[1, 0, 1, 1, 0], [0] * 5, [1, 1, 0, 1, 1]]).bool()

    def f(q, k, v, bias):
        return attend(q, k, v, mask, bias=bias)

    assert torch.autograd.gradcheck(f, (q, k, v, bias))


@pytest.mark.parametrize(
    ("dtype", "tol"), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)]
)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["none", "rank 2", "dead rows"])
@BOTH
def test_half_precision_stays_near_the_exact_answer(
    attend, name, causal, dtype, tol
):
    rounded = qkv(dtype=dtype)
    exact = [x.double() for x in rounded]
    options = dict(mask=MASKS[name], causal=causal)
    got = with_grads(attend, *rounded, **options)
    assert {x.dtype for x in got} == {dtype}
    expected = with_grads(oracle, *exact, **options)
    close([x.double() for x in got], expected, tol)


@ALL
def test_fp16_scores_beyond_65504_do_not_overflow(attend):
    q, k, v = qkv(dtype=torch.float16)
    raw = (500 * q) @ (500 * k).mT
    assert raw.isinf().any()  # the naive way
    out = call(attend, 500 * q, 500 * k, v)
    assert out.isfinite().all()


def test_weights_are_the_softmax_of_scaled_scores():
    q, k, _ = qkv(dtype=torch.float64)
    expected = torch.softmax(q @ k.mT / math.sqrt(DH), dim=-1)
    torch.testing.assert_close(attention_weights(q, k), expected)


def test_weights_in_half_precision_are_cast_once_at_the_end():
    q, k, _ = qkv(dtype=torch.bfloat16)
    exact = torch.softmax(q.float() @ k.float().mT / math.sqrt(DH), dim=-1)
    weights = attention_weights(q, k)
    assert weights.dtype == torch.bfloat16
    torch.testing.assert_close(weights, exact.bfloat16(), atol=0, rtol=8e-3)


# --- 2. laws ----------------------------------------------------------------

size = st.sampled_from([1, 2, 3, 5, 7, 11])


@st.composite
def problems(draw):
    """Shapes, a mask in any allowed shape, a bias, causal or not."""
    b, h, t, s, dh, dv = (draw(size) for _ in range(6))
    causal = draw(st.booleans())
    if causal and t > s:
        t, s = s, t
    seed = draw(st.integers(0, 2**16))

    def grid():
        full = draw(st.sampled_from([(t, s), (b, h, t, s)]))
        return tuple(n if draw(st.booleans()) else 1 for n in full)

    mask = some_mask(*grid(), seed=seed) if draw(st.booleans()) else None
    bias = None
    if draw(st.booleans()):
        bias = torch.randn(
            grid(), generator=torch.manual_seed(seed), dtype=torch.double
        )
    tensors = qkv(b, h, t, s, dh, dv, torch.double, seed)
    return tensors, dict(mask=mask, causal=causal, bias=bias)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(problems())
def test_manual_fused_and_torch_agree_on_any_shape(problem):
    tensors, options = problem
    expected = with_grads(oracle, *tensors, **options)
    close(with_grads(attention, *tensors, **options), expected, 1e-10)
    close(with_grads(fused_attention, *tensors, **options), expected, 1e-10)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems())
def test_every_row_of_weights_sums_to_one_or_to_zero(problem):
    (q, k, _), options = problem
    weights = attention_weights(q, k, **options)
    assert (weights >= 0).all()
    alive = torch.ones(weights.shape, dtype=torch.bool)
    if options["mask"] is not None:
        alive = alive & options["mask"]
    if options["causal"]:
        t, s = weights.shape[-2:]
        alive = alive & torch.ones(t, s, dtype=torch.bool).tril(s - t)
    assert (weights[~alive] == 0).all()
    torch.testing.assert_close(weights.sum(-1), alive.any(-1).double())


@BOTH
def test_equivariant_in_the_queries(attend):
    q, k, v = qkv(dtype=torch.double)
    order = torch.randperm(T, generator=torch.manual_seed(5))
    mask = some_mask(T, S)
    out = attend(q, k, v, mask)
    moved = attend(q[:, :, order], k, v, mask[order])
    torch.testing.assert_close(moved, out[:, :, order])
    assert not torch.allclose(moved, out)  # and not invariant


@BOTH
def test_invariant_in_the_pairs_of_key_and_value(attend):
    q, k, v = qkv(dtype=torch.double)
    order = torch.randperm(S, generator=torch.manual_seed(5))
    mask = some_mask(T, S)
    out = attend(q, k, v, mask)
    pairs = attend(q, k[:, :, order], v[:, :, order], mask[:, order])
    torch.testing.assert_close(pairs, out)
    keys_alone = attend(q, k[:, :, order], v, mask)
    assert not torch.allclose(keys_alone, out)


@BOTH
def test_a_shift_common_to_a_row_of_scores_changes_nothing(attend):
    q, k, v = qkv(dtype=torch.double)
    shift = torch.randn(B, H, T, 1, dtype=torch.double)
    out = attend(q, k, v)
    torch.testing.assert_close(attend(q, k, v, bias=shift), out)
    # adding one vector to every key shifts each row by a constant
    offset = torch.randn(DH, dtype=torch.double)
    torch.testing.assert_close(attend(q, k + offset, v), out)


@BOTH
def test_output_lies_between_the_values(attend):
    q, k, v = qkv()
    out = attend(q, k, v)
    assert (out <= v.amax(2, keepdim=True) + 1e-6).all()
    assert (out >= v.amin(2, keepdim=True) - 1e-6).all()


@BOTH
def test_equal_keys_give_the_plain_mean(attend):
    q, k, v = qkv()
    out = attend(q, k[:, :, :1].expand_as(k), v)
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(out))


@BOTH
def test_fully_masked_rows_are_zero_with_zero_finite_gradients(attend):
    mask = torch.ones(T, S, dtype=torch.bool)
    mask[2] = False
    out, dq, dk, dv = with_grads(attend, *qkv(), mask=mask)
    assert (out[:, :, 2] == 0).all()
    assert (out[:, :, 0] != 0).any()
    assert (dq[:, :, 2] == 0).all()
    for grad in (dq, dk, dv):
        assert grad.isfinite().all()
    # nothing of query 2 reaches the keys and values
    q, k, v = qkv()
    q[:, :, 2] += 100
    _, _, dk_moved, dv_moved = with_grads(attend, q, k, v, mask=mask)
    torch.testing.assert_close(dk_moved, dk)
    torch.testing.assert_close(dv_moved, dv)


def test_no_nan_even_on_the_way():
    """Anomaly mode fails at the first NaN inside a backward pass."""
    mask = torch.zeros(T, S, dtype=torch.bool)
    with pytest.warns(UserWarning, match="Anomaly Detection"):
        context = torch.autograd.detect_anomaly()
    with context:
        with_grads(attention, *qkv(), mask=mask)


@BOTH
def test_a_bias_of_minus_infinity_masks_as_well(attend):
    mask = some_mask(T, S)
    mask[1] = False
    bias = torch.zeros(T, S).masked_fill(~mask, -math.inf)
    by_bias = with_grads(attend, *qkv(), bias=bias)
    close(by_bias, with_grads(attend, *qkv(), mask=mask), 1e-6)


@BOTH
def test_alibi_like_bias_and_the_gradient_through_it(attend):
    """One slope a head, linear in the distance."""
    slopes = torch.tensor([0.5, 0.25, 0.125], dtype=torch.double)
    distance = (torch.arange(S)[None] - torch.arange(T)[:, None]).abs()

    def f(slopes, q, k, v, attend=attend):
        bias = -slopes[None, :, None, None] * distance
        return attend(q, k, v, bias=bias, causal=True)

    def reference(*args):
        return f(*args, attend=lambda q, k, v, bias, causal: oracle(
            q, k, v, None, causal, bias
        ))  # fmt: skip

    args = slopes, *qkv(dtype=torch.double)
    got = with_grads(f, *args)
    assert (got[1].abs() > 1e-6).all()
    close(got, with_grads(reference, *args), 1e-10)


@ALL
def test_inputs_are_left_alone(attend):
    tensors = qkv()
    mask, bias = some_mask(T, S), torch.randn(T, S)
    before = [x.clone() for x in (*tensors, mask, bias)]
    call(attend, *tensors, mask, causal=True, bias=bias)
    for x, y in zip((*tensors, mask, bias), before, strict=True):
        assert torch.equal(x, y)


@BOTH
def test_no_queries_give_no_output(attend):
    q, k, v = qkv(t=0)
    assert attend(q, k, v).shape == (B, H, 0, DV)


@BOTH
def test_dropout_zeroes_a_share_and_keeps_the_mean(attend):
    """With v = identity the output is the dropped weights themselves."""
    n, p = 64, 0.25
    q, k, _ = qkv(1, 8, n, n, 5, 5)
    v = torch.eye(n).expand(1, 8, n, n)
    torch.manual_seed(0)
    dropped = attend(q, k, v, dropout_p=p)
    weights = attention_weights(q, k)
    kept = dropped != 0
    count = kept.numel()
    share = 1 - kept.float().mean()
    assert abs(share - p) < 5 * math.sqrt(p * (1 - p) / count)
    torch.testing.assert_close(dropped[kept], (weights / (1 - p))[kept])
    torch.testing.assert_close(attend(q, k, v), weights)  # off by default


# --- 3. error messages ------------------------------------------------------


def test_the_annotations_are_checked_in_this_session():
    with pytest.raises(jaxtyping.TypeCheckError):
        attention_weights(torch.zeros(2, 3), torch.zeros(2, 3))


def refused(attend, error, message, *args, **kwargs):
    """It raises `error` with `message`, under the caller's name."""
    with pytest.raises(error) as caught:
        call(attend, *args, **kwargs)
    assert str(caught.value) == f"{attend.__name__}: {message}"


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @ALL
    def test_wrong_rank(self, attend):
        q, k, v = qkv()
        refused(
            attend,
            ValueError,
            "q must have shape (B, H, T, Dh), got (3, 5, 11).",
            *(q[0], k, v),
        )

    @ALL
    def test_mismatched_widths(self, attend):
        q, k, v = qkv()
        refused(
            attend,
            ValueError,
            "k must have shape (B=2, H=3, S, Dh=11), got (2, 3, 7, 10).",
            *(q, k[..., :10], v),
        )

    @ALL
    def test_mismatched_heads(self, attend):
        q, k, v = qkv()
        refused(
            attend,
            ValueError,
            "k must have shape (B=2, H=3, S, Dh=11), got (2, 2, 7, 11).",
            *(q, k[:, :2], v),
        )

    @BOTH
    def test_fewer_values_than_keys(self, attend):
        q, k, v = qkv()
        refused(
            attend,
            ValueError,
            "v must have shape (B=2, H=3, S=7, Dv), got (2, 3, 6, 13). "
            "Value i belongs to key i: as many values as keys.",
            *(q, k, v[:, :, :6]),
        )

    @ALL
    def test_mixed_dtypes(self, attend):
        q, k, v = qkv()
        refused(
            attend,
            TypeError,
            "q, k and v must share one floating dtype, got torch.float32 for "
            "q and torch.float16 for k.",
            *(q, k.half(), v),
        )

    @ALL
    def test_integers(self, attend):
        q, k, v = (x.long() for x in qkv())
        with pytest.raises(
            TypeError, match="share one floating dtype, got torch.int64 for q"
        ):
            call(attend, q, k, v)

    @ALL
    def test_empty_sequence(self, attend):
        refused(
            attend,
            ValueError,
            "nothing to attend to: S=0 keys of width Dh=11. Pass at least one "
            "key of width 1.",
            *qkv(s=0),
        )

    @ALL
    def test_empty_width(self, attend):
        with pytest.raises(ValueError, match="S=7 keys of width Dh=0"):
            call(attend, *qkv(dh=0))

    @ALL
    def test_causal_with_more_queries_than_keys(self, attend):
        refused(
            attend,
            ValueError,
            "causal=True needs T <= S, got T=7 queries and S=5 keys. Query "
            "i of T sees keys up to S - T + i, so the first 2 would see "
            "none. Are q and k swapped?",
            *qkv(t=7, s=5),
            causal=True,
        )

    @ALL
    def test_float_mask(self, attend):
        refused(
            attend,
            TypeError,
            "mask must be bool with True = may attend, got torch.float32. "
            "For additive terms use bias=.",
            *qkv(),
            torch.zeros(T, S),
        )

    @ALL
    def test_bool_bias(self, attend):
        refused(
            attend,
            TypeError,
            "bias must be floating point (it is added to the scores), got "
            "torch.bool. For True and False use mask=.",
            *qkv(),
            bias=some_mask(T, S),
        )

    @ALL
    @pytest.mark.parametrize("name", ["mask", "bias"])
    @pytest.mark.parametrize("shape", [(), (S,), (B, T, S), (1, B, H, T, S)])
    def test_wrong_rank_of_a_grid(self, attend, name, shape):
        grid = torch.zeros(shape, dtype=torch.bool if name == "mask" else None)
        refused(
            attend,
            ValueError,
            f"{name} must have rank 2 (T, S) or rank 4 (B, H, T, S), here "
            f"(B=2, H=3, T=5, S=7), got rank {len(shape)} {shape}. Say which "
            "axis is missing: unsqueeze(1) for one grid a sequence, "
            "unsqueeze(0) for one a head.",
            *qkv(),
            **{name: grid},
        )

    @ALL
    @pytest.mark.parametrize("name", ["mask", "bias"])
    @pytest.mark.parametrize(
        "shape", [(S, T), (B, S), (H, B, T, S), (B, 1, 1, T), (B, T, 1, S)]
    )
    def test_a_grid_that_does_not_broadcast(self, attend, name, shape):
        grid = torch.zeros(shape, dtype=torch.bool if name == "mask" else None)
        refused(
            attend,
            ValueError,
            f"{name} must broadcast to (B=2, H=3, T=5, S=7), got {shape}. "
            f"One row a sequence, (B, S), becomes {name}[:, None, None, :].",
            *qkv(),
            **{name: grid},
        )

    @pytest.mark.parametrize(
        ("attend", "name"),
        [
            *itertools.product(
                [attention, fused_attention], ["k", "v", "mask", "bias"]
            ),
            *itertools.product([attention_weights], ["k", "mask", "bias"]),
        ],
    )
    def test_another_device(self, attend, name):
        q, k, v = qkv()
        args = dict(q=q, k=k, v=v)
        args |= dict(mask=some_mask(T, S), bias=torch.zeros(T, S))
        args[name] = args[name].to("meta")
        if attend is attention_weights:
            del args["v"]
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
            attend(**args)
        assert str(caught.value) == (
            f"{attend.__name__}: {name} is on meta, q on cpu. Move it with "
            f"{name}.to(q.device)."
        )

    @BOTH
    def test_dropout_that_is_no_probability(self, attend):
        refused(
            attend,
            ValueError,
            "dropout_p must lie in [0, 1), got 1.5.",
            *qkv(),
            dropout_p=1.5,
        )


# --- 4. compile -------------------------------------------------------------


def test_compiles_without_a_graph_break():
    """In a fresh interpreter: the import hook would break the graph.

    The backend traces and differentiates but generates no machine code, so
    that this takes seconds and needs no compiler.
    """
    runs_apart("""
        import torch
        from litformer.attention import attention, fused_attention
        torch.manual_seed(0)
        q, k, v = (torch.randn(2, 3, 5, 11) for _ in range(3))
        mask = torch.rand(5, 5) < 0.5
        mask[2] = False
        for attend in (attention, fused_attention):
            compiled = torch.compile(attend, fullgraph=True,
                                     backend="aot_eager")
            for options in ({}, {"causal": True}, {"mask": mask}):
                torch.testing.assert_close(
                    compiled(q, k, v, **options), attend(q, k, v, **options)
                )
    """)
