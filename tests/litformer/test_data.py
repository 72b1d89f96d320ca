"""Number words, vocabularies and batches."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from num2words import num2words

from litformer.data import (
    Vocabulary,
    bucketed_batches,
    english_words,
    german_spelling,
    german_words,
    number_pairs,
    pad_batch,
)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 10**12 - 1))
def test_german_parts_join_to_the_real_spelling(number):
    parts = german_words(number)
    assert german_spelling(parts) == num2words(number, lang="de")


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10**12 - 1))
def test_english_words_are_the_real_ones(number):
    letters = "".join(english_words(number))
    spelled = num2words(number, lang="en")
    assert letters == "".join(c for c in spelled if c.isalpha())


def test_known_numbers():
    assert german_words(847) == ("acht", "hundert", "sieben", "und", "vierzig")
    assert english_words(47) == ("forty", "seven")
    assert german_words(0) == ("null",)
    assert german_words(1_000_001) == ("eine", "million", "eins")
    assert german_spelling(("eine", "million", "eins")) == "eine Million eins"
    assert german_spelling(german_words(2_000_000_000)) == "zwei Milliarden"
    assert german_words(61_017) == (
        *("ein", "und", "sechzig", "tausend"),
        "siebzehn",
    )


def test_pairs_are_seeded_and_different():
    pairs = number_pairs(1000, seed=3)
    assert pairs == number_pairs(1000, seed=3)
    assert pairs != number_pairs(1000, seed=4)
    assert len({p.number for p in pairs}) == 1000
    for p in pairs[:50]:
        assert p.source == english_words(p.number)
        assert p.target == german_words(p.number)
    counts = [sum(len(str(p.number)) == d for p in pairs) for d in range(14)]
    assert counts[:3] == [0, 0, 0]
    assert counts[13] == 0
    assert all(60 < c < 140 for c in counts[4:13])


def test_pairs_of_given_lengths():
    pairs = number_pairs(45, digits=(2, 2))
    assert all(10 <= p.number < 100 for p in pairs)
    assert number_pairs(0) == []


def test_vocabulary_round_trip():
    words = Vocabulary([["b", "a"], ["c", "a"]])
    assert len(words) == 6
    assert words.words == ["<pad>", "<bos>", "<eos>", "a", "b", "c"]
    assert words.encode(["c", "a", "b"]) == [5, 3, 4]
    assert words.decode(torch.tensor([1, 5, 3, 2, 4])) == ["c", "a"]
    assert words.decode([5, 0, 3]) == ["c", "a"]


def test_the_words_of_all_numbers_are_few():
    pairs = number_pairs(2000)
    assert len(Vocabulary(p.source for p in pairs)) == 35
    assert len(Vocabulary(p.target for p in pairs)) == 39


def test_pad_batch():
    got = pad_batch([[5], [6, 7, 8], []], pad_id=9)
    assert got.tolist() == [[5, 9, 9], [6, 7, 8], [9, 9, 9]]
    assert got.dtype == torch.long
    assert pad_batch([[]]).shape == (1, 0)


def examples(n=103):
    return [([i + 3] * (i % 7 + 1), [i + 3] * (i % 5 + 1)) for i in range(n)]


def test_one_pass_shows_every_example_once():
    batches = bucketed_batches(examples(), batch_size=8, chunk=3)
    n = 4 * 3 + 1  # chunks of 24: four whole ones and seven examples
    for _ in range(2):
        seen = [
            row[0].item()
            for source, _ in itertools.islice(batches, n)
            for row in source
        ]
        assert sorted(seen) == list(range(3, 106))


def test_batches_keep_pairs_together_and_are_seeded():
    def first(seed):
        batches = bucketed_batches(examples(), batch_size=8, seed=seed)
        return [next(batches) for _ in range(5)]

    for source, target in first(0):
        assert (source[:, 0] == target[:, 0]).all()
        assert source.shape[0] == target.shape[0] <= 8
    for (a, _), (b, _) in zip(first(1), first(1), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first(1)[0][0], first(2)[0][0])


def padding(chunk):
    rows = [
        ([3] * len(p.source), [3] * len(p.target)) for p in number_pairs(640)
    ]
    batches = bucketed_batches(rows, batch_size=16, chunk=chunk)
    some = itertools.islice(batches, 40)
    return sum((s == 0).sum().item() for s, _ in some)


def test_buckets_save_padding():
    assert padding(8) < 0.3 * padding(1)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize("function", [english_words, german_words])
    def test_numbers_without_words(self, function):
        for number in (-1, 10**12):
            with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
                function(number)
            assert str(caught.value) == (
                f"{function.__name__}: number must be between 0 and "
                f"999999999999, got {number}."
            )
        for number, name in ((1.5, "float"), ("7", "str"), (True, "bool")):
            with pytest.raises(TypeError, match=f"whole number, got {name}"):
                function(number)

    def test_digits(self):
        for digits in ((0, 3), (3, 13), (5, 4)):
            with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
                number_pairs(5, digits=digits)
            assert str(caught.value) == (
                "number_pairs: digits must be (low, high) with 1 <= low <= "
                f"high <= 12, got {digits}."
            )

    def test_too_few_numbers(self):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
            number_pairs(46, digits=(2, 2))
        assert str(caught.value) == (
            "number_pairs: n must be between 0 and 45, half of the numbers "
            "with 2 to 2 digits, got 46."
        )

    def test_unknown_word(self):
        words = Vocabulary([["seven", "eight"]])
        with pytest.raises(KeyError) as caught:
            words.encode(["seven", "sevne"])
        assert caught.value.args[0] == (
            "Vocabulary: 'sevne' is not among the 2 words. Did you mean "
            "'seven'?"
        )
        with pytest.raises(KeyError, match="'xyz' is not among the 2 words"):
            words.encode(["xyz"])

    def test_no_rows(self):
        with pytest.raises(ValueError, match="at least one row, got none"):
            pad_batch([])

    @pytest.mark.parametrize(
        ("n", "size", "chunk"), [(0, 8, 8), (9, 0, 8), (9, 8, 0)]
    )
    def test_no_batches(self, n, size, chunk):
        batches = bucketed_batches(examples(n), batch_size=size, chunk=chunk)
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
            next(batches)
        assert str(caught.value) == (
            "bucketed_batches: needs examples, batch_size and chunk of at "
            f"least 1, got {n}, {size} and {chunk}."
        )
