"""Tiny tales: English whose every word has a known probability.

A hand-written grammar tells of two friends and an object that changes hands.
Each word is drawn from a distribution that we know, so the least loss that
any language model can reach on these tales is known exactly, and so is the
distribution that it should predict at every place. To reach it, a model must
remember who is who, who holds the object, and how its holder felt.

The grammar is one generator, `_story`: it yields what may come next, and is
sent what came. Telling, reading and counting are three ways to drive it.
"""

import math
import random
from collections.abc import Generator, Iterable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "IGNORED",
    "MARK",
    "VOCABULARY",
    "Floor",
    "NotATale",
    "Rows",
    "Tale",
    "decode",
    "encode",
    "floor",
    "next_words",
    "read",
    "tell",
]

MARK = "<>"  # stands before the first word of a tale and after its last
NAMES = (
    "Anna Ben Cleo Dan Ella Finn Gus Hana Ivo Jill Kai Lily Max Nora Otto Pia"
).split()
PRONOUN = dict.fromkeys("fox bear frog wolf goat".split(), "he")
PRONOUN |= dict.fromkeys("cat hen owl mouse duck".split(), "she")
POSSESSIVE = {"he": "his", "she": "her"}
OPENINGS = {"once upon a time there was a": 3, "long ago there lived a": 1}
CHARACTERS = "big small clever lazy brave".split()
PLACES = "forest village castle valley garden harbour".split()
DAYS = ["one day", "one morning", "one night"]
COLOURS = "red blue green yellow golden tiny".split()
OBJECTS = "ball book kite lamp coin drum ring cake".split()
LANDMARKS = "bridge tree river wall barn hill".split()
MOST_TURNS = 3  # how often an object changes hands in one tale

Options = tuple[tuple[str, int], ...]  # phrases with their weights


class _Choice(NamedTuple):
    """What may come next.

    `alike` says that the rest of the tale has the same length and the same
    probabilities whichever of the phrases comes.
    """

    options: Options
    alike: bool


def _one_of(weights: dict[str, int] | Iterable[str]) -> _Choice:
    if not isinstance(weights, dict):
        weights = dict.fromkeys(weights, 1)
    return _Choice(tuple(weights.items()), alike=False)


def _any_of(weights: dict[str, int] | Iterable[str]) -> _Choice:
    return _one_of(weights)._replace(alike=True)


def _just(phrase: str) -> _Choice:
    return _Choice(((phrase, 1),), alike=True)


def _story() -> Generator[_Choice, str, None]:
    """The grammar: each `yield` is a place where a phrase is chosen."""
    hero, friend = yield from _beginning()
    finder = yield _one_of({hero: 2, friend: 1})
    yield _just("found a")
    colour = yield _any_of(COLOURS)
    thing = yield _any_of(OBJECTS)
    yield _any_of({"under": 2, "near": 2, "behind": 1})
    yield _just("the")
    yield _any_of(LANDMARKS)
    yield _just(".")
    other = friend if finder == hero else hero
    yield _just(f"{other} wanted the {thing} too . {finder} felt")
    mood = yield _one_of({"kind": 2, "happy": 2, "angry": 1, "greedy": 1})
    kind = mood in ("kind", "happy")
    yield _just("and shared it ." if kind else "and hid it .")
    holder = yield from _turns(finder, other, thing)
    yield _just(f"{holder} had the {colour} {thing} and they were")
    yield _just("happy ." if kind else f"sad . {hero} said sorry to {friend} .")
    yield _just("the end .")


def _beginning() -> Generator[_Choice, str, tuple[str, str]]:
    """Who they are; returns the names of the hero and of the friend."""
    yield _one_of(
        {"once upon a time there was a": 3, "long ago there lived a": 1}
    )
    yield _any_of(CHARACTERS)
    animal = yield _any_of(list(PRONOUN))
    yield _just("named")
    hero = yield _any_of(NAMES)
    yield _just(".")
    yield _any_of({hero: 1, PRONOUN[animal]: 2})
    yield _just("lived in a")
    yield _any_of(PLACES)
    yield _just(f"with {POSSESSIVE[PRONOUN[animal]]} friend")
    friend = yield _any_of(name for name in NAMES if name != hero)
    yield _just("the")
    yield _any_of(other for other in PRONOUN if other != animal)
    yield _just(".")
    yield _any_of(DAYS)
    return hero, friend


def _turns(holder: str, other: str, thing: str) -> Generator[_Choice, str, str]:
    """The object changes hands; returns who has it in the end."""
    for _ in range(MOST_TURNS):
        if (yield _one_of({"then": 2, "at last": 1})) == "at last":
            return holder
        if (yield _one_of({holder: 3, other: 1})) == holder:
            yield _any_of({"gave": 2, "threw": 1})
            yield _just(f"the {thing} to {other} .")
        else:
            yield _any_of(("took", "stole"))
            yield _just(f"the {thing} from {holder} .")
        holder, other = other, holder
    yield _just("at last")
    return holder


# ------------------------------------------------------- telling and reading


class Tale(NamedTuple):
    """The words of a tale, and the log-probability (nats) of each."""

    words: tuple[str, ...]
    log_probs: tuple[float, ...]


class NotATale(ValueError):
    """A text that the grammar cannot have told; `place` is the first word
    that is impossible, or the number of words if they break off."""

    def __init__(self, place: int, message: str) -> None:
        super().__init__(message)
        self.place = place


@cache
def _phrases(options: Options) -> tuple[list[str], list[int], list[Tale]]:
    """Phrases, their weights, and each with the log-probs of its words."""
    phrases, weights = map(list, zip(*options, strict=True))
    tales = []
    for phrase in phrases:
        words = tuple(phrase.split())
        probs = (
            _step(options, words[:i])[word] for i, word in enumerate(words)
        )
        tales.append(Tale(words, tuple(map(math.log, probs))))
    return phrases, weights, tales


@cache
def _step(options: Options, done: tuple[str, ...]) -> dict[str, float]:
    """The next word's probabilities after the first words of a phrase.

    Empty when they are a whole phrase (none is the beginning of another).
    """
    n, found = len(done), {}
    for phrase, weight in options:
        words = tuple(phrase.split())
        if len(words) > n and words[:n] == done:
            found[words[n]] = found.get(words[n], 0) + weight
    total = sum(found.values())
    return {word: weight / total for word, weight in found.items()}


def tell(rng: random.Random) -> Tale:
    """Make up a tale."""
    story = _story()
    words: list[str] = []
    log_probs: list[float] = []
    choice = next(story)
    while True:
        phrases, weights, tales = _phrases(choice.options)
        (i,) = rng.choices(range(len(phrases)), weights)
        words += tales[i].words
        log_probs += tales[i].log_probs
        try:
            choice = story.send(phrases[i])
        except StopIteration:
            return Tale(tuple(words), tuple(log_probs))


def read(words: Sequence[str]) -> Tale:
    """Read a tale that someone else has told, word by word.

    Raises:
        NotATale: words that the grammar cannot have told, or not to the end.
    """
    log_probs, after = _follow(words)
    if MARK not in after:
        raise NotATale(
            len(words),
            f"read: the tale breaks off after {len(words)} words; it would "
            f"go on with {_some(after)}.",
        )
    return Tale(tuple(words), tuple(log_probs))


def next_words(words: Sequence[str]) -> dict[str, float]:
    """The exact distribution of the word after the beginning of a tale.

    After a whole tale that is `MARK`, with certainty.

    Raises:
        NotATale: no tale begins so.
    """
    return dict(_follow(words)[1])


def _follow(words: Sequence[str]) -> tuple[list[float], dict[str, float]]:
    """Log-probabilities of the words, and what may come after them."""
    story = _story()
    options, done = next(story).options, ()
    log_probs, after = [], _step(options, done)
    for place, word in enumerate(words):
        if word not in after:
            raise NotATale(
                place,
                f"read: word {place} is {word!r}, where a tale goes on with "
                f"{_some(after)}.",
            )
        log_probs.append(math.log(after[word]))
        done = (*done, word)
        after = _step(options, done)
        if not after:  # the phrase is whole
            try:
                options, done = story.send(" ".join(done)).options, ()
                after = _step(options, done)
            except StopIteration:
                after = {MARK: 1.0}
    return log_probs, after


def _some(words: Iterable[str]) -> str:
    """At most four of the words, and how many more."""
    words = list(words)
    shown = ", ".join(map(repr, words[:4]))
    return shown + (f" and {len(words) - 4} more" if len(words) > 4 else "")


# ------------------------------------------------------------------ counting


class Floor(NamedTuple):
    """What no model can beat: exact, by adding up all tales."""

    nats: float  # entropy of a tale
    words: float  # mean length of a tale
    longest: int  # words of the longest tale

    @property
    def nats_per_word(self) -> float:
        """The least mean loss a word, over many tales."""
        return self.nats / self.words


@cache
def floor() -> Floor:
    """The exact entropy and mean length of the tales.

    The entropy of a tale is the sum, over the places where something is
    chosen, of the entropy of the choice, weighted by how often it is met.
    Where all phrases lead to the same shape of tale, following one of them is
    enough; what is left are a few hundred ways, and all are followed.
    """
    return _count(())


def _count(path: tuple[str, ...]) -> Floor:
    """Entropy and words of what follows after the choices of `path`."""
    story = _story()
    choice = next(story)
    for phrase in path:
        choice = story.send(phrase)
    nats = words = 0
    while choice.alike:
        phrases, _, tales = _phrases(choice.options)
        nats += _entropy(choice.options)
        words += len(tales[0].words)
        path = (*path, phrases[0])
        try:
            choice = story.send(phrases[0])
        except StopIteration:
            return Floor(nats, words, words)
    nats += _entropy(choice.options)
    total = sum(weight for _, weight in choice.options)
    mean, longest = 0.0, 0
    for phrase, weight in choice.options:
        rest, n = _count((*path, phrase)), len(phrase.split())
        nats += weight / total * rest.nats
        mean += weight / total * (n + rest.words)
        longest = max(longest, n + rest.longest)
    return Floor(nats, words + mean, words + longest)


def _entropy(options: Options) -> float:
    """Of one choice, in nats."""
    total = sum(weight for _, weight in options)
    shares = [weight / total for _, weight in options]
    return -sum(p * math.log(p) for p in shares)


# ------------------------------------------------------------------- tensors


def _vocabulary() -> tuple[str, ...]:
    """The mark, then every word: none is so rare that 500 tales miss it."""
    rng, words = random.Random(0), set()
    for _ in range(500):
        words.update(tell(rng).words)
    return (MARK, *sorted(words))


VOCABULARY = _vocabulary()  # word of each id; the mark is 0
_ID = {word: i for i, word in enumerate(VOCABULARY)}
IGNORED = -100  # the target of a place that is only padding


class Rows(NamedTuple):
    """Tales as a batch: each row is one tale, from its first position."""

    inputs: Int[Tensor, "B T"]  # the mark, then the words; the mark as padding
    targets: Int[Tensor, "B T"]  # the words, then the mark; IGNORED as padding
    surprisal: Float[Tensor, "B T"]  # true, in nats, of the targets; 0 beyond


def encode(tales: Sequence[Tale]) -> Rows:
    """Put tales into a batch as wide as the longest of them needs.

    The mark at the end of a tale is certain: predicting it costs a perfect
    model nothing, so that the loss of a tale can be shared among its words.
    """
    width = max(len(tale.words) for tale in tales) + 1
    inputs = torch.zeros(len(tales), width, dtype=torch.long)
    targets = torch.full_like(inputs, IGNORED)
    surprisal = torch.zeros(len(tales), width)
    for row, (words, log_probs) in enumerate(tales):
        n = len(words)
        ids = torch.tensor([_ID[word] for word in words])
        inputs[row, 1 : n + 1] = ids
        targets[row, :n] = ids
        targets[row, n] = _ID[MARK]
        surprisal[row, :n] = -torch.tensor(log_probs)
    return Rows(inputs, targets, surprisal)


def decode(ids: Int[Tensor, "T"]) -> list[str]:
    """The words of a row, from its first mark (if any) to the next one."""
    words = [VOCABULARY[i] for i in ids.tolist()]
    words = words[words[:1] == [MARK] :]
    return words[: words.index(MARK)] if MARK in words else words
