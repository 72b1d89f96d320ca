"""Greedy and beam search against searches that look at everything.

One oracle enumerates all sequences of a tiny vocabulary. Another is a beam
search over Python lists, one source at a time, without caches or batches.
"""

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import refused
from litformer.generation import (
    Beams,
    beam_search,
    greedy_decode,
    length_norm,
)
from litformer.seq2seq import Seq2Seq, Seq2SeqConfig

PAD, BOS, EOS = 0, 1, 2


def make_model(seed=0, vocab=11, sharp=2.0, norm_first=True, max_len=23):
    """A model whose next word depends on everything before it."""
    torch.manual_seed(seed)
    sizes = dict(d_model=12, d_ff=16, max_len=max_len, norm_first=norm_first)
    config = Seq2SeqConfig.tiny(13, vocab, tie_embeddings=False, **sizes)
    model = Seq2Seq(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
        nn.init.normal_(model.lm_head.weight, std=sharp * 12**-0.5)
    return model.double().eval()


def sources(b=3, s=7, seed=0):
    dice = torch.Generator().manual_seed(seed)
    table = torch.randint(3, 13, (b, s), generator=dice)
    for row in range(1, b):
        table[row, s - 2 * row :] = PAD
    return table


def next_log_probs(model, source, prefix):
    """Of one source (a list) and one prefix, without padding or a cache."""
    return _next_log_probs(model, tuple(source), tuple(prefix))


@functools.cache
@torch.no_grad()
def _next_log_probs(model, source, prefix):
    memory = model.encode(torch.tensor([source]))
    target = torch.tensor([[BOS, *prefix]])
    logits = model.decode(target, memory)[0, -1]
    logits[[PAD, BOS]] = -math.inf
    return logits.log_softmax(-1).tolist()


def log_prob(model, source, sequence):
    return sum(
        next_log_probs(model, source, sequence[:t])[token]
        for t, token in enumerate(sequence)
    )


def unpadded(row):
    return [token for token in row.tolist() if token != PAD]


def all_sequences(vocab, length):
    """Every text of at most `length` tokens that ends, or is cut off."""
    words = range(3, vocab)
    for n in range(length):
        for body in itertools.product(words, repeat=n):
            yield (*body, EOS)
    yield from itertools.product(words, repeat=length)


def exhaustive(model, source, vocab, length, penalty):
    """All texts with their scores, best first."""
    found = [
        (log_prob(model, source, s) / length_norm(len(s), penalty), list(s))
        for s in all_sequences(vocab, length)
    ]
    return sorted(found, reverse=True)


def plain_beam(model, source, k, length, penalty):
    """Beam search as one would explain it, with lists."""
    living, done = [(0.0, [])], []
    for t in range(1, length + 1):
        candidates = []
        for score, prefix in living:
            step = next_log_probs(model, source, prefix)
            for token, extra in enumerate(step):
                if extra > -math.inf:
                    candidates.append((score + extra, [*prefix, token]))
        norm = length_norm(t, penalty)
        done += [(s / norm, p) for s, p in candidates if p[-1] == EOS]
        rest = [(s, p) for s, p in candidates if p[-1] != EOS]
        living = sorted(rest, reverse=True)[:k]
    done += [(s / length_norm(length, penalty), p) for s, p in living]
    return sorted(done, reverse=True)[:k]


# --- greedy -----------------------------------------------------------------
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_greedy_takes_the_likeliest_word_each_time(seed, norm_first):
    model = make_model(seed, norm_first=norm_first)
    table = sources(seed=seed)
    got = greedy_decode(model, table, max_new_tokens=9)
    for source, row in zip(table, got, strict=True):
        prefix = []
        while len(prefix) < 9 and prefix[-1:] != [EOS]:
            step = next_log_probs(model, unpadded(source), prefix)
            prefix.append(max(range(len(step)), key=step.__getitem__))
        assert unpadded(row) == prefix


@pytest.mark.parametrize("seed", range(6))
def test_cached_equals_uncached(seed):
    model, table = make_model(seed), sources(seed=seed)
    greedy = [
        greedy_decode(model, table, max_new_tokens=17, use_cache=use)
        for use in (True, False)
    ]
    assert torch.equal(*greedy)
    a, b = (
        beam_search(model, table, beam_size=4, max_new_tokens=11, use_cache=use)
        for use in (True, False)
    )
    assert torch.equal(a.tokens, b.tokens)
    torch.testing.assert_close(a.scores, b.scores)


@pytest.mark.parametrize("seed", range(4))
def test_batch_invariance(seed):
    """A source alone, without padding, is translated as among others."""
    model, table = make_model(seed), sources(seed=seed)
    greedy = greedy_decode(model, table, max_new_tokens=9)
    beams = beam_search(model, table, beam_size=3, max_new_tokens=9)
    for b, source in enumerate(table):
        alone = torch.tensor([unpadded(source)])
        (row,) = greedy_decode(model, alone, max_new_tokens=9)
        assert unpadded(row) == unpadded(greedy[b])
        one = beam_search(model, alone, beam_size=3, max_new_tokens=9)
        torch.testing.assert_close(one.scores[0], beams.scores[b])
        for i in range(3):
            assert unpadded(one.tokens[0, i]) == unpadded(beams.tokens[b, i])


def test_rows_end_with_the_end_and_padding_only():
    ended = 0
    for seed in range(8):
        got = greedy_decode(make_model(seed), sources(), max_new_tokens=19)
        for row in got.tolist():
            assert BOS not in row
            if EOS in row:
                ended += 1
                assert set(row[row.index(EOS) + 1 :]) <= {PAD}
                assert PAD not in row[: row.index(EOS)]
            else:
                assert PAD not in row
    assert ended > 3


# --- beam -------------------------------------------------------------------
@pytest.mark.parametrize("penalty", [0.0, 0.6, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_beam_that_holds_everything_finds_the_best_of_all(seed, penalty):
    """Two words: after two steps there are 4 living texts, and K = 4."""
    model, table = make_model(seed, vocab=5), sources(seed=seed)
    got = beam_search(
        model, table, beam_size=4, max_new_tokens=3, length_penalty=penalty
    )
    for b, source in enumerate(table):
        best = exhaustive(model, unpadded(source), 5, 3, penalty)
        assert len(best) == 1 + 2 + 4 + 8
        for i in range(4):
            score, sequence = best[i]
            assert unpadded(got.tokens[b, i]) == sequence
            assert got.scores[b, i].item() == pytest.approx(score, abs=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_two_steps_with_a_beam_as_wide_as_the_vocabulary(seed):
    model, table = make_model(seed, vocab=13), sources(b=1, seed=seed)
    got = beam_search(model, table, beam_size=13, max_new_tokens=2)
    best = exhaustive(model, unpadded(table[0]), 13, 2, 0.0)
    for i in range(13):
        assert unpadded(got.tokens[0, i]) == best[i][1]


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 10_000),
    st.integers(1, 7),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.6, 1.0, 2.5]),
)
def test_equals_a_beam_search_with_lists(seed, k, length, penalty):
    model, table = make_model(seed, vocab=7), sources(b=2, seed=seed)
    got = beam_search(
        model,
        table,
        beam_size=k,
        max_new_tokens=length,
        length_penalty=penalty,
    )
    for b, source in enumerate(table):
        best = plain_beam(model, unpadded(source), k, length, penalty)
        for i, (score, sequence) in enumerate(best):
            assert unpadded(got.tokens[b, i]) == sequence
            assert got.scores[b, i].item() == pytest.approx(score, abs=1e-9)
        assert (got.scores[b, len(best) :] == -math.inf).all()


@pytest.mark.parametrize("seed", range(5))
def test_one_beam_without_a_penalty_follows_greedy_until_it_may_end(seed):
    """The text cut off is greedy's, unless an earlier end is likelier."""
    model, table = make_model(seed), sources(seed=seed)
    beams = beam_search(model, table, beam_size=1, max_new_tokens=8)
    greedy = greedy_decode(model, table, max_new_tokens=8)
    for b, source in enumerate(table):
        row, reference = unpadded(beams.tokens[b, 0]), unpadded(greedy[b])
        score = log_prob(model, unpadded(source), reference)
        assert beams.scores[b, 0].item() >= score - 1e-9
        body = row[:-1] if row[-1] == EOS else row
        assert body == reference[: len(body)]


def test_scores_are_log_probabilities_over_the_norm():
    model, table = make_model(3), sources()
    for penalty in (0.0, 0.7):
        got = beam_search(
            model, table, beam_size=5, max_new_tokens=7, length_penalty=penalty
        )
        assert (got.scores.diff(dim=1) <= 0).all()
        for b, source in enumerate(table):
            seen = set()
            for row, score in zip(got.tokens[b], got.scores[b], strict=True):
                sequence = unpadded(row)
                seen.add(tuple(sequence))
                expected = log_prob(model, unpadded(source), sequence)
                expected /= length_norm(len(sequence), penalty)
                assert score.item() == pytest.approx(expected, abs=1e-9)
            assert len(seen) == 5  # no text twice


class Garden(nn.Module):
    """Greedy starts with word 3 (.6), whose best end is unlikely (.3)."""

    def __init__(self):
        super().__init__()
        self.config = Seq2SeqConfig.tiny(5, 5)

    def encode(self, source):
        return source

    def decode(self, target, memory):
        table = {
            (1,): [0, 0, 0, 0.6, 0.4],
            (1, 3): [0, 0, 0.3, 0.35, 0.35],
            (1, 4): [0, 0, 0.9, 0.05, 0.05],
        }
        rows = [
            table.get(tuple(row), [0, 0, 0.3, 0.35, 0.35])
            for row in target.tolist()
        ]
        return torch.tensor(rows).log()[:, None]


def test_a_wider_beam_leaves_the_garden_path():
    source = torch.tensor([[3]])
    model = Garden().eval()
    options = dict(max_new_tokens=4, use_cache=False)
    (greedy,) = greedy_decode(model, source, **options)
    assert greedy[0] == 3
    model.encode = lambda s: _Repeats(s)
    best = beam_search(model, source, beam_size=2, **options)
    assert best.tokens[0, 0].tolist() == [4, EOS]
    assert best.scores[0, 0].exp().item() == pytest.approx(0.36)


class _Repeats:
    def __init__(self, rows):
        self.rows = rows

    def repeat(self, times):
        return _Repeats(self.rows.repeat_interleave(times, 0))


def test_fewer_texts_than_beams():
    model = make_model(vocab=5)
    got = beam_search(model, sources(), beam_size=5, max_new_tokens=1)
    assert (got.scores[:, :3] > -math.inf).all()
    assert (got.scores[:, 3:] == -math.inf).all()
    assert (got.tokens[:, 3:] == PAD).all()
    assert not got.scores.isnan().any()


def test_a_penalty_prefers_longer_texts():
    lengths = []
    model, table = make_model(1), sources(b=3)
    for penalty in (0.0, 5.0):
        got = beam_search(
            model, table, beam_size=6, max_new_tokens=9, length_penalty=penalty
        )
        lengths.append((got.tokens[:, 0] != PAD).sum().item())
    assert lengths[0] < lengths[1]


def test_length_norm():
    assert length_norm(7, 0.0) == 1
    assert length_norm(1, 0.6) == 1
    assert length_norm(7, 1.0) == 2


def test_best_keeps_the_k_best_of_both():
    a = Beams(torch.tensor([[[3], [4]]]), torch.tensor([[-1.0, -3.0]]))
    b = Beams(torch.tensor([[[5, 7], [6, 8]]]), torch.tensor([[-2.0, -4.0]]))
    tokens, scores = a.best(b, pad_id=0)
    assert tokens.tolist() == [[[3, 0], [5, 7]]]
    assert scores.tolist() == [[-1.0, -2.0]]


# --- error messages ---------------------------------------------------------
@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize("k", [0, -1, 12])
    def test_beam_wider_than_the_vocabulary(self, k):
        refused(
            ValueError,
            "beam_search: beam_size must be between 1 and the vocabulary, "
            f"target_vocab=11, got {k}. The first step has no more candidates "
            "than words.",
            *(beam_search, make_model(), sources()),
            beam_size=k,
            max_new_tokens=3,
        )

    def test_negative_penalty(self):
        refused(
            ValueError,
            "beam_search: length_penalty must be 0 or more, got -0.5. 0 "
            "compares plain log-probabilities.",
            *(beam_search, make_model(), sources()),
            beam_size=2,
            max_new_tokens=3,
            length_penalty=-0.5,
        )

    @pytest.mark.parametrize("n", [0, 24])
    @pytest.mark.parametrize("search", [greedy_decode, beam_search])
    def test_lengths_that_cannot_be_written(self, search, n):
        beam = {} if search is greedy_decode else {"beam_size": 2}
        refused(
            ValueError,
            f"{search.__name__}: max_new_tokens must be between 1 and "
            f"max_len=23, got {n}.",
            *(search, make_model(), sources()),
            max_new_tokens=n,
            **beam,
        )

    @pytest.mark.parametrize("search", [greedy_decode, beam_search])
    def test_model_in_training_mode(self, search):
        beam = {} if search is greedy_decode else {"beam_size": 2}
        refused(
            ValueError,
            f"{search.__name__}: the model is in training mode, so that "
            "dropout would make its answers random. Call model.eval() first.",
            *(search, make_model().train(), sources()),
            max_new_tokens=3,
            **beam,
        )

    @pytest.mark.parametrize("search", [greedy_decode, beam_search])
    def test_empty_source(self, search):
        beam = {} if search is greedy_decode else {"beam_size": 2}
        with pytest.raises(ValueError, match="source 0 of 1 is empty"):
            search(
                make_model(),
                torch.zeros(1, 3, dtype=torch.long),
                max_new_tokens=3,
                **beam,
            )

    def test_the_longest_length_can_be_written(self):
        model = make_model(max_len=7)
        got = greedy_decode(model, sources(), max_new_tokens=7)
        assert got.shape[1] <= 7
