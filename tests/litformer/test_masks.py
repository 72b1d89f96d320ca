"""Every mask against plain loops, and the promises that masks make."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from litformer.attention import attention, attention_weights, fused_attention
from litformer.masks import (
    causal_mask,
    document_mask,
    document_positions,
    influence,
    leaks,
    padding_mask,
    prefix_mask,
    response,
    sliding_window_mask,
)

B, H, T, S, Dh = 2, 3, 5, 7, 11
ATTENDS = [attention, fused_attention]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def by_hand(t, s, rule):
    """The oracle: one pair at a time, from the last pair backwards.

    It aligns the two sequences by their ends and never computes S - T + i.
    """
    rows = [[False] * s for _ in range(t)]
    for back in range(t):  # the query that is `back` before the last
        for ago in range(s):  # the key that is `ago` before the last
            rows[t - 1 - back][s - 1 - ago] = rule(ago - back, s - 1 - ago)
    return torch.tensor(rows)


@st.composite
def lengths_t_s(draw, most=9):
    s = draw(st.integers(1, most))
    return draw(st.integers(1, s)), s


# ------------------------------------------------------ against plain loops


@given(lengths_t_s())
def test_causal_mask_is_the_past(sizes):
    t, s = sizes
    expected = by_hand(t, s, lambda ago, key: ago >= 0)
    assert torch.equal(causal_mask(t, s), expected)


@given(lengths_t_s(), st.integers(1, 12))
def test_window_mask_is_the_near_past(sizes, window):
    t, s = sizes
    expected = by_hand(t, s, lambda ago, key: 0 <= ago < window)
    assert torch.equal(sliding_window_mask(t, s, window=window), expected)


@given(lengths_t_s(), st.data())
def test_prefix_mask_is_the_past_or_the_prefix(sizes, data):
    t, s = sizes
    prefix = data.draw(st.integers(0, s))
    expected = by_hand(t, s, lambda ago, key: ago >= 0 or key < prefix)
    assert torch.equal(prefix_mask(t, s, prefix=prefix), expected)


@given(st.integers(1, 9), st.data())
def test_padding_mask_is_the_first_keys(s, data):
    lengths = data.draw(st.lists(st.integers(0, s), min_size=1, max_size=4))
    mask = padding_mask(torch.tensor(lengths), s)
    assert mask.shape == (len(lengths), 1, 1, s)
    for row, length in zip(mask[:, 0, 0].tolist(), lengths, strict=True):
        assert row == [True] * length + [False] * (s - length)


@given(lengths_t_s(), st.data())
def test_document_mask_compares_ids(sizes, data):
    t, s = sizes
    row = st.lists(st.integers(-2, 2), min_size=s, max_size=s)
    ids = data.draw(st.lists(row, min_size=1, max_size=3))
    mask = document_mask(torch.tensor(ids), t)
    assert mask.shape == (len(ids), 1, t, s)
    for b, one in enumerate(ids):
        expected = by_hand(t, s, lambda ago, key: one[key] == one[key + ago])  # noqa: B023
        assert torch.equal(mask[b, 0], expected)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12))
def test_document_positions_count_within_a_run(ids):
    expected = []
    for i, one in enumerate(ids):
        same = i > 0 and one == ids[i - 1]
        expected.append(expected[-1] + 1 if same else 0)
    got = document_positions(torch.tensor([ids, ids]))
    assert got.tolist() == [expected, expected]


def test_square_is_the_default():
    assert torch.equal(causal_mask(T), causal_mask(T, T))
    assert torch.equal(prefix_mask(T, prefix=2), prefix_mask(T, T, prefix=2))
    assert torch.equal(
        sliding_window_mask(T, window=2), sliding_window_mask(T, T, window=2)
    )
    ids = torch.tensor([[0, 0, 1]])
    assert torch.equal(document_mask(ids), document_mask(ids, 3))


def test_window_of_everything_is_causal():
    assert torch.equal(sliding_window_mask(T, S, window=S), causal_mask(T, S))
    assert not torch.equal(sliding_window_mask(S, window=S - 1), causal_mask(S))


def test_prefixes_of_a_batch_are_an_or():
    both = causal_mask(T, S) | padding_mask(torch.tensor([3, 0]), S)
    assert torch.equal(both[0, 0], prefix_mask(T, S, prefix=3))
    assert torch.equal(both[1, 0], causal_mask(T, S))


# ------------------------------------------------- as a cache will use them


@given(lengths_t_s(), st.integers(1, 9), st.data())
def test_rows_for_new_tokens_are_the_last_rows_of_the_whole(
    sizes, window, data
):
    t, s = sizes
    prefix = data.draw(st.integers(0, s))
    ids = torch.tensor(
        [data.draw(st.lists(st.integers(0, 2), min_size=s, max_size=s))]
    )
    for new, whole in [
        (causal_mask(t, s), causal_mask(s)),
        (prefix_mask(t, s, prefix=prefix), prefix_mask(s, prefix=prefix)),
        (
            sliding_window_mask(t, s, window=window),
            sliding_window_mask(s, window=window),
        ),
        (document_mask(ids, t), document_mask(ids)),
    ]:
        assert torch.equal(new, whole[..., s - t :, :])


@pytest.mark.parametrize("attend", ATTENDS)
def test_decoding_one_token_at_a_time_equals_one_pass(attend):
    q, k, v = torch.randn(3, B, H, S, Dh)
    whole = attend(q, k, v, sliding_window_mask(S, window=3))
    for n in range(1, S + 1):
        mask = sliding_window_mask(1, n, window=3)
        one = attend(q[:, :, n - 1 : n], k[:, :, :n], v[:, :, :n], mask)
        torch.testing.assert_close(one, whole[:, :, n - 1 : n])


# -------------------------------------------------- with the real attention


def every_mask(t, s):
    lengths = torch.tensor([s, s - 3])
    ids = torch.tensor([[0] * (s - 4) + [1] * 3 + [2], [0] * 2 + [1] * (s - 2)])
    return {
        "causal": causal_mask(t, s),
        "padding": padding_mask(lengths, s),
        "prefix": prefix_mask(t, s, prefix=3),
        "window": sliding_window_mask(t, s, window=2),
        "document": document_mask(ids, t),
        "causal & padding": causal_mask(t, s) & padding_mask(lengths, s),
        "causal & document": causal_mask(t, s) & document_mask(ids, t),
        "left padding": causal_mask(t, s)
        & padding_mask(torch.tensor([1, s]), s).flip(-1),
    }


@pytest.mark.parametrize("attend", ATTENDS)
@pytest.mark.parametrize("name", every_mask(T, S))
def test_attention_under_each_mask_is_torchs(name, attend):
    mask = every_mask(T, S)[name]
    ours = [torch.randn(B, H, n, Dh, requires_grad=True) for n in (T, S, S)]
    theirs = [x.detach().clone().requires_grad_() for x in ours]
    got = attend(*ours, mask)
    expected = F.scaled_dot_product_attention(*theirs, attn_mask=mask)
    torch.testing.assert_close(got, expected)
    upstream = torch.randn_like(got)
    got.backward(upstream)
    expected.backward(upstream)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_left_padding_has_empty_rows_and_they_are_zero():
    mask = every_mask(T, T)["left padding"]
    empty = ~mask.any(-1)
    assert empty[0, 0].tolist() == [True] * (T - 1) + [False]
    x = torch.randn(B, H, T, Dh)
    out = attention(x, x, x, mask)
    assert not out[0, :, : T - 1].any()
    assert out[0, :, T - 1].any()


@pytest.mark.parametrize("attend", ATTENDS)
def test_future_tokens_cannot_change_past_outputs(attend):
    x = torch.randn(B, H, S, Dh)
    y = x.clone()
    y[:, :, 4:] = 50 * torch.randn(B, H, S - 4, Dh)
    for mask in (causal_mask(S), sliding_window_mask(S, window=3)):
        a, b = attend(x, x, x, mask), attend(y, y, y, mask)
        assert torch.equal(a[:, :, :4], b[:, :, :4])
        assert not torch.allclose(a[:, :, 4:], b[:, :, 4:])


@pytest.mark.parametrize("attend", ATTENDS)
@pytest.mark.parametrize("causal", [True, False])
def test_real_tokens_ignore_what_padding_holds_and_how_much(attend, causal):
    x = torch.randn(1, H, T, Dh)
    alone = attend(x, x, x, causal=causal)
    for amount in (1, 3):
        for size in (0.0, 1.0, 1e3):
            junk = size * torch.randn(1, H, amount, Dh)
            long = torch.cat([x, junk], dim=2)
            mask = padding_mask(torch.tensor([T]), T + amount)
            if causal:
                mask = mask & causal_mask(T + amount)
            out = attend(long, long, long, mask)[:, :, :T]
            torch.testing.assert_close(out, alone)


@pytest.mark.parametrize("attend", ATTENDS)
def test_packed_documents_equal_separate_runs(attend):
    sizes = [3, 1, 5, 2]
    ids = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))[None]
    place = torch.randn(max(sizes), Dh)
    x = torch.randn(1, H, sum(sizes), Dh)

    def run(x, positions, mask):
        x = x + place[positions]
        return attend(x, x, x, mask)

    mask = document_mask(ids) & causal_mask(sum(sizes))
    together = run(x, document_positions(ids)[:, None], mask)
    apart = [
        run(part, torch.arange(part.shape[2]), causal_mask(part.shape[2]))
        for part in x.split(sizes, dim=2)
    ]
    torch.testing.assert_close(together, torch.cat(apart, dim=2))


def test_packing_needs_both_halves():
    ids = torch.tensor([[0, 0, 0, 1, 1]])
    x, place = torch.randn(1, 1, 5, Dh), torch.randn(5, Dh)
    part = x[:, :, 3:] + place[:2]
    right = attention(part, part, part, causal=True)
    for positions, mask in [
        (torch.arange(5)[None], document_mask(ids) & causal_mask(5)),
        (document_positions(ids), causal_mask(5)),
    ]:
        y = x + place[positions][:, None]
        assert not torch.allclose(attention(y, y, y, mask)[:, :, 3:], right)


# ----------------------------------------------------------- leak detectors


def reading(mask, attend=attention, t=T):
    """f for the detectors: keys and values from x, queries fixed."""
    q = torch.randn(B, 1, t, Dh, generator=torch.Generator().manual_seed(1))
    return lambda x: attend(q.to(x), x[:, None], x[:, None], mask)[:, 0]


@pytest.mark.parametrize("attend", ATTENDS)
@pytest.mark.parametrize("name", every_mask(T, S))
def test_clean_masks_have_no_leak(name, attend):
    mask = every_mask(T, S)[name]
    x = torch.randn(B, S, Dh)
    assert not leaks(reading(mask, attend), x, mask).any()


@pytest.mark.parametrize("detect", [influence, response])
@pytest.mark.parametrize("name", every_mask(T, S))
def test_detectors_find_exactly_the_mask(name, detect):
    mask = every_mask(T, S)[name].expand(B, 1, T, S)
    found = detect(reading(mask), torch.randn(B, S, Dh)) != 0
    # a row with a single key has a constant weight of one, but the value
    # still reaches the output, so influence equals the mask everywhere
    assert torch.equal(found, mask[:, 0])


def test_seeded_leaks_are_found_where_they_are():
    right = causal_mask(S)
    seeded = right.clone()
    seeded[1, 4] = seeded[2, 3] = True
    found = leaks(reading(seeded, t=S), torch.randn(B, S, Dh), right)
    assert torch.equal(found, (seeded & ~right).expand(B, S, S))


def test_a_leak_in_one_sequence_is_found_there():
    right = causal_mask(S).expand(B, 1, S, S)
    seeded = right.clone()
    seeded[1, 0, 0, 6] = True
    found = leaks(reading(seeded, t=S), torch.randn(B, S, Dh), right)
    assert found.nonzero().tolist() == [[1, 0, 6]]


def test_masking_after_the_softmax_leaks():
    q = torch.randn(B, 1, T, Dh)
    mask = causal_mask(T)

    def late(x):
        return (attention_weights(q, x[:, None]) * mask @ x[:, None])[:, 0]

    found = leaks(late, torch.randn(B, T, Dh), mask)
    assert torch.equal(found, (~mask).expand(B, T, T))


def test_a_large_negative_number_leaks_on_an_empty_row():
    mask = every_mask(T, T)["left padding"]
    q = torch.randn(B, 1, T, Dh)

    def uniform(x):
        scores = q @ x[:, None].mT
        return (scores.masked_fill(~mask, -1e9).softmax(-1) @ x[:, None])[:, 0]

    found = leaks(uniform, torch.randn(B, T, Dh), mask)
    assert found[0, : T - 1].all()
    assert not found[0, T - 1].any()
    assert not found[1].any()


def test_a_nan_counts_as_a_leak():
    def broken(x):
        return x * float("nan")

    assert leaks(broken, torch.randn(1, 3, 4), causal_mask(3)).sum() == 3


def test_a_sum_is_blind_after_layer_norm_and_influence_is_not():
    f = reading(causal_mask(S), t=S)
    x = torch.randn(B, S, Dh)
    found = influence(lambda c: F.layer_norm(f(c), (Dh,)), x)
    assert torch.equal(found != 0, causal_mask(S).expand(B, S, S))
    assert found[:, -1].min() > 1e-4


def test_saturation_blinds_the_gradient_but_not_the_response():
    f = reading(None, t=S)
    x = 100 * torch.randn(B, S, Dh)
    asleep = influence(f, x) == 0
    assert asleep.sum() > 10
    # not all: a second token may win the softmax whatever this one becomes
    assert response(f, x)[asleep].float().mean() > 0.9


def test_rounding_blinds_the_response_but_not_the_gradient():
    f = reading(causal_mask(S), t=S)

    def faint(x):
        return f(x) + 1e-20 * x.sum(dim=1, keepdim=True)

    x = torch.randn(B, S, Dh)
    assert torch.equal(response(faint, x), causal_mask(S).expand(B, S, S))
    assert leaks(faint, x, causal_mask(S)).sum() == B * S * (S - 1) // 2


def test_a_step_blinds_the_gradient_but_not_the_response():
    def stepped(x):
        past = torch.cumsum(x, dim=1)
        return past + (x.flip(1) > 0).float()

    x = torch.randn(1, 4, Dh)
    assert not (influence(stepped, x) != 0)[0, 0, 3]
    assert response(stepped, x)[0, 0, 3]


def test_detached_input_is_caught_by_the_response():
    weight = torch.randn(Dh, Dh, requires_grad=True)

    def detached(x):
        return x.detach().flip(1) @ weight

    x = torch.randn(1, 3, Dh)
    assert not influence(detached, x).any()
    assert torch.equal(response(detached, x)[0], torch.eye(3).bool().flip(1))


def test_detectors_leave_the_input_and_the_dice_alone():
    x = torch.randn(B, S, Dh)
    before, state = x.clone(), torch.get_rng_state()
    leaks(reading(causal_mask(S), t=S), x, causal_mask(S))
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


def test_response_works_at_zero():
    f = reading(causal_mask(S), t=S)
    found = response(f, torch.zeros(B, S, Dh))
    assert torch.equal(found, causal_mask(S).expand(B, S, S))


def test_a_mask_per_head_allows_what_one_head_allows():
    heads = torch.stack([causal_mask(S), torch.eye(S, dtype=torch.bool)])
    f = reading(causal_mask(S), t=S)
    x = torch.randn(B, S, Dh)
    assert not leaks(f, x, heads[None]).any()
    assert leaks(f, x, heads[None, 1:]).sum() == B * S * (S - 1) // 2


# ------------------------------------------------------------ kind and place


def test_dtype_is_bool():
    for mask in every_mask(T, S).values():
        assert mask.dtype == torch.bool
    ids = torch.zeros(B, S, dtype=torch.int32)
    assert document_positions(ids).dtype == torch.int64


def test_masks_follow_their_inputs_device():
    meta = torch.device("meta")
    assert causal_mask(T, S, device=meta).device == meta
    assert prefix_mask(T, S, prefix=2, device=meta).device == meta
    assert sliding_window_mask(T, S, window=2, device=meta).device == meta
    ids = torch.zeros(B, S, dtype=torch.int64, device=meta)
    assert document_mask(ids).device == meta
    assert document_positions(ids).device == meta


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_everything_runs_on_the_gpu():
    for mask in every_mask(T, S).values():
        x = torch.randn(B, S, Dh, device="cuda")
        found = leaks(reading(mask.cuda()), x, mask.cuda())
        assert found.is_cuda
        assert not found.any()
    lengths = torch.tensor([2, 3], device="cuda")
    assert padding_mask(lengths, T).is_cuda
    assert causal_mask(T, device="cuda").is_cuda


def test_masks_compile_without_a_break(unchecked):
    def build(lengths, ids):
        past = causal_mask(T) & sliding_window_mask(T, window=3)
        return past & padding_mask(lengths, T) & document_mask(ids)

    lengths = torch.tensor([5, 2])
    ids = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 2, 2]])
    torch.compiler.reset()
    compiled = torch.compile(build, backend="eager", fullgraph=True)
    assert torch.equal(compiled(lengths, ids), build(lengths, ids))


# ------------------------------------------------------------------ messages


@pytest.mark.usefixtures("unchecked")
class TestMessages:
    def test_more_queries_than_keys(self):
        text = r"causal_mask: needs 1 <= T <= S, got T=5 queries and S=2 keys"
        with pytest.raises(ValueError, match=text):
            causal_mask(5, 2)
        with pytest.raises(ValueError, match="prefix_mask: needs 1 <= T"):
            prefix_mask(5, 2, prefix=1)
        with pytest.raises(ValueError, match="sliding_window_mask: needs"):
            sliding_window_mask(5, 2, window=1)
        with pytest.raises(ValueError, match=r"document_mask: .*T=5.*S=2"):
            document_mask(torch.zeros(1, 2, dtype=torch.long), 5)

    @pytest.mark.parametrize(("t", "s"), [(0, 3), (0, None), (-1, 2)])
    def test_no_queries(self, t, s):
        with pytest.raises(ValueError, match=f"needs 1 <= T <= S, got T={t}"):
            causal_mask(t, s)

    def test_a_tensor_in_place_of_a_length(self):
        with pytest.raises(
            TypeError,
            match=r"t must be a number of queries, got a tensor of shape "
            r"\(2, 5\). Pass its length, such as x.shape\[-2\]",
        ):
            causal_mask(torch.zeros(2, 5))

    @pytest.mark.parametrize("prefix", [-1, 8])
    def test_prefix_out_of_range(self, prefix):
        with pytest.raises(
            ValueError, match=f"between 0 and S=7, got {prefix}. It counts"
        ):
            prefix_mask(T, S, prefix=prefix)

    def test_prefix_per_sequence(self):
        with pytest.raises(
            TypeError, match=r"got a tensor of shape \(2,\).*\| padding_mask"
        ):
            prefix_mask(T, S, prefix=torch.tensor([1, 2]))

    @pytest.mark.parametrize("window", [0, -3])
    def test_window_too_small(self, window):
        with pytest.raises(
            ValueError,
            match=f"window must be at least 1, got {window}. It counts the",
        ):
            sliding_window_mask(T, window=window)

    @pytest.mark.parametrize("wrong", [-1, 8])
    def test_length_out_of_range(self, wrong):
        with pytest.raises(
            ValueError,
            match=rf"between 0 and S=7, got lengths\[1\]={wrong}. Is s the",
        ):
            padding_mask(torch.tensor([3, wrong, 9]), S)

    def test_lengths_of_a_wrong_kind(self):
        with pytest.raises(
            TypeError, match=r"lengths must be integers, got torch.float32"
        ):
            padding_mask(torch.tensor([3.0]), S)
        table = torch.ones(B, S, dtype=torch.bool)
        with pytest.raises(
            ValueError,
            match=r"lengths must have shape \(B,\), got \(2, 7\). For a table "
            r"of real tokens \(B, S\) use table.bool\(\)\[:, None, None, :\]",
        ):
            padding_mask(table, S)
        with pytest.raises(TypeError, match="lengths must be integers"):
            padding_mask(table[0], S)
        with pytest.raises(TypeError, match="lengths must be a torch.Tensor"):
            padding_mask([3, 2], S)

    @pytest.mark.parametrize("f", [document_mask, document_positions])
    def test_document_ids_of_a_wrong_kind(self, f):
        name = f.__name__
        with pytest.raises(
            ValueError,
            match=rf"{name}: documents must have shape \(B, S\), got \(7,\). "
            r"For a single row pass documents\[None\]",
        ):
            f(torch.zeros(S, dtype=torch.long))
        with pytest.raises(
            TypeError, match=rf"{name}: documents must be integers, got torch.f"
        ):
            f(torch.zeros(B, S))

    def test_detectors_refuse_a_wrong_rank(self):
        x = torch.randn(B, S, Dh)
        for detect in (influence, response):
            with pytest.raises(
                ValueError, match=rf"{detect.__name__}: x must have shape"
            ):
                detect(lambda x: x, x[0])
        with pytest.raises(
            ValueError, match=r"f\(x\) must have shape \(B=2, T, width\)"
        ):
            influence(lambda x: x[:1], x)

    def test_no_gradient_at_all(self):
        with pytest.raises(
            ValueError, match=r"no gradient with respect to x. .*response\(\)"
        ):
            influence(lambda x: x.detach(), torch.randn(B, S, Dh))

    def test_random_f(self):
        with pytest.raises(ValueError, match=r"two answers .*model.eval\(\)"):
            response(
                lambda x: F.dropout(x, 0.5, training=True),
                torch.randn(B, S, Dh),
            )

    def test_leaks_refuses_masks_that_do_not_fit(self):
        x = torch.randn(B, S, Dh)
        with pytest.raises(TypeError, match=r"must be bool .* torch.float32"):
            leaks(lambda x: x, x, torch.ones(S, S))
        for shape in [(S, S - 1), (B, S, S), (3, 1, S, S), (S,)]:
            with pytest.raises(
                ValueError,
                match=r"mask must be \(T=7, S=7\) or broadcast to \(B=2, H, ",
            ):
                leaks(lambda x: x, x, torch.ones(shape, dtype=torch.bool))


def test_wrong_types_are_refused_by_the_annotations():
    from jaxtyping import TypeCheckError

    with pytest.raises(TypeCheckError):
        padding_mask(torch.tensor([3.0]), S)
