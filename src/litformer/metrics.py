# Written in chapters/{translation,gpt}.md; edit it there, then run make export.
"""Metrics: how good is what a model says?"""

import math
from collections import Counter
from collections.abc import Sequence

__all__ = ["bits_per_character", "bleu", "exact_match", "perplexity"]


def _words(who: str, name: str, sentences) -> list[tuple]:
    """Each sentence as a tuple of words; a string is split at spaces."""
    if isinstance(sentences, str):
        raise TypeError(
            f"{who}: {name} must be a list of sentences, got one string. "
            "Pass [sentence]."
        )
    return [tuple(s.split() if isinstance(s, str) else s) for s in sentences]


def _pairs(who: str, hypotheses, references) -> list[tuple[tuple, tuple]]:
    """Hypotheses with their references, as many of one as of the other."""
    hypotheses = _words(who, "hypotheses", hypotheses)
    references = _words(who, "references", references)
    if len(hypotheses) != len(references) or not references:
        raise ValueError(
            f"{who}: needs one reference for each hypothesis and at least one "
            f"of them, got {len(hypotheses)} hypotheses and "
            f"{len(references)} references."
        )
    return list(zip(hypotheses, references, strict=True))


def _ngrams(words: tuple, n: int) -> Counter:
    """How often each run of n words occurs."""
    return Counter(words[i : i + n] for i in range(len(words) - n + 1))


def bleu(
    hypotheses: Sequence, references: Sequence, *, max_n: int = 4
) -> float:
    """Corpus BLEU from 0 to 100: how much of the wording is shared.

    Sentences are lists of words, or strings to split at spaces. Counts are
    summed over all sentences before anything is divided. Without smoothing:
    no shared run of max_n words in the whole corpus gives 0.

    Raises:
        ValueError: not one reference for each hypothesis, or none at all.
        TypeError: a string in place of a list of sentences.

    Source: Papineni et al. (2002), section 2.
    """
    pairs = _pairs("bleu", hypotheses, references)
    if max_n < 1:
        raise ValueError(f"bleu: max_n must be at least 1, got {max_n}.")
    logs = 0.0
    for n in range(1, max_n + 1):
        shared = total = 0
        for hypothesis, reference in pairs:
            said = _ngrams(hypothesis, n)
            shared += (said & _ngrams(reference, n)).total()
            total += said.total()
        if not shared:
            return 0.0
        logs += math.log(shared / total)
    said = sum(len(hypothesis) for hypothesis, _ in pairs)
    asked = sum(len(reference) for _, reference in pairs)
    brevity = min(0.0, 1 - asked / said)
    return 100 * math.exp(brevity + logs / max_n)


def exact_match(hypotheses: Sequence, references: Sequence) -> float:
    """The share of sentences that are right to the last word, 0 to 1.

    Raises:
        ValueError, TypeError: as `bleu`.
    """
    pairs = _pairs("exact_match", hypotheses, references)
    return sum(a == b for a, b in pairs) / len(pairs)


def perplexity(nats: float, tokens: int = 1) -> float:
    """How many equally likely choices a token is worth: exp(nats / tokens).

    `nats` is the summed loss of that many tokens, or by default the mean.

    Raises:
        ValueError: fewer than one token.
    """
    if tokens < 1:
        raise ValueError(f"perplexity: needs at least 1 token, got {tokens}.")
    return math.exp(nats / tokens)


def bits_per_character(nats: float, characters: int) -> float:
    """The summed loss of a text in bits, shared among its characters.

    Unlike a loss or a perplexity per token, it does not depend on how the
    text was cut into tokens.

    Raises:
        ValueError: fewer than one character.
    """
    if characters < 1:
        raise ValueError(
            f"bits_per_character: needs at least 1 character, got "
            f"{characters}. Pass the length of the text, not its tokens."
        )
    return nats / math.log(2) / characters
