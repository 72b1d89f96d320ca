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
    },
}
