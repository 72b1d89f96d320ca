"""Sampling: distributions that are what they say, texts that are repeatable."""

import math

import pytest
import torch

from litformer.generation import sample, stream
from litformer.gpt import GPT, GPTConfig
from litformer.sampling import (
    keep_top_k,
    keep_top_p,
    next_token_probabilities,
)

V = 37


def logits(*shape, seed=0):
    make = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(*shape, V, generator=make)


# ------------------------------------------------------------------ the cuts


def brute_top_p(row, p):
    """Add the most probable tokens one by one until p is reached."""
    probs = row.double().softmax(-1)
    kept, mass = set(), 0.0
    for token in probs.argsort(descending=True).tolist():
        if mass >= p:
            break
        kept.add(token)
        mass += probs[token].item()
    return kept


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999])
def test_top_p_is_the_smallest_set_that_reaches_p(p):
    rows = logits(2, 50)
    kept = keep_top_p(rows, p)
    for row, cut in zip(rows.view(-1, V), kept.view(-1, V), strict=True):
        there = set((cut > -math.inf).nonzero().flatten().tolist())
        assert there == brute_top_p(row, p)
        assert torch.equal(cut[cut > -math.inf], row[cut > -math.inf])


def test_top_p_of_one_keeps_everything():
    """Also tokens so unlikely that their mass is lost in rounding."""
    row = torch.tensor([50.0, 0.0, -80.0])
    assert torch.equal(keep_top_p(row, 1.0), row)


@pytest.mark.parametrize("k", [1, 5, V, V + 10])
def test_top_k_keeps_the_k_largest(k):
    rows = logits(2, 5)
    kept = keep_top_k(rows, k)
    assert ((kept > -math.inf).sum(-1) == min(k, V)).all()
    best = rows.topk(min(k, V)).values
    assert torch.equal(kept.topk(min(k, V)).values, best)


def test_top_k_keeps_ties():
    row = torch.tensor([1.0, 3.0, 1.0, 0.0])
    assert (keep_top_k(row, 2) > -math.inf).tolist() == [True] * 3 + [False]


def test_like_hugging_face():
    """Their three warpers, in their order, on the same logits."""
    from transformers.generation.logits_process import (
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    rows = logits(11)
    theirs = rows
    for warper in (
        TemperatureLogitsWarper(0.7),
        TopKLogitsWarper(9),
        TopPLogitsWarper(0.8),
    ):
        theirs = warper(None, theirs)
    ours = next_token_probabilities(rows, temperature=0.7, top_k=9, top_p=0.8)
    torch.testing.assert_close(ours, theirs.softmax(-1))
    assert (ours == 0).any()


# ----------------------------------------------------------- the distribution


@pytest.mark.parametrize(
    "bend",
    [
        {},
        dict(temperature=0.5),
        dict(temperature=3.0),
        dict(top_k=4),
        dict(top_p=0.7),
        dict(temperature=0.8, top_k=6, top_p=0.9),
        dict(temperature=0.0),
    ],
)
def test_it_is_a_distribution(bend):
    probs = next_token_probabilities(logits(3), **bend)
    assert (probs >= 0).all()
    torch.testing.assert_close(probs.sum(-1), torch.ones(3))
    assert torch.equal(probs.argmax(-1), logits(3).argmax(-1))


def test_temperature_is_a_power_of_the_probabilities():
    p = logits(3).double().softmax(-1)
    expected = p**2 / (p**2).sum(-1, keepdim=True)
    got = next_token_probabilities(logits(3).double(), temperature=0.5)
    torch.testing.assert_close(got, expected)


def test_extreme_temperatures_do_not_overflow():
    cold = next_token_probabilities(logits(3), temperature=1e-30)
    assert torch.equal(cold.argmax(-1), logits(3).argmax(-1))
    torch.testing.assert_close(cold.amax(-1), torch.ones(3))
    hot = next_token_probabilities(logits(3), temperature=1e30)
    torch.testing.assert_close(hot, torch.full((3, V), 1 / V))


def test_half_precision_logits_give_fp32_probabilities():
    probs = next_token_probabilities(logits(3).bfloat16(), top_p=0.9)
    assert probs.dtype == torch.float32
    torch.testing.assert_close(probs.sum(-1), torch.ones(3))


def test_impossible_tokens_stay_impossible():
    row = logits()
    row[5] = -math.inf
    assert next_token_probabilities(row, temperature=9.0)[5] == 0


@pytest.mark.parametrize("temperature", [-0.1, math.inf, math.nan])
def test_temperatures_that_are_none(temperature, unchecked):
    with pytest.raises(ValueError, match="temperature must be at least 0 and"):
        next_token_probabilities(logits(), temperature=temperature)


@pytest.mark.parametrize("p", [0.0, -0.5, 1.0001, math.nan])
def test_top_p_outside_its_range(p, unchecked):
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\], got"):
        next_token_probabilities(logits(), top_p=p)


def test_top_k_below_one(unchecked):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        next_token_probabilities(logits(), top_k=0)


# ------------------------------------------------------------------ the loop


@pytest.fixture(params=["learned", "rotary"])
def model(request):
    torch.manual_seed(0)
    rope_base = 1e4 if request.param == "rotary" else None
    config = GPTConfig(
        V, 24, 32, 2, 4, n_kv_heads=2, init_std=0.3, rope_base=rope_base
    )
    return GPT(config).eval()


def prompt(b=3, t=5):
    make = torch.Generator().manual_seed(7)
    return torch.randint(1, V, (b, t), generator=make)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_same_seed_same_text_with_and_without_cache(model):
    options = dict(max_new_tokens=20, top_p=0.9)
    once = sample(model, prompt(), generator=seeded(), **options)
    for use_cache in (True, False):
        again = sample(
            model, prompt(), generator=seeded(), use_cache=use_cache, **options
        )
        assert torch.equal(once, again)
    other = sample(model, prompt(), generator=seeded(1), **options)
    assert not torch.equal(once, other)
    assert torch.equal(once[:, :5], prompt())
    assert once.shape == (3, 25)


def test_greedy_is_the_argmax_each_time(model):
    out = sample(model, prompt(), max_new_tokens=9, temperature=0.0)
    with torch.no_grad():
        best = model(out[:, :-1]).argmax(-1)
    assert torch.equal(out[:, 5:], best[:, 4:])


def test_tokens_come_as_often_as_the_model_says(model):
    """20 000 draws of one token: every count within five deviations."""
    n = 20_000
    options = dict(temperature=0.7, top_k=12, top_p=0.95)
    with torch.no_grad():
        last = model(prompt(1))[0, -1]
    probs = next_token_probabilities(last, **options)
    rows = prompt(1).expand(n, -1)
    drawn = sample(
        model, rows, max_new_tokens=1, generator=seeded(), **options
    )[:, -1]
    counts = torch.bincount(drawn, minlength=V)
    deviation = (n * probs * (1 - probs)).sqrt()
    assert ((counts - n * probs).abs() <= 5 * deviation + 1e-3).all()
    assert (counts[probs == 0] == 0).all()
    assert (probs > 0).sum() > 3


def test_a_row_that_ended_is_filled_up(model):
    free = sample(model, prompt(), max_new_tokens=19, generator=seeded())
    end = free[0, 9].item()  # a token that the first row does say
    out = sample(
        model, prompt(), max_new_tokens=19, generator=seeded(), eos_id=end
    )
    for row in out:
        said = row[5:].tolist()
        if end in said:
            after = said[said.index(end) :]
            assert set(after) == {end}
    first = out[0, 5:].tolist().index(end)
    assert torch.equal(out[0, : 5 + first], free[0, : 5 + first])


def test_all_stop_when_every_row_has_ended(model):
    row = prompt(1)
    free = sample(model, row, max_new_tokens=19, temperature=0.0)
    end = free[0, 7].item()
    out = sample(model, row, max_new_tokens=19, temperature=0.0, eos_id=end)
    said = free[0, 5:].tolist()
    assert out[0, 5:].tolist() == said[: said.index(end) + 1]


def test_stream_yields_what_sample_returns(model):
    whole = sample(model, prompt(), max_new_tokens=6, generator=seeded())
    parts = list(stream(model, prompt(), max_new_tokens=6, generator=seeded()))
    assert torch.equal(torch.stack(parts, 1), whole[:, 5:])
    assert not any(part.requires_grad for part in parts)


def test_stream_does_not_compute_ahead(model):
    reads = []
    hook = model.norm.register_forward_hook(lambda *_: reads.append(1))
    tokens = stream(model, prompt(), max_new_tokens=9)
    next(tokens), next(tokens)
    hook.remove()
    assert len(reads) == 2


def test_the_last_place_can_be_used(model):
    """24 places: a prompt of 5 and 20 new ones, the last of them unread."""
    assert sample(model, prompt(), max_new_tokens=20).shape == (3, 25)


def test_a_text_that_would_outgrow_the_model(model, unchecked):
    with pytest.raises(
        ValueError, match=r"5 prompt tokens and 21 new.*max_len=24.*at most 20"
    ):
        sample(model, prompt(), max_new_tokens=21)


def test_nothing_to_begin_with(model, unchecked):
    with pytest.raises(ValueError, match=r"prompt is empty, shape \(2, 0\)"):
        sample(model, torch.zeros(2, 0, dtype=torch.long), max_new_tokens=3)


def test_no_new_tokens(model, unchecked):
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1"):
        sample(model, prompt(), max_new_tokens=0)


def test_a_model_in_training(model, unchecked):
    with pytest.raises(ValueError, match=r"training mode.*model\.eval\(\)"):
        sample(model.train(), prompt(), max_new_tokens=3)
