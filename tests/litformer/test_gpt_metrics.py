"""Perplexity and bits per character: one surprise in two units."""

import math

import pytest

from litformer.metrics import bits_per_character, perplexity


def test_a_guesser_among_v_has_perplexity_v():
    assert perplexity(11 * math.log(37), 11) == pytest.approx(37)
    assert perplexity(math.log(37)) == pytest.approx(37)
    assert perplexity(0.0) == 1


def test_a_coin_toss_is_a_bit():
    assert bits_per_character(20 * math.log(2), 20) == pytest.approx(1)


def test_bits_do_not_depend_on_the_pieces():
    """The same text in words and in letters, with the same surprise."""
    nats, letters, words = 34.0, 17, 3
    assert perplexity(nats, words) > perplexity(nats, letters)
    assert bits_per_character(nats, letters) == pytest.approx(
        math.log2(perplexity(nats, words)) * words / letters
    )


def test_nothing_to_share_among():
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        perplexity(1.0, 0)
    with pytest.raises(ValueError, match="at least 1 character, got 0"):
        bits_per_character(1.0, 0)
