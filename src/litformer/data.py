# Written in chapters/translation.md; edit it there, then run make export.
"""Data: sentences as numbers, in batches; and a source of true translations.

Number words in two languages are unlimited, exact and free: every number is a
sentence, and both of its translations are known.
"""

import difflib
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from num2words import num2words
from torch import Tensor

__all__ = [
    "NumberPair",
    "Vocabulary",
    "bucketed_batches",
    "english_words",
    "german_spelling",
    "german_words",
    "number_pairs",
    "pad_batch",
]

# what German numbers are built of
_PIECES = """
null ein eins eine zwei drei vier fünf sechs sieben acht neun zehn elf zwölf
dreizehn vierzehn fünfzehn sechzehn siebzehn achtzehn neunzehn zwanzig dreißig
vierzig fünfzig sechzig siebzig achtzig neunzig und hundert tausend million
millionen milliarde milliarden
"""


def _natural(who: str, number: int) -> int:
    if isinstance(number, bool) or not isinstance(number, int):
        raise TypeError(
            f"{who}: needs a whole number, got {type(number).__name__}."
        )
    if not 0 <= number < 10**12:
        raise ValueError(
            f"{who}: number must be between 0 and 999999999999, got {number}."
        )
    return number


def english_words(number: int) -> tuple[str, ...]:
    """847 -> ("eight", "hundred", "and", "forty", "seven")."""
    text = num2words(_natural("english_words", number), lang="en")
    return tuple(text.replace("-", " ").replace(",", "").split())


def german_words(number: int) -> tuple[str, ...]:
    """847 -> ("acht", "hundert", "sieben", "und", "vierzig").

    German writes all of it as one word; these are its parts.
    """
    text = num2words(_natural("german_words", number), lang="de").lower()
    parts: list[str] = []
    for word in text.split():
        while word:
            fitting = [p for p in _PIECES.split() if word.startswith(p)]
            parts.append(max(fitting, key=len))
            word = word[len(parts[-1]) :]
    return tuple(parts)


_NOUNS = ("million", "millionen", "milliarde", "milliarden")


def german_spelling(parts: Iterable[str]) -> str:
    """Join the parts as German spells them: one word, but for the nouns."""
    text = ""
    for part in parts:
        if part in _NOUNS:
            text = f"{text.rstrip()} {part.capitalize()} "
        else:
            text += part
    return text.strip()


class NumberPair(NamedTuple):
    """A number and its words in two languages."""

    number: int
    source: tuple[str, ...]
    target: tuple[str, ...]


def number_pairs(
    n: int, *, seed: int = 0, digits: tuple[int, int] = (3, 12)
) -> list[NumberPair]:
    """n different numbers, in random order; all lengths alike often.

    Split the list for training and test: no number is in it twice.

    Raises:
        ValueError: lengths outside of 1 to 12 digits, or too few numbers.
    """
    low, high = digits
    if not 1 <= low <= high <= 12:
        raise ValueError(
            f"number_pairs: digits must be (low, high) with 1 <= low <= high "
            f"<= 12, got {digits}."
        )
    most = 10**high - 10 ** (low - 1)
    if not 0 <= n <= most // 2:  # so that a draw seldom repeats another
        raise ValueError(
            f"number_pairs: n must be between 0 and {most // 2}, half of the "
            f"numbers with {low} to {high} digits, got {n}."
        )
    dice, numbers = random.Random(seed), {}
    while len(numbers) < n:
        d = dice.randint(low, high)
        numbers[dice.randrange(10 ** (d - 1), 10**d)] = None
    return [NumberPair(x, english_words(x), german_words(x)) for x in numbers]


class Vocabulary:
    """Words and their ids. Ids 0, 1, 2 are padding, start and end.

    Raises:
        KeyError: a word that is not in it; the message names it.
    """

    PAD, BOS, EOS = 0, 1, 2

    def __init__(self, sentences: Iterable[Iterable[str]]) -> None:
        found = sorted({word for words in sentences for word in words})
        self.words = ["<pad>", "<bos>", "<eos>", *found]
        self._ids = {word: i for i, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of the words."""
        return [self._id(word) for word in words]

    def decode(self, ids: Iterable[int] | Int[Tensor, "T"]) -> list[str]:
        """Words up to the end; padding and start are left out."""
        words = []
        for i in map(int, ids):
            if i == self.EOS:
                break
            if i not in (self.PAD, self.BOS):
                words.append(self.words[i])
        return words

    def _id(self, word: str) -> int:
        if word not in self._ids:
            near = difflib.get_close_matches(word, self.words[3:], 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(
                f"Vocabulary: {word!r} is not among the {len(self) - 3} "
                f"words.{hint}"
            )
        return self._ids[word]


def pad_batch(
    rows: Sequence[Sequence[int]], *, pad_id: int = 0
) -> Int[Tensor, "B T"]:
    """Rows of ids as one table, filled up on the right.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("pad_batch: needs at least one row, got none.")
    width = max(len(row) for row in rows)
    return torch.tensor(
        [[*row, *[pad_id] * (width - len(row))] for row in rows],
        dtype=torch.long,
    ).view(len(rows), width)


def bucketed_batches(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    *,
    batch_size: int = 64,
    chunk: int = 8,
    seed: int = 0,
    pad_id: int = 0,
) -> Iterator[tuple[Int[Tensor, "B S"], Int[Tensor, "B T"]]]:
    """Batches of sentences of like length, without end.

    Each pass shuffles the examples, sorts within `chunk` batches by length,
    and shuffles the batches: little padding, and still another order each
    time.

    Raises:
        ValueError: no examples, or sizes below 1.
    """
    if not examples or min(batch_size, chunk) < 1:
        raise ValueError(
            "bucketed_batches: needs examples, batch_size and chunk of at "
            f"least 1, got {len(examples)}, {batch_size} and {chunk}."
        )
    dice, order = random.Random(seed), list(range(len(examples)))
    while True:
        dice.shuffle(order)
        batches = []
        for at in range(0, len(order), batch_size * chunk):
            some = order[at : at + batch_size * chunk]
            some.sort(key=lambda i: sum(map(len, examples[i])))
            batches += [
                some[j : j + batch_size]
                for j in range(0, len(some), batch_size)
            ]
        dice.shuffle(batches)
        for batch in batches:
            sources, targets = zip(*(examples[i] for i in batch), strict=True)
            yield (
                pad_batch(sources, pad_id=pad_id),
                pad_batch(targets, pad_id=pad_id),
            )
