"""The tales: told, read and counted by one grammar, which must agree."""

import math
import random

import pytest
import torch

from litformer import tales
from litformer.tales import (
    IGNORED,
    MARK,
    VOCABULARY,
    NotATale,
    decode,
    encode,
    floor,
    next_words,
    read,
    tell,
)


def told(n, seed=0):
    rng = random.Random(seed)
    return [tell(rng) for _ in range(n)]


def test_what_is_told_can_be_read_with_the_same_probabilities():
    for tale in told(300):
        again = read(list(tale.words))
        assert again.words == tale.words
        assert again.log_probs == pytest.approx(tale.log_probs)


def test_same_seed_same_tale():
    assert told(3, seed=5) == told(3, seed=5)
    assert told(3, seed=5) != told(3, seed=6)


def test_next_words_are_a_distribution_that_holds_the_next_word():
    for tale in told(20, seed=1):
        for place, (word, log_prob) in enumerate(zip(*tale, strict=True)):
            after = next_words(tale.words[:place])
            assert sum(after.values()) == pytest.approx(1)
            assert math.log(after[word]) == pytest.approx(log_prob)
        assert next_words(tale.words) == {MARK: 1.0}


def test_words_come_as_often_as_said():
    """At the first place where something is chosen, and at a later one."""
    starts = [tale.words[0] for tale in told(4000, seed=2)]
    share = starts.count("once") / len(starts)
    assert next_words([])["once"] == 3 / 4
    assert share == pytest.approx(3 / 4, abs=4 * math.sqrt(3 / 16 / 4000))


def test_floor_agrees_with_many_tales():
    """Mean surprisal and mean length, each within four standard errors."""
    many = told(3000, seed=3)
    nats = torch.tensor([-sum(tale.log_probs) for tale in many])
    words = torch.tensor([float(len(tale.words)) for tale in many])
    exact = floor()
    for found, true in ((nats, exact.nats), (words, exact.words)):
        error = found.std() / math.sqrt(len(many))
        assert abs(found.mean() - true) < 4 * error
        assert error < 0.02 * true  # or the test could not fail
    assert words.max() == exact.longest
    assert exact.nats_per_word == exact.nats / exact.words


def test_alike_choices_are_alike():
    """The claim that the exact count rests on, at random places."""
    rng, checked = random.Random(4), 0
    for _ in range(25):
        story, path = tales._story(), []
        choice = next(story)
        stop = rng.randrange(25)
        while len(path) < stop or not choice.alike:
            phrases = [phrase for phrase, _ in choice.options]
            path.append(rng.choice(phrases))
            choice = story.send(path[-1])
        counts = [tales._count((*path, phrase)) for phrase, _ in choice.options]
        lengths = {len(phrase.split()) for phrase, _ in choice.options}
        assert len(lengths) == 1
        checked += len(counts) > 1
        for count in counts:
            assert count == pytest.approx(counts[0])
    assert checked > 5


def test_no_phrase_begins_another():
    """Else reading would stop too early: every phrase must be reachable."""
    for tale in told(50, seed=7):
        story = tales._story()
        choice, at = next(story), 0
        while True:
            phrases = [tuple(p.split()) for p, _ in choice.options]
            for one in phrases:
                others = [p for p in phrases if p != one]
                assert not any(p[: len(one)] == one for p in others)
            (hit,) = (p for p in phrases if tale.words[at : at + len(p)] == p)
            at += len(hit)
            try:
                choice = story.send(" ".join(hit))
            except StopIteration:
                break
        assert at == len(tale.words)


def test_vocabulary_is_whole():
    used = {word for tale in told(1000, seed=8) for word in tale.words}
    assert used == set(VOCABULARY[1:])
    assert VOCABULARY[0] == MARK
    assert len(set(VOCABULARY)) == len(VOCABULARY) == 112


@pytest.mark.parametrize(
    ("change", "place", "message"),
    [
        (lambda w: ["twice", *w[1:]], 0, "is 'twice'.*'once', 'long'"),
        (lambda w: [*w[:-1]], None, r"breaks off after \d+ words.*'\.'"),
        (lambda w: [*w, "once"], None, "is 'once'.*'<>'"),
        (lambda w: [], 0, "breaks off after 0 words"),
    ],
)
def test_what_is_no_tale_is_told_where(change, place, message):
    words = list(tell(random.Random(1)).words)
    spoilt = change(words)
    with pytest.raises(NotATale, match=message) as caught:
        read(spoilt)
    expected = min(len(words), len(spoilt)) if place is None else place
    assert caught.value.place == expected


def test_a_wrong_owner_is_found():
    """The error that a model makes which has not learned who is who."""
    words = list(tell(random.Random(1)).words)
    end = len(words) - words[::-1].index("had") - 1
    holder = words[end - 1]
    words[end - 1] = next(n for n in tales.NAMES if n != holder)
    with pytest.raises(NotATale, match=f"goes on with '{holder}'") as caught:
        read(words)
    assert caught.value.place == end - 1


def test_rows_hold_words_marks_and_surprisals():
    some = sorted(told(9, seed=9), key=lambda tale: len(tale.words))
    rows = encode(some)
    width = len(some[-1].words) + 1
    assert rows.inputs.shape == rows.targets.shape == (9, width)
    for i, tale in enumerate(some):
        n = len(tale.words)
        assert decode(rows.inputs[i]) == list(tale.words)
        assert rows.inputs[i, 0] == 0
        assert torch.equal(rows.targets[i, :n], rows.inputs[i, 1 : n + 1])
        assert rows.targets[i, n] == 0
        assert (rows.targets[i, n + 1 :] == IGNORED).all()
        assert rows.surprisal[i].sum() == pytest.approx(
            -sum(tale.log_probs), rel=1e-5
        )
        assert (rows.surprisal[i, n:] == 0).all()


def test_decode_stops_at_the_mark_and_needs_none():
    ids = torch.tensor([3, 4, 0, 5])
    assert decode(ids) == [VOCABULARY[3], VOCABULARY[4]]
    assert decode(torch.tensor([0, 3])) == [VOCABULARY[3]]
    assert decode(torch.tensor([0, 0, 3])) == []
