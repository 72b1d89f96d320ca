"""Wrong answers to the exercises of chapters/bert.md, as people give.

id -> name of the mistake -> (code instead of the solution, what must be said).
"""


def _shares(formula):
    return f"def shares(rate, n_words):\n    return {formula}\n"


def _count(formula):
    return (
        "def parameters(vocab_size, max_len, d_model, n_layers, d_ff, "
        "n_segments):\n    v, n, d, f = vocab_size, max_len, d_model, d_ff\n"
        "    tables = (v + n + n_segments) * d + 2 * d\n"
        "    block = 4 * (d * d + d) + 2 * d * f + f + d + 4 * d\n"
        "    head = d * d + d + 2 * d + v\n"
        f"    return {formula}\n"
    )


def _judge(body):
    return f"import torch\n\ndef judge(predict, tokens, mask_id):\n{body}"


def _words(body):
    return f"import torch\n\ndef whole_words(chosen, continues):\n{body}"


def _killer(hidden, real):
    return f"""
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    noise = torch.rand(2, 5, 3, generator=make)
    real = torch.tensor({real}).bool()
    hidden = {hidden}
    return hidden, real[:, None, None, :]
"""


_LEFT = "[[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]]"


def _contrastive(body):
    return (
        "import torch\nimport torch.nn.functional as F\n\n"
        f"def contrastive(a, b, temperature):\n{body}"
    )


def _long(windows="[*range(0, n - size, stride), n - size]", test="edge > b"):
    return f"""
import torch

def read_long(encode, tokens, size, stride):
    n = len(tokens)
    if n <= size:
        return encode(tokens[None])[0]
    starts = {windows}
    read = encode(torch.stack([tokens[s : s + size] for s in starts]))
    place = torch.arange(size)
    edge = torch.minimum(place, size - 1 - place)
    best, found = torch.full((n,), -1), read.new_zeros(n, read.shape[-1])
    for s, vectors in zip(starts, read, strict=True):
        b = best[s : s + size]
        better = {test}
        best[s : s + size][better] = edge[better]
        found[s : s + size][better] = vectors[better]
    return found
"""


MUTANTS = {
    "bert.shares": {
        "never-the-same-word": (
            _shares("(rate * 0.8, rate * 0.1, rate * 0.1)"),
            r"sometimes the old one",
        ),
        "shares-of-the-chosen": (
            _shares("(0.8, 0.1 * (1 - 1 / n_words), 0.1 + 0.1 / n_words)"),
            r"shares of all are asked for",
        ),
        "one-word-less": (
            _shares(
                "(rate * 0.8, rate * 0.1 * (1 - 1 / (n_words - 1)), "
                "rate * (0.1 + 0.1 / (n_words - 1)))"
            ),
            r"1 / n_words, not",
        ),
        "two-numbers": (_shares("(rate * 0.8, rate * 0.2)"), r"shape"),
        "one-number": (_shares("rate * 0.8"), r"Three numbers"),
        "sum-not-rate": (
            """
def shares(rate, n_words):
    return rate * 0.8, rate * 0.1, rate * 0.1 + rate * 0.1 / n_words
""",
            r"the second one loses",
        ),
        "constant-rate": (
            """
def shares(rate, n_words):
    return (
        0.15 * 0.8,
        0.15 * 0.1 * (1 - 1 / n_words),
        0.15 * (0.1 + 0.1 / n_words),
    )
""",
            r"rate=0\.4",
        ),
        "nan": (
            """
def shares(rate, n_words):
    return rate * 0.8, rate * 0.1 * (1 - 1 / n_words), float("nan")
""",
            r"holds NaN",
        ),
    },
    "bert.count": {
        "head-not-tied": (
            _count("tables + n_layers * block + head + v * d"),
            r"it counts once",
        ),
        "no-word-bias": (
            _count("tables + n_layers * block + head - v"),
            r"one bias for each word",
        ),
        "no-transform": (
            _count("tables + n_layers * block + v"),
            r"linear layer and a norm of its own",
        ),
        "no-embedding-norm": (
            _count("tables - 2 * d + n_layers * block + head"),
            r"normed too",
        ),
        "one-norm-in-a-block": (
            _count("tables + n_layers * (block - 2 * d) + head"),
            r"A block has two norms",
        ),
        "no-biases": (
            _count("tables + n_layers * (block - 5 * d - f) + head"),
            r"Linear layers have biases",
        ),
        "no-segments": (
            _count("tables - n_segments * d + n_layers * block + head"),
            r"table of segments",
        ),
        "float": (
            """
def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    d = d_model
    return float(
        (vocab_size + max_len + n_segments) * d
        + 2 * d
        + n_layers * (4 * d * d + 4 * d + 2 * d * d_ff + d_ff + d + 4 * d)
        + d * d
        + d
        + 2 * d
        + vocab_size
    )
""",
            r"its type is not",
        ),
        "builds": (
            """
from litformer.bert import *


def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    return sum(
        p.numel()
        for p in MaskedLM(
            BertConfig(
                vocab_size,
                max_len,
                d_model,
                n_layers,
                1,
                d_ff=d_ff,
                n_segments=n_segments,
            )
        ).parameters()
    )
""",
            r"use a formula",
        ),
        "two-segments": (
            """
def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    d = d_model
    return (
        (vocab_size + max_len + 2) * d
        + 2 * d
        + n_layers * (4 * d * d + 4 * d + 2 * d * d_ff + d_ff + d + 4 * d)
        + d * d
        + d
        + 2 * d
        + vocab_size
    )
""",
            r"There are n_segments segments",
        ),
        "no-positions": (
            """
def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    d = d_model
    return (
        (vocab_size + n_segments) * d
        + 2 * d
        + n_layers * (4 * d * d + 4 * d + 2 * d * d_ff + d_ff + d + 4 * d)
        + d * d
        + d
        + 2 * d
        + vocab_size
    )
""",
            r"table of places is missing",
        ),
        "last-norm": (
            """
def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    d = d_model
    return (
        (vocab_size + max_len + n_segments) * d
        + 2 * d
        + n_layers * (4 * d * d + 4 * d + 2 * d * d_ff + d_ff + d + 4 * d)
        + d * d
        + d
        + 2 * d
        + vocab_size
    ) + 2 * d
""",
            r"no last norm",
        ),
        "three-proj": (
            """
def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    d = d_model
    return (
        (vocab_size + max_len + n_segments) * d
        + 2 * d
        + n_layers * (3 * d * d + 3 * d + 2 * d * d_ff + d_ff + d + 4 * d)
        + d * d
        + d
        + 2 * d
        + vocab_size
    )
""",
            r"four projections",
        ),
        "ff-4d": (
            """
def parameters(vocab_size, max_len, d_model, n_layers, d_ff, n_segments):
    d = d_model
    d_ff = 4 * d
    return (
        (vocab_size + max_len + n_segments) * d
        + 2 * d
        + n_layers * (4 * d * d + 4 * d + 2 * d * d_ff + d_ff + d + 4 * d)
        + d * d
        + d
        + 2 * d
        + vocab_size
    )
""",
            r"d_ff wide",
        ),
    },
    "bert.judge": {
        "nothing-hidden": (
            _judge(
                "    logs = predict(tokens[None])[0].log_softmax(-1)\n"
                "    i = torch.arange(1, len(tokens) - 1)\n"
                "    return logs[i, tokens[i]].sum()\n"
            ),
            r"Nothing was hidden",
        ),
        "all-at-once": (
            _judge(
                "    hidden = tokens.clone()\n"
                "    hidden[1:-1] = mask_id\n"
                "    logs = predict(hidden[None])[0].log_softmax(-1)\n"
                "    i = torch.arange(1, len(tokens) - 1)\n"
                "    return logs[i, tokens[i]].sum()\n"
            ),
            r"hidden at once",
        ),
        "ends-too": (
            _judge(
                "    i = torch.arange(len(tokens))\n"
                "    hidden = tokens.repeat(len(i), 1)\n"
                "    hidden[i, i] = mask_id\n"
                "    logs = predict(hidden)[i, i].log_softmax(-1)\n"
                "    return logs[i, tokens].sum()\n"
            ),
            r"\[CLS\] and \[SEP\] were judged",
        ),
        "mean": (
            _judge(
                "    r = torch.arange(len(tokens) - 2)\n"
                "    hidden = tokens.repeat(len(r), 1)\n"
                "    hidden[r, r + 1] = mask_id\n"
                "    logs = predict(hidden)[r, r + 1].log_softmax(-1)\n"
                "    return logs[r, tokens[r + 1]].mean()\n"
            ),
            r"This is the mean",
        ),
        "logits": (
            _judge(
                "    r = torch.arange(len(tokens) - 2)\n"
                "    hidden = tokens.repeat(len(r), 1)\n"
                "    hidden[r, r + 1] = mask_id\n"
                "    return predict(hidden)[r, r + 1, tokens[r + 1]].sum()\n"
            ),
            r"no log-probabilities",
        ),
        "one-call-each": (
            _judge(
                "    total = 0\n"
                "    for i in range(1, len(tokens) - 1):\n"
                "        hidden = tokens.clone()\n"
                "        hidden[i] = mask_id\n"
                "        logs = predict(hidden[None])[0, i].log_softmax(-1)\n"
                "        total = total + logs[tokens[i]]\n"
                "    predict(tokens[None])\n"
                "    return total\n"
            ),
            r"called \d+ times",
        ),
        "mask-3": (
            """
import torch


def judge(predict, tokens, mask_id):
    rows = torch.arange(len(tokens) - 2)
    places = rows + 1
    hidden = tokens.repeat(len(rows), 1)
    hidden[rows, places] = 3
    logs = predict(hidden)[rows, places].log_softmax(-1)
    return logs[rows, tokens[places]].sum()
""",
            r"mask_id=0",
        ),
        "negative": (
            """
import torch


def judge(predict, tokens, mask_id):
    rows = torch.arange(len(tokens) - 2)
    places = rows + 1
    hidden = tokens.repeat(len(rows), 1)
    hidden[rows, places] = mask_id
    logs = predict(hidden)[rows, places].log_softmax(-1)
    return -logs[rows, tokens[places]].sum()
""",
            r"is what it costs",
        ),
        "cumulative-hide": (
            """
import torch


def judge(predict, tokens, mask_id):
    t = tokens.clone()
    rows = []
    for i in range(1, len(tokens) - 1):
        t[i] = mask_id
        rows.append(t.clone())
    out = predict(torch.stack(rows)).log_softmax(-1)
    return sum(out[k, k + 1, tokens[k + 1]] for k in range(len(rows)))
""",
            r"Begin anew",
        ),
        "shifted": (
            """
import torch


def judge(predict, tokens, mask_id):
    rows = torch.arange(len(tokens) - 2)
    places = rows + 1
    hidden = tokens.repeat(len(rows), 1)
    hidden[rows, places] = mask_id
    logs = predict(hidden)[rows, places - 1].log_softmax(-1)
    return logs[rows, tokens[places]].sum()
""",
            r"Expected -",
        ),
    },
    "bert.whole-words": {
        "any-piece": (
            _words(
                "    out = chosen.clone()\n"
                "    for b in range(len(chosen)):\n"
                "        word = (~continues[b]).cumsum(0)\n"
                "        for w in word.unique():\n"
                "            out[b, word == w] = chosen[b, word == w].any()\n"
                "    return out\n"
            ),
            r"if any piece was chosen",
        ),
        "one-back": (
            _words(
                "    before = chosen.roll(1, dims=1)\n"
                "    return torch.where(continues, before, chosen)\n"
            ),
            r"third piece must follow the first",
        ),
        "pieces-left-out": (
            _words("    return chosen & ~continues\n"),
            r"were left out",
        ),
        "unchanged": (
            _words("    return chosen.clone()\n"),
            r"Nothing has changed",
        ),
        "loops": (
            """
import torch


def whole_words(chosen, continues):
    out = chosen.clone()
    for b in range(len(out)):
        for t in range(1, out.shape[1]):
            if continues[b, t]:
                out[b, t] = out[b, t - 1]
    return out
""",
            r"there is a loop in it",
        ),
        "int": (
            """
import torch


def whole_words(chosen, continues):
    p = torch.arange(chosen.shape[1]).expand_as(chosen)
    b = p.masked_fill(continues, 0).cummax(1).values
    return chosen.gather(1, b).int()
""",
            r"dtype bool, got int32",
        ),
        "last-piece": (
            """
import torch


def whole_words(chosen, continues):
    out = chosen.clone()
    for t in range(out.shape[1] - 2, -1, -1):
        out[:, t] = torch.where(continues[:, t + 1], out[:, t + 1], out[:, t])
    return out
""",
            r"off|differ",
        ),
    },
    "bert.kill-the-poolings": {
        "positive-numbers": (
            _killer("1 + 4 * noise", _LEFT),
            r"4 \(a maximum",
        ),
        "padding-on-the-right": (
            _killer("-1 - 4 * noise", "[[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]]"),
            r"5 \(place 0\)",
        ),
        "no-padding": (
            _killer("-1 - 4 * noise", "[[1] * 5, [1] * 5]"),
            r"1 \(a mean over all places\)",
        ),
        "equal-texts": (
            _killer("-1 - 4 * noise", "[[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]]"),
            r"3 \(the first",
        ),
        "infinite": (
            _killer("torch.full((2, 5, 3), -torch.inf)", _LEFT),
            r"between -10 and 10",
        ),
        "an-empty-text": (
            _killer("-1 - 4 * noise", "[[0] * 5, [1, 1, 1, 1, 0]]"),
            r"at least one real token",
        ),
        "table-for-a-mask": (
            _killer("-1 - 4 * noise", _LEFT).replace(
                "real[:, None, None, :]", "real"
            ),
            r"shape",
        ),
        "nan": (
            """
import torch


def killer():
    h = torch.full((2, 3, 2), float("nan"))
    return h, torch.tensor([[1, 1, 0], [0, 1, 1]]).bool()[:, None, None]
""",
            r"between -10 and 10",
        ),
        "empty-batch": (
            """
import torch


def killer():
    return torch.zeros(0, 5, 3), torch.zeros(0, 1, 1, 5).bool()
""",
            r"hidden is empty",
        ),
        "one-text": (
            """
import torch


def killer():
    h = -1 - torch.rand(1, 5, 3)
    return h, torch.tensor([[0, 1, 1, 1, 0]]).bool()[:, None, None]
""",
            r"3 \(the first text",
        ),
    },
    "bert.contrastive": {
        "dot-products": (
            _contrastive(
                "    scores = a @ b.T / temperature\n"
                "    return F.cross_entropy(scores, torch.arange(len(a)))\n"
            ),
            r"not cosines",
        ),
        "times-temperature": (
            _contrastive(
                "    u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)\n"
                "    scores = u @ v.T * temperature\n"
                "    return F.cross_entropy(scores, torch.arange(len(a)))\n"
            ),
            r"temperature divides",
        ),
        "no-temperature": (
            _contrastive(
                "    u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)\n"
                "    return F.cross_entropy(u @ v.T, torch.arange(len(a)))\n"
            ),
            r"temperature is missing",
        ),
        "other-way-around": (
            _contrastive(
                "    u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)\n"
                "    scores = v @ u.T / temperature\n"
                "    return F.cross_entropy(scores, torch.arange(len(a)))\n"
            ),
            r"other way around",
        ),
        "partners-only": (
            _contrastive(
                "    u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)\n"
                "    return -(u * v).sum(-1).mean() / temperature\n"
            ),
            r"Only the partners",
        ),
        "sum": (
            _contrastive(
                "    u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)\n"
                "    scores = u @ v.T / temperature\n"
                "    right = torch.arange(len(a))\n"
                "    return F.cross_entropy(scores, right, reduction='sum')\n"
            ),
            r"This is the sum",
        ),
        "detached": (
            _contrastive(
                "    u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)\n"
                "    scores = (u @ v.T / temperature).detach()\n"
                "    return F.cross_entropy(scores, torch.arange(len(a)))\n"
            ),
            r"gradient got lost",
        ),
        "detach-b": (
            """
import torch, torch.nn.functional as F


def contrastive(a, b, temperature):
    return F.cross_entropy(
        F.normalize(a, dim=-1)
        @ F.normalize(b, dim=-1).detach().T
        / temperature,
        torch.arange(len(a)),
    )
""",
            r"b with gradients",
        ),
        "symmetric": (
            """
import torch, torch.nn.functional as F


def contrastive(a, b, temperature):
    c = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature
    t = torch.arange(len(a))
    return (F.cross_entropy(c, t) + F.cross_entropy(c.T, t)) / 2
""",
            r"in both directions",
        ),
        "no-partner-in-denominator": (
            """
import torch, torch.nn.functional as F


def contrastive(a, b, temperature):
    c = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature
    e = torch.eye(len(a)).bool()
    return (c.masked_fill(e, -torch.inf).logsumexp(-1) - c.diagonal()).mean()
""",
            r"one of the candidates",
        ),
        "per-text": (
            """
import torch, torch.nn.functional as F


def contrastive(a, b, temperature):
    return F.cross_entropy(
        F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature,
        torch.arange(len(a)),
        reduction="none",
    )
""",
            r"Expected shape \(\)",
        ),
        "float": (
            """
import torch, torch.nn.functional as F


def contrastive(a, b, temperature):
    return F.cross_entropy(
        F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature,
        torch.arange(len(a)),
    ).item()
""",
            r"gradient got lost",
        ),
    },
    "bert.long-text": {
        "first-window": (_long(test="b < 0"), r"from its first window"),
        "last-window": (_long(test="b < 99"), r"from its last window"),
        "later-of-equals": (_long(test="edge >= b"), r"earlier window"),
        "left-edge": (
            _long().replace("torch.minimum(place, size - 1 - place)", "place"),
            r"from its first window",
        ),
        "cut-at-the-end": (
            _long().replace("if n <= size:", "if False:"),
            r"Windows must have|shape",
        ),
        "average": (
            """
import torch


def read_long(encode, tokens, size, stride):
    n = len(tokens)
    if n <= size:
        return encode(tokens[None])[0]
    starts = [*range(0, n - size, stride), n - size]
    read = encode(torch.stack([tokens[s : s + size] for s in starts]))
    out, k = torch.zeros(n, read.shape[-1]), torch.zeros(n, 1)
    for s, v in zip(starts, read):
        out[s : s + size] += v
        k[s : s + size] += 1
    return out / k
""",
            r"11 tokens, size=5",
        ),
        "drops-tail": (
            """
import torch


def read_long(encode, tokens, size, stride):
    n = len(tokens)
    if n <= size:
        return encode(tokens[None])[0]
    starts = [*range(0, n - size + 1, stride)]
    read = encode(torch.stack([tokens[s : s + size] for s in starts]))
    place = torch.arange(size)
    edge = torch.minimum(place, size - 1 - place)
    best, found = torch.full((n,), -1), torch.zeros(n, read.shape[-1])
    for s, vectors in zip(starts, read, strict=True):
        better = edge > best[s : s + size]
        best[s : s + size][better] = edge[better]
        found[s : s + size][better] = vectors[better]
    return found
""",
            r"expected 108, got 0",
        ),
        "long-window": (
            """
def read_long(encode, tokens, size, stride):
    return encode(tokens[None])[0]
""",
            r"Windows must have 5 tokens",
        ),
    },
}
