"""BLEU against sacrebleu, and what both metrics refuse."""

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from litformer.metrics import bleu, exact_match

words = st.lists(st.sampled_from("a b c".split()), min_size=1, max_size=12)
corpora = st.lists(st.tuples(words, words), min_size=1, max_size=8)


def theirs(hypotheses, references, max_n=4):
    metric = sacrebleu.metrics.BLEU(
        tokenize="none",
        smooth_method="none",
        max_ngram_order=max_n,
        force=True,
    )
    said = [" ".join(h) for h in hypotheses]
    asked = [" ".join(r) for r in references]
    return metric.corpus_score(said, [asked]).score


@settings(deadline=None, max_examples=200)
@given(corpora, st.integers(1, 5))
def test_equals_sacrebleu(corpus, max_n):
    hypotheses, references = map(list, zip(*corpus, strict=True))
    got = bleu(hypotheses, references, max_n=max_n)
    expected = theirs(hypotheses, references, max_n)
    assert got == pytest.approx(expected, abs=1e-9)


def test_equals_sacrebleu_on_sentences():
    references = [
        "the cat sat on the mat and looked at the dog",
        "eight hundred and forty seven thousand",
        "she thanked him for the letter",
    ]
    hypotheses = [
        "the cat sat on a mat and looked at the the dog",
        "eight hundred forty seven thousand",
        "he thanked her for the letter today",
    ]
    got = bleu(hypotheses, references)
    split = [h.split() for h in hypotheses], [r.split() for r in references]
    assert got == bleu(*split)
    assert got == pytest.approx(theirs(*split), abs=1e-9)
    assert 30 < got < 80


def test_worked_by_hand():
    """p1 = 5/6 (one "the" too many), p2 = 3/5, c = 6, r = 6."""
    got = bleu(["the cat the sat on mat"], ["the cat sat on the mat"], max_n=2)
    assert got == pytest.approx(100 * (6 / 6 * 2 / 5) ** 0.5)


def test_repeating_a_word_is_not_rewarded():
    assert bleu(["the the the the"], ["the cat sat"], max_n=1) == 25


def test_brevity():
    short = bleu(["a b c d"], ["a b c d e f g h"])
    assert short == pytest.approx(100 * 2.718281828459045 ** (1 - 8 / 4))
    assert bleu(["a b c d e"], ["a b c d"], max_n=1) == pytest.approx(80)


def test_counts_are_summed_over_the_corpus():
    pair = ["a b c d e", "x"], ["a b c d e", "y"]
    alone = [bleu([h], [r]) for h, r in zip(*pair, strict=True)]
    assert alone == [pytest.approx(100), 0]
    assert bleu(*pair) == pytest.approx(100 * (5 / 6) ** 0.25)


def test_limits():
    assert bleu([[]], [["a"]]) == 0
    assert bleu(["a b c"], ["a b c"]) == 0  # no run of four words
    assert bleu(["a b c"], ["a b c"], max_n=3) == pytest.approx(100)
    assert bleu([[1, 2, 3, 4]], [(1, 2, 3, 4)]) == pytest.approx(100)


def test_exact_match():
    assert exact_match(["a b", "a"], ["a b", "b"]) == 0.5
    assert exact_match([["a", "b"]], ["a b"]) == 1.0
    assert exact_match([[]], [["a"]]) == 0.0


@pytest.mark.parametrize("metric", [bleu, exact_match])
class TestErrors:
    def test_not_one_reference_each(self, metric):
        for h, r in ((["a"], ["a", "b"]), ([], [])):
            with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
                metric(h, r)
            assert str(caught.value) == (
                f"{metric.__name__}: needs one reference for each hypothesis "
                f"and at least one of them, got {len(h)} hypotheses and "
                f"{len(r)} references."
            )

    def test_one_string(self, metric):
        for pair, name in (
            (("a b", ["a b"]), "hypotheses"),
            ((["a b"], "a b"), "references"),
        ):
            with pytest.raises(TypeError) as caught:
                metric(*pair)
            assert str(caught.value) == (
                f"{metric.__name__}: {name} must be a list of sentences, got "
                "one string. Pass [sentence]."
            )


def test_bleu_of_no_words():
    with pytest.raises(ValueError, match="max_n must be at least 1, got 0"):
        bleu(["a"], ["a"], max_n=0)
