"""Mistakes that people make in the exercises of chapters/translation.md."""

_TABLES = """
import torch

def pad(rows, width):
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])

def given_and_asked(rows):
    width = max(len(row) for row in rows) + 1
"""
_COUNT = """
def weights(c):
    d, f = c.d_model, c.d_ff
    attention, norm = 4 * d * d + 4 * d, 2 * d
    feed = 2 * d * f + f + d
"""
_SEARCH = """
import heapq
import itertools

"""
_LAWS = """
import torch

def same(a, b):
    return torch.allclose(a, b, atol=1e-4)

def draw(make, n):
    return torch.randint(3, 10, (3, n), generator=make)

"""

MUTANTS = {
    "translation.given-and-asked": {
        "not-shifted": (
            _TABLES
            + """
    asked = pad([[*row, 2] for row in rows], width)
    return asked, asked
""",
            r"very word that it is asked for",
        ),
        "no-start": (
            _TABLES
            + """
    asked = pad([[*row, 2] for row in rows], width)
    return pad(rows, width), asked
""",
            r"no start token",
        ),
        "no-end": (
            _TABLES
            + """
    given = pad([[1, *row] for row in rows], width)
    return given, pad(rows, width)
""",
            r"cannot stop",
        ),
        "exchanged": (
            _TABLES
            + """
    given = pad([[1, *row] for row in rows], width)
    return pad([[*row, 2] for row in rows], width), given
""",
            r"exchanged",
        ),
        "end-behind-the-padding": (
            _TABLES
            + """
    given = pad([[1, *row] for row in rows], width)
    asked = pad(rows, width - 1)
    end = torch.full((len(rows), 1), 2)
    return given, torch.cat([asked, end], 1)
""",
            r"behind the padding",
        ),
        "padded-on-the-left": (
            """
import torch

def given_and_asked(rows):
    width = max(len(row) for row in rows) + 1
    def left(rows):
        return torch.tensor([[0] * (width - len(r)) + r for r in rows])
    return left([[1, *r] for r in rows]), left([[*r, 2] for r in rows])
""",
            r"on the right",
        ),
        "floats": (
            """
import torch

def given_and_asked(rows):
    width = max(map(len, rows)) + 2
    full = torch.zeros(len(rows), width)
    for i, row in enumerate(rows):
        full[i, : len(row) + 2] = torch.tensor([1, *row, 2])
    return full[:, :-1], full[:, 1:]
""",
            r"Ids are int64",
        ),
        "lists": (
            """
def given_and_asked(rows):
    width = max(map(len, rows)) + 1
    given = [[1, *r, *[0] * (width - 1 - len(r))] for r in rows]
    return given, [[*r, 2, *[0] * (width - 1 - len(r))] for r in rows]
""",
            r"must be a tensor",
        ),
        "cut-to-the-shortest": (
            """
import torch

def given_and_asked(rows):
    width = min(map(len, rows)) + 2
    full = torch.tensor([[1, *row, 2][:width] for row in rows])
    return full[:, :-1], full[:, 1:]
""",
            r"Expected shape",
        ),
        "sorted-by-length": (
            _TABLES
            + """
    rows = sorted(rows, key=len)
    given = pad([[1, *row] for row in rows], width)
    return given, pad([[*row, 2] for row in rows], width)
""",
            r"entries differ",
        ),
    },
    "translation.count": {
        "one-attention-in-the-decoder": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"two attentions",
        ),
        "two-norms-in-the-decoder": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 2 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"three norms",
        ),
        "last-norms-always": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm
""",
            r"post-norm there is no norm",
        ),
        "no-last-norms": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d
""",
            r"pre-norm there is a last norm",
        ),
        "never-tied": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + 2 * c.target_vocab
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"count it once",
        ),
        "no-biases": (
            """
def weights(c):
    d, f = c.d_model, c.d_ff
    attention, norm, feed = 4 * d * d, 2 * d, 2 * d * f
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"biases are missing",
        ),
        "builds-the-model": (
            """
from litformer.seq2seq import Seq2Seq

def weights(c):
    return sum(p.numel() for p in Seq2Seq(c).parameters())
""",
            r"activation|dropout",
        ),
        "one-table-for-both": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"a table each",
        ),
        "one-last-norm": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + norm * c.norm_first
""",
            r"a last norm in each",
        ),
        "stacks-of-one-depth": (
            _COUNT
            + """
    n = c.n_encoder_layers
    encoder = n * (attention + feed + 2 * norm)
    decoder = n * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"need not have the same depth",
        ),
        "four-times-the-width": (
            _COUNT.replace("c.d_ff", "4 * c.d_model")
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"is d_ff, not 4 d_model",
        ),
        "each-head-at-full-width": (
            _COUNT
            + """
    attention *= c.n_heads
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 2 * norm * c.norm_first
""",
            r"Heads share the width",
        ),
        "a-float": (
            _COUNT
            + """
    encoder = c.n_encoder_layers * (attention + feed + 2 * norm)
    decoder = c.n_decoder_layers * (2 * attention + feed + 3 * norm)
    tables = c.source_vocab + c.target_vocab * (1 if c.tie_embeddings else 2)
    return encoder + decoder + tables * d + 4 * d * c.norm_first / 1
""",
            r"as int",
        ),
    },
    "translation.garden-path": {
        "the-path-of-the-chapter": (
            """
def garden():
    rest = {"A": 0.05, "B": 0.05, ".": 0.9}
    return {
        "": {"A": 0.6, "B": 0.4, ".": 0.0},
        "A": {"A": 0.35, "B": 0.35, ".": 0.3},
        "B": rest, "AA": rest, "AB": rest, "BA": rest, "BB": rest,
    }
""",
            r"found by a beam of two already",
        ),
        "greedy-is-right": (
            """
def garden():
    sure = {"A": 0.8, "B": 0.1, ".": 0.1}
    return {k: dict(sure) for k in ["", "A", "B", "AA", "AB", "BA", "BB"]}
""",
            r"found by greedy decoding already",
        ),
        "does-not-sum-to-one": (
            """
def garden():
    row = {"A": 0.6, "B": 0.6, ".": 0.1}
    return {k: dict(row) for k in ["", "A", "B", "AA", "AB", "BA", "BB"]}
""",
            r"sum to 1",
        ),
        "too-close": (
            """
def garden():
    unsure = {"A": 0.7, "B": 0.2, ".": 0.1}
    return {
        "": {"A": 0.6, "B": 0.4, ".": 0.0},
        "A": {"A": 0.5, "B": 0.5, ".": 0.0},
        "B": {"A": 0.3, "B": 0.7, ".": 0.0},
        "AA": unsure, "AB": unsure, "BA": unsure,
        "BB": {"A": 0.0, "B": 0.0, ".": 1.0},
    }
""",
            r"not by a factor",
        ),
        "forgot-a-beginning": (
            """
def garden():
    row = {"A": 0.6, "B": 0.3, ".": 0.1}
    return {k: dict(row) for k in ["", "A", "B"]}
""",
            r"seven beginnings",
        ),
        "nan": (
            """
def garden():
    row = dict.fromkeys("AB.", float("nan"))
    return {k: dict(row) for k in ["", "A", "B", "AA", "AB", "BA", "BB"]}
""",
            r"sum to 1",
        ),
        "per-cent": (
            """
def garden():
    row = {"A": 40, "B": 30, ".": 30}
    return {k: dict(row) for k in ["", "A", "B", "AA", "AB", "BA", "BB"]}
""",
            r"sum to 1",
        ),
        "the-best-ends-at-once": (
            """
def garden():
    rest = {"A": 0.34, "B": 0.33, ".": 0.33}
    table = {k: rest for k in ["A", "B", "AA", "AB", "BA", "BB"]}
    return table | {"": {"A": 0.3, "B": 0.2, ".": 0.5}}
""",
            r"found by greedy decoding already",
        ),
    },
    "translation.exact-search": {
        "greedy": (
            """
def best_text(log_probs, end, length):
    score, text = 0.0, ()
    while len(text) < length and text[-1:] != (end,):
        step = log_probs(text)
        token = max(step, key=step.get)
        score, text = score + step[token], (*text, token)
    return text, score
""",
            r"greedy decoding finds",
        ),
        "the-first-that-is-complete": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        for token, extra in log_probs(text).items():
            new = (cost - extra, (*text, token))
            if token == end or len(new[1]) == length:
                return new[1], -new[0]
            heapq.heappush(heap, new)
""",
            r"likelier",
        ),
        "asks-again-and-again": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (end,):
            return text, -cost
        for token in log_probs(text):
            for _ in range(4):
                extra = log_probs(text)[token]
            heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"was asked .* times",
        ),
        "forgets-texts-that-are-cut-off": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while heap:
        cost, text = heapq.heappop(heap)
        if text[-1:] == (end,):
            return text, -cost
        if len(text) < length:
            for token, extra in log_probs(text).items():
                heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"cut off",
        ),
        "a-positive-score": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (end,):
            return text, cost
        for token, extra in log_probs(text).items():
            heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"log-probability",
        ),
        "wide-beam": (
            """
def best_text(log_probs, end, length):
    living, done = [(0.0, ())], []
    for _ in range(length):
        grown = [(s + e, (*text, token)) for s, text in living
                 for token, e in log_probs(text).items()]
        done += [g for g in grown if g[1][-1] == end]
        living = sorted((g for g in grown if g[1][-1] != end), reverse=True)
        living = living[:200]
    score, text = max(done + living)
    return text, score
""",
            r"A beam forgets",
        ),
        "greedy-when-it-gets-long": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (end,):
            return text, -cost
        after = list(log_probs(text).items())
        if length > 4:
            after = [max(after, key=lambda item: item[1])]
        for token, extra in after:
            heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"greedy decoding finds",
        ),
        "a-dot-is-always-the-end": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (".",):
            return text, -cost
        for token, extra in log_probs(text).items():
            heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"text that has ended",
        ),
        "best-mean": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, 0.0, ())]
    while True:
        _, cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (end,):
            return text, -cost
        for token, extra in log_probs(text).items():
            new = cost - extra, (*text, token)
            heapq.heappush(heap, (new[0] / len(new[1]), *new))
""",
            r"There is a likelier text",
        ),
        "a-probability": (
            _SEARCH
            + """
import math

def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (end,):
            return text, math.exp(-cost)
        for token, extra in log_probs(text).items():
            heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"a sum, and below zero",
        ),
        "a-list": (
            _SEARCH
            + """
def best_text(log_probs, end, length):
    heap = [(0.0, ())]
    while True:
        cost, text = heapq.heappop(heap)
        if len(text) == length or text[-1:] == (end,):
            return list(text), -cost
        for token, extra in log_probs(text).items():
            heapq.heappush(heap, (cost - extra, (*text, token)))
""",
            r"as a tuple",
        ),
        "really-everything": (
            """
def best_text(log_probs, end, length):
    def best(text, score):
        if len(text) == length or text[-1:] == (end,):
            return score, text
        return max(best((*text, token), score + extra)
                   for token, extra in log_probs(text).items())
    score, text = best((), 0.0)
    return text, score
""",
            r"more than 20,000 times",
        ),
    },
    "translation.several-references": {
        "adds-the-references": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1))
    most = sum((runs(r) for r in references), Counter())
    said = runs(hypothesis)
    return (said & most).total(), said.total()
""",
            r"added up",
        ),
        "not-clipped": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return [tuple(w[i:i + n]) for i in range(len(w) - n + 1)]
    known = {run for r in references for run in runs(r)}
    said = runs(hypothesis)
    return sum(run in known for run in said), len(said)
""",
            r"Without clipping",
        ),
        "the-best-reference": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1))
    said = runs(hypothesis)
    shared = max((said & runs(r)).total() for r in references)
    return shared, said.total()
""",
            r"choose its own|first reference",
        ),
        "in-all-references": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1))
    said = most = runs(hypothesis)
    for r in references:
        most = most & runs(r)
    return (said & most).total(), said.total()
""",
            r"need not be in all",
        ),
        "sets": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return [tuple(w[i:i + n]) for i in range(len(w) - n + 1)]
    known = {run for r in references for run in runs(r)}
    said = runs(hypothesis)
    return len(set(said) & known), len(said)
""",
            r"forgets how often|one reference",
        ),
        "divides-by-the-reference": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1))
    most = Counter()
    for r in references:
        most |= runs(r)
    return (runs(hypothesis) & most).total(), most.total()
""",
            r"All runs of the hypothesis",
        ),
        "words-without-borders": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter("".join(w[i:i + n]) for i in range(len(w) - n + 1))
    most = Counter()
    for r in references:
        most |= runs(r)
    said = runs(hypothesis)
    return (said & most).total(), said.total()
""",
            r"shared runs",
        ),
        "one-long-reference": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1))
    said = runs(hypothesis)
    both = runs([word for r in references for word in r])
    return (said & both).total(), said.total()
""",
            r"across the seams|added up|shared runs",
        ),
        "any-order": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(frozenset(w[i:i + n]) for i in range(len(w) - n + 1))
    most = Counter()
    for r in references:
        most |= runs(r)
    said = runs(hypothesis)
    return (said & most).total(), said.total()
""",
            r"in this order",
        ),
        "fewer-than-no-runs": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    def runs(w):
        return Counter(tuple(w[i:i + n]) for i in range(len(w) - n + 1))
    most = Counter()
    for r in references:
        most |= runs(r)
    return (runs(hypothesis) & most).total(), len(hypothesis) - n + 1
""",
            r"shorter than n has none",
        ),
        "all-lengths-up-to-n": (
            """
from collections import Counter

def clipped(hypothesis, references, n):
    shared = every = 0
    for k in range(1, n + 1):
        def runs(w):
            return Counter(tuple(w[i:i + k]) for i in range(len(w) - k + 1))
        most = Counter()
        for r in references:
            most |= runs(r)
        shared += (runs(hypothesis) & most).total()
        every += runs(hypothesis).total()
    return shared, every
""",
            r"Expected 0, got",
        ),
    },
    "translation.which-law": {
        "says-nothing": (
            """
def broken(model):
    return set()
""",
            r"breaks causality, and passed",
        ),
        "looks-at-the-last-place-only": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    for _ in range(20):
        source, target = draw(make, 6), draw(make, 4)
        out = model(source, target)
        mixed = target.clone()
        mixed[:, -1] = (mixed[:, -1] - 2) % 7 + 3
        if not same(model(source, mixed)[:, :-1], out[:, :-1]):
            found.add("causality")
        for n in (1, 2, 5):
            padded = torch.cat([source, source.new_zeros(3, n)], 1)
            if not same(model(padded, target), out):
                found.add("padding")
        for b in range(3):
            alone = model(source[b:b + 1], target[b:b + 1])
            if not same(alone, out[b:b + 1]):
                found.add("batch")
    return found
""",
            r"breaks causality, and passed",
        ),
        "compares-the-future-too": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    source, target, other = draw(make, 6), draw(make, 7), draw(make, 7)
    out = model(source, target)
    mixed = torch.cat([target[:, :3], other[:, 3:]], 1)
    if not same(model(source, mixed), out):
        found.add("causality")
    return found
""",
            r"obeys causality, and was accused",
        ),
        "one-place-of-padding": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    for _ in range(20):
        source, target = draw(make, 6), draw(make, 7)
        other, out = draw(make, 7), model(source, target)
        for t in range(1, 7):
            mixed = torch.cat([target[:, :t], other[:, t:]], 1)
            if not same(model(source, mixed)[:, :t], out[:, :t]):
                found.add("causality")
        padded = torch.cat([source, source.new_zeros(3, 1)], 1)
        if not same(model(padded, target), out):
            found.add("padding")
    return found
""",
            r"breaks padding, and passed",
        ),
        "the-first-row-only": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    for _ in range(20):
        source, target = draw(make, 6), draw(make, 7)
        other, out = draw(make, 7), model(source, target)
        for t in range(1, 7):
            mixed = torch.cat([target[:, :t], other[:, t:]], 1)
            if not same(model(source, mixed)[:, :t], out[:, :t]):
                found.add("causality")
        for n in (1, 2, 5):
            padded = torch.cat([source, source.new_zeros(3, n)], 1)
            if not same(model(padded, target), out):
                found.add("padding")
        if not same(model(source[:1], target[:1]), out[:1]):
            found.add("batch")
    return found
""",
            r"breaks batch, and passed",
        ),
        "bit-for-bit-on-a-shorter-target": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    source, target = draw(make, 6), draw(make, 7)
    out = model(source, target)
    if not same(model(source[:2], target[:2, :3]), out[:2, :3]):
        found.add("causality")
    return found
""",
            r"obeys causality, and was accused|breaks",
        ),
        "to-the-last-bit": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    for _ in range(20):
        source, target = draw(make, 6), draw(make, 7)
        other, out = draw(make, 7), model(source, target)
        for t in range(1, 7):
            mixed = torch.cat([target[:, :t], other[:, t:]], 1)
            if not torch.equal(model(source, mixed)[:, :t], out[:, :t]):
                found.add("causality")
    return found
""",
            r"up to rounding",
        ),
        "one-batch": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    source, target, other = draw(make, 6), draw(make, 7), draw(make, 7)
    out = model(source, target)
    for t in range(1, 7):
        mixed = torch.cat([target[:, :t], other[:, t:]], 1)
        if not same(model(source, mixed)[:, :t], out[:, :t]):
            found.add("causality")
    for n in (1, 2, 5):
        padded = torch.cat([source, source.new_zeros(3, n)], 1)
        if not same(model(padded, target), out):
            found.add("padding")
    for b in range(3):
        if not same(model(source[b:b + 1], target[b:b + 1]), out[b:b + 1]):
            found.add("batch")
    return found
""",
            r"on many random batches",
        ),
        "padding-on-the-left": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    source, target = draw(make, 6), draw(make, 7)
    padded = torch.cat([source.new_zeros(3, 2), source], 1)
    if not same(model(padded, target), model(source, target)):
        found.add("padding")
    return found
""",
            r"obeys padding, and was accused",
        ),
        "another-order-of-the-rows": (
            _LAWS
            + """
def broken(model):
    found, make = set(), torch.Generator().manual_seed(0)
    for _ in range(20):
        source, target = draw(make, 6), draw(make, 7)
        other, out = draw(make, 7), model(source, target)
        for t in range(1, 7):
            mixed = torch.cat([target[:, :t], other[:, t:]], 1)
            if not same(model(source, mixed)[:, :t], out[:, :t]):
                found.add("causality")
        for n in (1, 2, 5):
            padded = torch.cat([source, source.new_zeros(3, n)], 1)
            if not same(model(padded, target), out):
                found.add("padding")
        turned = model(source.flip(0), target.flip(0)).flip(0)
        if not same(turned, out):
            found.add("batch")
    return found
""",
            r"breaks batch, and passed",
        ),
    },
}
