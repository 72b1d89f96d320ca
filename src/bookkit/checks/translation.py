"""Checks for the exercises of chapters/translation.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised.
"""

import heapq
import itertools
import math
import random
from collections import Counter
from dataclasses import asdict
from types import SimpleNamespace

import torch

from bookkit.check import Wrong, exercise, expect_close, expect_equal
from litformer.seq2seq import Seq2Seq, Seq2SeqConfig


def _two(answer, what: str, on: str):
    """The two parts of an answer, or a word about what is missing."""
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"Two things are asked for: {what}.", on=on, got=answer)
    return answer


# --- given and asked ---------------------------------------------------------
@exercise("translation.given-and-asked")
def given_and_asked(given_and_asked):
    """Both tables, on sentences of equal and of different length."""
    for rows in ([[7, 8]], [[7, 8, 9], [5], [6, 4]], [[3, 3], [4, 4]]):
        on = f"rows {rows}"
        given, asked = _two(
            given_and_asked([list(row) for row in rows]),
            "what is given, and what is asked for",
            on,
        )
        width = max(map(len, rows)) + 1
        for name, got in (("given", given), ("asked", asked)):
            if not isinstance(got, torch.Tensor):
                raise Wrong(
                    f"What is {name} must be a tensor of ids.", on=on, got=got
                )

        def table(rows, width=width):
            return torch.tensor(
                [[*row, *[0] * (width - len(row))] for row in rows]
            )

        want_given = table([[1, *row] for row in rows])
        want_asked = table([[*row, 2] for row in rows])
        if _equal(asked, want_asked) and _shaped(given, want_given):
            # whatever is given where nothing is asked does no harm
            given = given.masked_fill(want_asked == 0, 0)
        mistakes = {
            "The decoder is given the very word that it is asked for. Shift "
            "the one against the other.": (want_asked, want_asked),
            "What is given has no start token, so that nothing asks for the "
            "first word.": (table(rows), want_asked),
            "The end is never asked for: such a model cannot stop.": (
                want_given,
                table(rows),
            ),
            "Given and asked are exchanged.": (want_asked, want_given),
            "The end token stands behind the padding. It follows the last "
            "word.": (want_given, _end_last(rows, width)),
            "Padding stands on the right here.": (
                _left([[1, *row] for row in rows], width),
                _left([[*row, 2] for row in rows], width),
            ),
            "The words are asked for one place too late: what is asked at a "
            "place is the word after the one given there.": (
                want_given,
                table([[1, *row] for row in rows]),
            ),
        }
        hint = next(
            (
                text
                for text, (a, b) in mistakes.items()
                if _equal(given, a) and _equal(asked, b)
            ),
            "",
        )
        for name, got, want in (
            ("given", given, want_given),
            ("asked", asked, want_asked),
        ):
            if isinstance(got, torch.Tensor) and not _equal(got, want) and hint:
                raise Wrong(hint, on=on, expected=want, got=got)
            expect_equal(
                got,
                want,
                on=f"{on}: what is {name}",
                hint="With start and end a sentence of n words has n + 1 "
                "places to learn from.",
            )
            if got.dtype != torch.int64:
                raise Wrong(
                    "Ids are int64.", on=f"{on}: what is {name}", got=got.dtype
                )
    return "One pass over the second table trains every word."


def _shaped(a, b) -> bool:
    return isinstance(a, torch.Tensor) and a.shape == b.shape


def _equal(a, b) -> bool:
    return _shaped(a, b) and bool((a == b).all())


def _left(rows, width):
    return torch.tensor([[*[0] * (width - len(row)), *row] for row in rows])


def _end_last(rows, width):
    return torch.tensor(
        [[*row, *[0] * (width - 1 - len(row)), 2] for row in rows]
    )


# --- counting ----------------------------------------------------------------
@exercise("translation.count")
def count(weights):
    """Against models that are really built, and a large one that is not."""
    for changes in (
        dict(norm_first=True, tie_embeddings=True),
        dict(norm_first=False, tie_embeddings=True),
        dict(norm_first=True, tie_embeddings=False),
        dict(norm_first=False, tie_embeddings=False, n_encoder_layers=4),
    ):
        sizes = dict(d_model=20, n_heads=5, d_ff=33, n_encoder_layers=2)
        sizes |= dict(n_decoder_layers=3, max_len=17)
        c = Seq2SeqConfig(11, 13, **(sizes | changes))
        with torch.device("meta"):
            model = Seq2Seq(c)
        _counted(weights(c), c, sum(p.numel() for p in model.parameters()))
    c = Seq2SeqConfig.base(37_000, 37_000)
    with torch.device("meta"):
        right = sum(p.numel() for p in Seq2Seq(c).parameters())
    fields = asdict(c)
    for name in ("activation", "dropout"):  # a model cannot be built from it
        del fields[name]
    _counted(weights(SimpleNamespace(**fields)), c, right)
    return (
        f"The base model of the paper would have {right:,} weights; with one "
        f"table for both languages, {right - 37_000 * 512:,}."
    )


def _counted(got, c, right) -> None:
    d, f = c.d_model, c.d_ff
    layers = c.n_encoder_layers + c.n_decoder_layers
    hints = {
        "A block of the decoder has two attentions.": right
        - c.n_decoder_layers * (4 * d * d + 4 * d),
        "The biases are missing.": right
        - (layers + c.n_decoder_layers) * 4 * d
        - layers * (f + d),
        "A norm has a weight and a bias.": right
        - (2 * c.n_encoder_layers + 3 * c.n_decoder_layers) * d
        - 2 * d * c.norm_first,
        "A block of the decoder has three norms.": right
        - c.n_decoder_layers * 2 * d,
        "With pre-norm there is a last norm after each stack.": right
        - 4 * d * c.norm_first,
        "With post-norm there is no norm after a stack: the last block ends "
        "with one.": right + 4 * d * (not c.norm_first),
        "An output layer of its own has no bias.": right
        + c.target_vocab * (not c.tie_embeddings),
        "The tied output layer is the target table: count it once.": right
        + c.target_vocab * d * c.tie_embeddings,
        "An output layer of its own counts, too.": right
        - c.target_vocab * d * (not c.tie_embeddings),
        "Positions are sines and cosines here, and not learned.": right
        + c.max_len * d,
        "Source and target have a table each.": right - c.source_vocab * d,
        "There are two stacks, and a last norm in each.": right
        - 2 * d * c.norm_first,
        "The stacks need not have the same depth.": right
        - (c.n_decoder_layers - c.n_encoder_layers)
        * (8 * d * d + 8 * d + 2 * d * f + f + d + 6 * d),
        "The width of a feed-forward layer is d_ff, not 4 d_model.": right
        - layers * (2 * d + 1) * (f - 4 * d),
        "Heads share the width: four matrices of d_model by d_model are all "
        "heads together.": right
        + (c.n_heads - 1) * (layers + c.n_decoder_layers) * (4 * d * d + 4 * d),
        "The feed-forward layer has two matrices.": right - layers * d * f,
    }
    hint = next((t for t, n in hints.items() if n == got != right), "")
    sizes = "source_vocab target_vocab d_model d_ff n_encoder_layers "
    sizes += "n_decoder_layers norm_first tie_embeddings"
    on = ", ".join(f"{name}={getattr(c, name)}" for name in sizes.split())
    expect_equal(got, right, on=on, hint=hint)


# --- garden path -------------------------------------------------------------
_BEGINNINGS = ["", "A", "B", "AA", "AB", "BA", "BB"]


def _beam(table, k):
    """The best text that a beam of k finds, as in the chapter."""
    living, done = [(1.0, "")], []
    for _ in range(3):
        grown = [
            (p * q, text + token)
            for p, text in living
            for token, q in table[text].items()
        ]
        done += [c for c in grown if c[1].endswith(".")]
        alive = sorted(c for c in grown if not c[1].endswith("."))
        living = alive[::-1][:k]
    return max(done + living)


def _greedy(table):
    p, text = 1.0, ""
    while len(text) < 3 and not text.endswith("."):
        token = max(table[text], key=table[text].get)
        p, text = p * table[text][token], text + token
    return p, text


@exercise("translation.garden-path")
def garden_path(garden):
    """A table of probabilities that misleads two searches, and not a third."""
    table = garden()
    on = "the table of garden()"
    if not isinstance(table, dict) or set(table) != {*_BEGINNINGS}:
        raise Wrong(
            "The table must have these seven beginnings, and no others.",
            on=on,
            expected=_BEGINNINGS,
            got=list(table) if isinstance(table, dict) else table,
        )
    for beginning, row in table.items():
        where = f"{on}, beginning {beginning!r}"
        if not isinstance(row, dict) or set(row) != {"A", "B", "."}:
            raise Wrong(
                'Each beginning needs a probability for "A", "B" and ".".',
                on=where,
                got=row,
            )
        if not (
            all(isinstance(p, int | float) and p >= 0 for p in row.values())
            and abs(sum(row.values()) - 1) <= 1e-6
        ):
            raise Wrong(
                "Probabilities are numbers, not negative, and sum to 1.",
                on=where,
                got=row,
            )
    best = _beam(table, 4)  # four beginnings: nothing is forgotten
    for name, found in (
        ("greedy decoding", _greedy(table)),
        ("a beam of two", _beam(table, 2)),
    ):
        if found[0] >= best[0] - 1e-12:
            raise Wrong(
                f"The likeliest text is found by {name} already.",
                on=on,
                expected="a text that is missed",
                got=f"{found[1]!r} with probability {found[0]:.3f}",
                hint="The best text must grow from a beginning of two words "
                "that is only the third best, or worse.",
            )
        if 1.5 * found[0] > best[0] + 1e-12:
            raise Wrong(
                f"It is missed by {name}, but not by a factor of 1.5.",
                on=on,
                expected=f"at most {best[0] / 1.5:.3f}",
                got=f"{found[1]!r} with probability {found[0]:.3f}, against "
                f"{best[1]!r} with {best[0]:.3f}",
                hint="Let what the searches keep hesitate more.",
            )
    return (
        f"{best[1]!r} has {best[0]:.3f}; greedy finds {_greedy(table)[0]:.3f}, "
        f"a beam of two {_beam(table, 2)[0]:.3f}."
    )


# --- exact search ------------------------------------------------------------
class _Language:
    """A random model over words and an end, that counts its calls."""

    most = 20_000  # calls; who asks more often is told so at once

    def __init__(self, seed, words, sharp, ending=1.0, end="."):
        self.seed, self.words, self.sharp = seed, words, sharp
        self.ending, self.end, self.calls = ending, end, 0

    def __call__(self, text):
        if not isinstance(text, tuple):
            raise Wrong(
                "log_probs takes a tuple of tokens.",
                on="a call of log_probs",
                got=text,
            )
        if text[-1:] == (self.end,):
            raise Wrong(
                "log_probs was asked about a text that has ended.",
                on="a call of log_probs",
                got=text,
                hint="A text is complete with its end. Nothing follows.",
            )
        self.calls += 1
        if self.calls > self.most:
            raise Wrong(
                f"log_probs was asked more than {self.most:,} times.",
                on="a call of log_probs",
                got=text,
                hint="Grow the likeliest text first, and stop when a complete "
                "one is the likeliest of all.",
            )
        return self.step(text)

    def step(self, text):
        """What a call answers."""
        dice = random.Random(f"{self.seed} {' '.join(text)}")
        scores = [self.sharp * dice.random() for _ in range(self.words + 1)]
        scores[-1] *= self.ending
        total = math.log(sum(map(math.exp, scores)))
        tokens = [*"abcdefgh"[: self.words], self.end]
        return {t: s - total for t, s in zip(tokens, scores, strict=True)}

    def best(self, length):
        """By looking at everything."""
        found, living = [], [(0.0, ())]
        for _ in range(length):
            grown = [
                (p + q, (*text, token))
                for p, text in living
                for token, q in self.step(text).items()
            ]
            found += [c for c in grown if c[1][-1] == self.end]
            living = [c for c in grown if c[1][-1] != self.end]
        return max(found + living)

    def best_first(self, length):
        """The same for a large language: the likeliest beginning grows."""
        heap = [(0.0, ())]
        while True:
            cost, text = heapq.heappop(heap)
            if len(text) == length or text[-1:] == (self.end,):
                return -cost, text
            for token, q in self.step(text).items():
                heapq.heappush(heap, (cost - q, (*text, token)))

    def greedy(self, length):
        score, text = 0.0, ()
        while len(text) < length and text[-1:] != (self.end,):
            step = self.step(text)
            token = max(step, key=step.get)
            score, text = score + step[token], (*text, token)
        return text


class _Hidden(_Language):
    """Its best text begins with the worst of all beginnings of four words.

    A beam forgets it, however wide, unless it keeps all 625 beginnings.
    """

    def __init__(self):
        super().__init__(0, 5, 1.0)

    def step(self, text):
        tokens = [*"abcde", "."]
        if text == ("c", "a", "e", "b"):  # the fifth word is certain
            tokens.remove("d")
            return {"d": 0.0} | dict.fromkeys(tokens, -50.0)
        right = ("c", "a", "e", "b")[len(text) : len(text) + 1]
        probs = dict.fromkeys("abcde", 0.2)
        if right and text == ("c", "a", "e", "b")[: len(text)]:
            probs = dict.fromkeys("abcde", 0.205) | {right[0]: 0.18}
        return {t: math.log(p) for t, p in probs.items()} | {".": -50.0}


@exercise("translation.exact-search")
def exact_search(best_text):
    """Small languages against everything, large ones against best-first."""
    for seed, words, length, sharp in itertools.product(
        range(6), (1, 2, 3), (1, 2, 4), (1.0, 6.0)
    ):
        model = _Language(seed, words, sharp, end=".!"[seed % 2])
        on = f"a random language of {words} words and an end, length={length}"
        _judge_text(best_text, model, length, model.best(length), on)
    large = (
        (
            "a sharp language of 5 words and an end",
            9,
            _Language(3, 5, 9.0, 0.5),
        ),
        (
            "a language of 5 words whose best text hides behind the least "
            "likely of all beginnings of four words",
            5,
            _Hidden(),
        ),
    )
    for on, length, model in large:
        right = model.best_first(length)
        on = f"{on}, length={length}"
        _judge_text(best_text, model, length, right, on)
        if model.calls > 2000:
            everything = sum(5**n for n in range(length))
            raise Wrong(
                f"log_probs was asked {model.calls:,} times. There are "
                f"{everything:,} beginnings; the likeliest text can be known "
                "for certain after far fewer.",
                on=on,
                expected="at most 2,000 calls",
                got=model.calls,
                hint="Grow the likeliest text first, and stop when a complete "
                "one is the likeliest of all.",
            )
    calls, everything = large[0][2].calls, sum(5**n for n in range(9))
    return f"{calls} of {everything:,} beginnings were enough."


def _judge_text(best_text, model, length, right, on) -> None:
    """The likeliest text, its score, or what it was taken for."""
    (score, text), end = right, (model.end,)
    got, value = _two(
        best_text(model, model.end, length), "the text and its score", on
    )
    if got != text:
        hint = ""
        if not isinstance(got, tuple):
            hint = "The text is asked for as a tuple of tokens."
        elif len(got) > length:
            hint = "A text of `length` tokens is complete, without an end."
        elif got == model.greedy(length):
            hint = "This is what greedy decoding finds."
        elif len(got) < length and got[-1:] != end:
            hint = "This text is not complete."
        elif isinstance(model, _Hidden):
            hint = (
                "A beam forgets the beginnings that look worst. Exact search "
                "keeps every one that could still win."
            )
        elif got[-1:] == end:
            hint = (
                "This text is complete, but another one is likelier. A "
                "text that is cut off at `length` tokens counts, too. "
                "Was the first complete text taken as the best, before "
                "all likelier beginnings had been looked at?"
            )
        raise Wrong(
            "There is a likelier text.",
            on=on,
            expected=f"{text} with {score:.4f}",
            got=got,
            hint=hint,
        )
    hint = "The score is a log-probability: a sum, and below zero."
    on = f"{on}: the log-probability of {text}"
    expect_close(value, score, on=on, hint=hint)


# --- several references ------------------------------------------------------
@exercise("translation.several-references")
def several_references(clipped):
    """Papineni's example, and random sentences."""
    dice = random.Random(0)
    cases = [
        (
            "the the the the the the the".split(),
            ["the cat is on the mat".split(), "there is a cat".split()],
            1,
        ),
        ("the cat".split(), ["the the cat".split()], 3),
        ([], [["a"]], 1),
    ]
    for _ in range(40):
        draw = [
            # "a" and "aa" are two words, and not twice the same letter
            [dice.choice(("a", "aa", "b")) for _ in range(dice.randint(1, 9))]
            for _ in range(dice.randint(2, 4))
        ]
        cases.append((draw[0], draw[1:], dice.randint(1, 3)))
    answers = []
    for words, references, n in cases:
        on = (
            f"hypothesis {' '.join(words)!r}, references "
            f"{[' '.join(r) for r in references]}, n={n}"
        )
        said = _runs(words, n)
        parts = [_runs(r, n) for r in references]
        most, total, least = Counter(), Counter(), parts[0]
        for part in parts:
            most, total, least = most | part, total + part, least & part
        right = (said & most).total(), said.total()
        shared, asked = _two(
            clipped(list(words), [list(r) for r in references], n),
            "the shared runs, and all runs",
            on,
        )
        hints = {
            "The references are added up here. A run may count as often as "
            "in the one reference that has most of it.": (said & total).total(),
            "A run counts if one reference has it. It need not be in all.": (
                said & least
            ).total(),
            "Without clipping, a run that is repeated is rewarded each "
            "time.": sum(c for run, c in said.items() if run in most),
            "A run may count as often as the reference has it. A set forgets "
            "how often.": len(set(said) & set(most)),
            "Only the first reference was looked at.": (
                said & parts[0]
            ).total(),
            "One reference is chosen for all runs here. Each run may choose "
            "its own.": max((said & part).total() for part in parts),
            "The references are written one after the other here, so that "
            "there are runs across the seams.": (
                said & _runs([w for r in references for w in r], n)
            ).total(),
            "A run is n words in this order.": (
                Counter(map(frozenset, said.elements()))
                & Counter(map(frozenset, most.elements()))
            ).total(),
            "Words have borders: a, aa and aa, a are different runs.": (
                Counter(map("".join, said.elements()))
                & Counter(map("".join, most.elements()))
            ).total(),
        }
        answers.append((on, shared, asked, right, hints))
    for on, shared, asked, right, hints in answers:
        near = [t for t, x in hints.items() if x == shared != right[0]]
        whole = [t for t in near if all(a[4][t] == a[1] for a in answers)]
        alone = near if len(near) == 1 else []  # two may give one number
        hint = [*whole, *alone, ""][0]
        expect_equal(shared, right[0], on=f"{on}: shared runs", hint=hint)
        expect_equal(
            asked,
            right[1],
            on=f"{on}: all runs",
            hint="All runs of the hypothesis count, repeated ones too; a "
            "sentence shorter than n has none.",
        )
    return "The hypothesis of seven times “the” earns 2 of 7."


def _runs(words, n) -> Counter:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


# --- which law is broken -----------------------------------------------------
def _good(source, target):
    """A tiny translator that obeys: sums of features, without any weights."""
    real = (source != 0)[..., None]
    place = torch.arange(source.shape[1])[:, None]
    words = torch.nn.functional.one_hot(source, 10).double()
    read = (words * (1 + 0.1 * place) * real).sum(1, keepdim=True)
    mine = torch.nn.functional.one_hot(target, 10).double()
    at = 1 + 0.1 * torch.arange(target.shape[1])[:, None]
    out = torch.tanh(0.3 * (mine * at).cumsum(1)) + torch.tanh(0.2 * read)
    # a kernel adds in another order for another input: the last digit moves
    chance = torch.sin(1.0 * target.sum() + 3 * source.numel() + len(source))
    return out * (1 + 1e-6 * chance)


def _peeks(source, target):
    """Sees the next word."""
    out = _good(source, target)
    nxt = torch.nn.functional.one_hot(target, 10).double().roll(-1, 1)
    nxt[:, -1] = 0
    return out + 0.05 * nxt


def _peeks_far(source, target):
    """Only place 0 sees, and only the last word."""
    out = _good(source, target).clone()
    if target.shape[1] > 4:
        out[:, 0, 0] += 0.1 * target[:, -1]
    return out


def _peeks_seldom(source, target):
    """Sees the next word if it is a 9, and the source begins with a 6."""
    out = _good(source, target).clone()
    nine = (target == 9).roll(-1, 1) & (source[:, :1] == 6)
    nine[:, -1] = False
    out[..., 1] += 0.2 * nine
    return out


def _counts_padding(source, target):
    """Averages over all places, padding among them."""
    return _good(source, target) / source.shape[1] ** 0.5


def _padding_from_four(source, target):
    """Unharmed by a little padding."""
    padding = (source == 0).sum(1)
    return _good(source, target) + 0.1 * (padding > 3)[:, None, None]


def _centres(source, target):
    """Subtracts the mean of the batch."""
    out = _good(source, target)
    return out - 0.2 * out.mean(0, keepdim=True)


def _neighbour(source, target):
    """The last row reads the first."""
    out = _good(source, target).clone()
    out[-1] += 0.1 * (len(out) > 1) * out[0]
    return out


def _two_wrongs(source, target):
    """Future and padding."""
    return _peeks(source, target) + _counts_padding(source, target)


_TRANSLATORS = [
    (_good, set()),
    (_peeks, {"causality"}),
    (_peeks_far, {"causality"}),
    (_peeks_seldom, {"causality"}),
    (_counts_padding, {"padding"}),
    (_padding_from_four, {"padding"}),
    (_centres, {"batch"}),
    (_neighbour, {"batch"}),
    (_two_wrongs, {"causality", "padding"}),
]


@exercise("translation.which-law", seconds=60)
def which_law(broken):
    """Nine translators, one of them right."""
    for i, (translator, laws) in enumerate(_TRANSLATORS, 1):

        def model(source, target, translator=translator):
            for name, ids in (("source", source), ("target", target)):
                if not isinstance(ids, torch.Tensor) or ids.ndim != 2:
                    raise Wrong(
                        f"{name} must be a table of ids, (B, T).",
                        on="a call of the model",
                        got=ids,
                    )
                if ids.min() < 0 or ids.max() > 9:
                    raise Wrong(
                        f"{name} holds an id outside of 0 to 9.",
                        on="a call of the model",
                        got=ids,
                    )
            return translator(source, target)

        got = broken(model)
        on = f"model {i} of {len(_TRANSLATORS)}: {translator.__doc__}"
        if not isinstance(got, set | frozenset):
            raise Wrong("A set of names is asked for.", on=on, got=got)
        unknown = got - {"causality", "padding", "batch"}
        if unknown:
            raise Wrong("There is no such law.", on=on, got=sorted(unknown))
        if missed := laws - got:
            raise Wrong(
                f"It breaks {' and '.join(sorted(missed))}, and passed.",
                on=on,
                expected=sorted(laws),
                got=sorted(got),
                hint="Does your test try every place, several amounts of "
                "padding and every row, on many random batches?",
            )
        if accused := got - laws:
            raise Wrong(
                f"It obeys {' and '.join(sorted(accused))}, and was accused.",
                on=on,
                expected=sorted(laws),
                got=sorted(got),
                hint="Does the test change one thing only? Compare only those "
                "logits that the law is about, and up to rounding.",
            )
    return "Three comparisons hold a translator to its laws."
