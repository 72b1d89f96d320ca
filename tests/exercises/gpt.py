"""Wrong answers to the exercises of chapters/gpt.md, as people give them.

id -> name of the mistake -> (code instead of the solution, what must be said).
"""


def _best(key, value):
    return f"""
import math

def best(reports, characters):
    name = min(reports, key=lambda n: {key})
    mean, tokens = reports[name]
    return name, {value}
"""


_SUM = "reports[n][0] * reports[n][1]"
_BITS = "mean * tokens / math.log(2) / characters"


def _rows(body):
    return f"def rows(ids, length):\n{body}"


def _parameters(formula):
    return f"""
def parameters(vocab_size, d_model, n_layers, n_heads, n_kv_heads, d_ff, tied):
    v, d, n, f = vocab_size, d_model, n_layers, d_ff
    kv = d // n_heads * n_kv_heads
    tables = v * d * (1 if tied else 2)
    return {formula}
"""


def _min_p(body):
    return f"import math\nimport torch\n\ndef keep_min_p(logits, p):\n{body}"


def _constrain(body):
    return f"""
import math
import torch
from litformer import tales

def constrain(logits, words):
    allowed = tales.next_words(words)
    kept = torch.tensor([word in allowed for word in tales.VOCABULARY])
{body}
"""


def _leaks(body):
    return f"import torch\n\n@torch.no_grad()\ndef leaks(model, ids):\n{body}"


def _q4_0(body):
    return f"""
import torch

def decode_q4_0(data):
    blocks = data.unflatten(1, (-1, 18))
    d = blocks[..., :2].contiguous().view(torch.float16).float()
    low, high = blocks[..., 2:] & 15, blocks[..., 2:] >> 4
    q = torch.cat([low, high], dim=-1)
{body}
"""


MUTANTS = {
    "gpt.one-text": {
        "smallest-loss-per-token": (
            _best("reports[n][0]", _BITS),
            "less surprised by the text",
        ),
        "nats": (
            _best(_SUM, "mean * tokens / characters"),
            "These are nats",
        ),
        "bits-per-token": (
            _best(_SUM, "mean / math.log(2)"),
            "Bits for each token",
        ),
        "times-ln-2": (
            _best(_SUM, "mean * tokens * math.log(2) / characters"),
            "division by ln 2",
        ),
        "fewest-tokens": (
            _best("reports[n][1]", _BITS),
            "Multiply each mean|less surprised",
        ),
        "perplexity": (
            _best(_SUM, "math.exp(mean)"),
            "perplexity of a token",
        ),
        "decimal-digits": (
            _best(_SUM, "mean * tokens / math.log(10) / characters"),
            "ln 10 belongs to",
        ),
        "bits-before-the-name": (
            """
import math

def best(reports, characters):
    bits = [(m * t / math.log(2) / characters, n)
            for n, (m, t) in reports.items()]
    return min(bits)
""",
            "The name comes first",
        ),
    },
    "gpt.cut-into-rows": {
        "cut-first": (
            _rows(
                "    n = len(ids) // length * length\n"
                "    x = ids[:n].view(-1, length)\n"
                "    return x[:, :-1], x[:, 1:]\n"
            ),
            "shape",
        ),
        "no-shift": (
            _rows(
                "    n = (len(ids) - 1) // length * length\n"
                "    x = ids[:n].view(-1, length)\n    return x, x\n"
            ),
            "copies would be perfect",
        ),
        "wrong-way": (
            _rows(
                "    n = (len(ids) - 1) // length * length\n"
                "    return (ids[1 : n + 1].view(-1, length), "
                "ids[:n].view(-1, length))\n"
            ),
            "token before",
        ),
        "rows-lose-their-last-target": (
            _rows(
                "    x = ids.unfold(0, length + 1, length + 1)\n"
                "    n = (len(ids) - 1) // length\n"
                "    x = torch.cat([x, x])[:n]\n"
                "    return x[:, :-1], x[:, 1:]\n"
            ).replace("def rows", "import torch\n\ndef rows"),
            "never a target",
        ),
        "columns": (
            _rows(
                "    n = (len(ids) - 1) // length * length\n"
                "    return (ids[:n].view(length, -1).T, "
                "ids[1 : n + 1].view(length, -1).T)\n"
            ),
            "order of the text|differ|expected",
        ),
        "floats": (
            _rows(
                "    n = (len(ids) - 1) // length * length\n"
                "    x, y = ids[:n].float(), ids[1 : n + 1].float()\n"
                "    return x.view(-1, length), y.view(-1, length)\n"
            ),
            "tensor of ids",
        ),
        "round-the-corner": (
            _rows(
                "    n = len(ids) // length * length\n"
                "    return (ids[:n].view(-1, length), "
                "ids.roll(-1)[:n].view(-1, length))\n"
            ),
            "20 tokens are 19 questions",
        ),
        "turned-in-each-row": (
            _rows(
                "    n = (len(ids) - 1) // length * length\n"
                "    x = ids[:n].view(-1, length)\n"
                "    return x, x.roll(-1, 1)\n"
            ),
            "never a target",
        ),
        "one-row-too-few": (
            _rows(
                "    n = (len(ids) - 2) // length * length\n"
                "    return (ids[:n].view(-1, length), "
                "ids[1 : n + 1].view(-1, length))\n"
            ),
            "17 tokens are 16 questions",
        ),
    },
    "gpt.count": {
        "no-final-norm": (
            _parameters("tables + n * (2*d*d + 2*d*kv + 3*d*f + 2*d)"),
            "norm behind the last block",
        ),
        "full-keys": (
            _parameters("tables + n * (4*d*d + 3*d*f + 2*d) + d"),
            "n_kv_heads heads",
        ),
        "two-matrices": (
            _parameters("tables + n * (2*d*d + 2*d*kv + 2*d*f + 2*d) + d"),
            "three matrices",
        ),
        "head-twice": (
            _parameters("2*v*d + n * (2*d*d + 2*d*kv + 3*d*f + 2*d) + d"),
            "count it once",
        ),
        "head-never": (
            _parameters("v*d + n * (2*d*d + 2*d*kv + 3*d*f + 2*d) + d"),
            "weights of its own",
        ),
        "biases": (
            _parameters(
                "tables + n * (2*d*d + 2*d*kv + 3*d*f + 4*d + 2*kv) + d"
            ),
            "no biases",
        ),
        "a-float": (
            _parameters(
                "tables + n * (2*d*d + 2*d*(d/n_heads*n_kv_heads)"
                " + 3*d*f + 2*d) + d"
            ),
            "as int",
        ),
        "norms-with-a-bias": (
            _parameters("tables + n * (2*d*d + 2*d*kv + 3*d*f + 4*d) + 2*d"),
            "gain for each channel",
        ),
        "one-norm-in-a-block": (
            _parameters("tables + n * (2*d*d + 2*d*kv + 3*d*f + d) + d"),
            "A block has two norms",
        ),
        "narrow-output": (
            _parameters("tables + n * (d*d + 3*d*kv + 3*d*f + 2*d) + d"),
            "as wide as that of the queries",
        ),
        "tied-the-other-way-round": (
            _parameters(
                "v*d*(2 if tied else 1)"
                " + n * (2*d*d + 2*d*kv + 3*d*f + 2*d) + d"
            ),
            "count it once",
        ),
    },
    "gpt.min-p": {
        "absolute": (
            _min_p(
                "    low = logits.softmax(-1) < p\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "p times the best one",
        ),
        "ratio-of-logits": (
            _min_p(
                "    low = logits < p * logits.amax(-1, keepdim=True)\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "no ratio",
        ),
        "best-of-all-rows": (
            _min_p(
                "    q = logits.softmax(-1)\n"
                "    return logits.masked_fill(q < p * q.max(), -math.inf)\n"
            ),
            "best of all rows",
        ),
        "probabilities": (
            _min_p(
                "    q = logits.softmax(-1)\n"
                "    low = q < p * q.amax(-1, keepdim=True)\n"
                "    return q.masked_fill(low, -math.inf)\n"
            ),
            "These are probabilities",
        ),
        "the-second-axis": (
            _min_p(
                "    q = logits.softmax(1)\n"
                "    low = q < p * q.amax(1, keepdim=True)\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "IndexError",
        ),
        "the-last-but-one-axis": (
            _min_p(
                "    if logits.ndim == 1:\n        logits = logits[None]\n"
                "    q = logits.softmax(-2)\n"
                "    low = q < p * q.amax(-2, keepdim=True)\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "largest along the last axis",
        ),
        "not-even-the-best": (
            _min_p(
                "    q = logits.softmax(-1)\n"
                "    low = q <= p * q.amax(-1, keepdim=True)\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "includes equality",
        ),
        "overflows": (
            _min_p(
                "    q = logits.exp()\n"
                "    low = q < p * q.amax(-1, keepdim=True)\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "infinite in fp32",
        ),
        "log-probabilities": (
            _min_p(
                "    q = logits.log_softmax(-1)\n"
                "    low = q < q.amax(-1, keepdim=True) + math.log(p)\n"
                "    return q.masked_fill(low, -math.inf)\n"
            ),
            "come back as they were",
        ),
        "p-as-a-difference": (
            _min_p(
                "    low = logits < logits.amax(-1, keepdim=True) - p\n"
                "    return logits.masked_fill(low, -math.inf)\n"
            ),
            "was cut. It is",
        ),
        "zero": (
            _min_p(
                "    q = logits.softmax(-1)\n"
                "    low = q < p * q.amax(-1, keepdim=True)\n"
                "    return logits.masked_fill(low, 0.0)\n"
            ),
            "minus infinity",
        ),
    },
    "gpt.constrained": {
        "the-other-way": (
            _constrain("    return logits.masked_fill(kept, -math.inf)"),
            "allowed words were cut",
        ),
        "zero": (
            _constrain("    return logits.masked_fill(~kept, 0.0)"),
            "minus infinity",
        ),
        "no-mark": (
            _constrain(
                "    kept[0] = False\n"
                "    return logits.masked_fill(~kept, -math.inf)"
            ),
            "Nothing may come next",
        ),
        "ignores-the-words": (
            _constrain(
                "    first = tales.next_words([])\n"
                "    kept = torch.tensor("
                "[w in first for w in tales.VOCABULARY])\n"
                "    return logits.masked_fill(~kept, -math.inf)"
            ),
            "The grammar does not allow 'long' here",
        ),
        "the-best-word-only": (
            _constrain(
                "    kept = logits.masked_fill(~kept, -math.inf)\n"
                "    return kept.masked_fill(kept < kept.max(), -math.inf)"
            ),
            "The grammar allows",
        ),
        "a-large-number": (
            _constrain("    return logits.masked_fill(~kept, -1e4)"),
            "The grammar does not allow",
        ),
        "allowed-ones-alone": (
            _constrain("    return logits[kept]"),
            "Expected shape",
        ),
        "true-probabilities": (
            _constrain(
                "    p = [allowed.get(w, 0.0) for w in tales.VOCABULARY]\n"
                "    return torch.tensor(p).log()"
            ),
            "expected",
        ),
    },
    "gpt.find-the-leak": {
        "last-token-only": (
            _leaks(
                "    other = ids.clone()\n"
                "    other[0, -1] = (other[0, -1] + 1) % 31\n"
                "    a, b = model(ids), model(other)\n"
                "    return bool((a - b)[0, :-1].abs().max() > 1e-5)\n"
            ),
            "A cheat passes: it sees, at one place in the middle",
        ),
        "winners-only": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % 31\n"
                "        b = model(other)\n"
                "        if (a.argmax(-1) != b.argmax(-1))[0, :t].any():\n"
                "            return True\n"
                "    return False\n"
            ),
            "A cheat passes",
        ),
        "one-step-only": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % 31\n"
                "        d = (model(other) - a)[0, t - 1].abs().max()\n"
                "        if d > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "first place only|five places ahead",
        ),
        "own-place-too": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % 31\n"
                "        d = (model(other) - a)[0, : t + 1].abs().max()\n"
                "        if d > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "An honest model is accused",
        ),
        "too-tolerant": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % 31\n"
                "        if (model(other) - a)[0, :t].abs().max() > 0.1:\n"
                "            return True\n"
                "    return False\n"
            ),
            "very faintly",
        ),
        "to-the-last-bit": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % a.shape[-1]\n"
                "        if not torch.equal(model(other)[:, :t], a[:, :t]):\n"
                "            return True\n"
                "    return False\n"
            ),
            "accused: a running mean that is rounded",
        ),
        "thirty-one-by-heart": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % 31\n"
                "        if (model(other) - a)[0, :t].abs().max() > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "IndexError",
        ),
        "eleven-places-by-heart": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, min(11, ids.shape[1])):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % a.shape[-1]\n"
                "        if (model(other) - a)[0, :t].abs().max() > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "first place only, the last token",
        ),
        "zero-in-place-of-a-token": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = 0\n"
                "        if (model(other) - a)[0, :t].abs().max() > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "to another one",
        ),
        "upwards-only": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        other = ids.clone()\n"
                "        other[0, t] = (other[0, t] + 1) % a.shape[-1]\n"
                "        if (model(other) - a)[0, :t].max() > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "lowers its logits",
        ),
        "writes-into-the-text": (
            _leaks(
                "    a = model(ids)\n"
                "    for t in range(1, ids.shape[1]):\n"
                "        ids[0, t] = (ids[0, t] + 1) % a.shape[-1]\n"
                "        if (model(ids) - a)[0, :t].abs().max() > 1e-5:\n"
                "            return True\n"
                "    return False\n"
            ),
            "changes its argument `ids` in place",
        ),
    },
    "gpt.decode-q4-0": {
        "no-offset": (_q4_0("    return (d * q).flatten(1)"), "offset 8"),
        "uint8": (
            _q4_0("    return (d * (q - 8)).flatten(1)"),
            "251",
        ),
        "alternating": (
            _q4_0(
                "    q = torch.stack([low, high], -1).flatten(-2).float()\n"
                "    return (d * (q - 8)).flatten(1)"
            ),
            "alternate",
        ),
        "high-first": (
            _q4_0(
                "    q = torch.cat([high, low], -1).float()\n"
                "    return (d * (q - 8)).flatten(1)"
            ),
            "changed places",
        ),
        "offset-unscaled": (
            _q4_0("    return (d * q - 8).flatten(1)"),
            "not d q - 8",
        ),
        "sixteen-bits": (
            _q4_0("    return (d.half() * (q.half() - 8)).flatten(1)"),
            "Computed in 16 bits",
        ),
        "centred": (
            _q4_0("    return (d * (q - 7.5)).flatten(1)"),
            "not q - 7.5",
        ),
        "bfloat16": (
            _q4_0(
                "    d = blocks[..., :2].contiguous().view(torch.bfloat16)\n"
                "    return (d.float() * (q.float() - 8)).flatten(1)"
            ),
            "no bfloat16",
        ),
        "whole-number-scale": (
            _q4_0(
                "    d = blocks[..., :1] + 256.0 * blocks[..., 1:2]\n"
                "    return (d * (q.float() - 8)).flatten(1)"
            ),
            "no whole number",
        ),
        "bytes-of-d-exchanged": (
            _q4_0(
                "    d = blocks[..., :2].flip(-1).contiguous()\n"
                "    d = d.view(torch.float16).float()\n"
                "    return (d * (q.float() - 8)).flatten(1)"
            ),
            "low one comes first",
        ),
        "signed-shift": (
            _q4_0(
                "    packed = blocks[..., 2:].contiguous()\n"
                "    high = packed.view(torch.int8) >> 4\n"
                "    q = torch.cat([low.float(), high.float()], -1)\n"
                "    return (d * (q - 8)).flatten(1)"
            ),
            "drags the sign along",
        ),
        "blocks-not-joined": (
            _q4_0("    return d * (q.float() - 8)"),
            "It has 3 axes",
        ),
    },
    "gpt.most-probable": {
        "greedy": (
            """
from litformer import tales

def most_probable():
    words = []
    while tales.MARK not in (after := tales.next_words(words)):
        words.append(max(after, key=after.get))
    return words
""",
            "greedy tale",
        ),
        "any-tale": (
            """
import random
from litformer import tales

def most_probable():
    dice, words = random.Random(3), []
    while tales.MARK not in (after := tales.next_words(words)):
        words += dice.choices(list(after), after.values())
    return words
""",
            "more probable tale",
        ),
        "narrow-beam": (
            """
from litformer import tales

def most_probable():
    beam, done = [(1.0, [])], []
    while beam:
        grown = [(p * q, [*w, x]) for p, w in beam
                 for x, q in tales.next_words(w).items()]
        done += [(p, w) for p, w in grown if tales.MARK in w]
        grown = [(p, w) for p, w in grown if tales.MARK not in w]
        beam = sorted(grown, key=lambda g: -g[0])[:4]
    return max(done)[1]
""",
            "more probable tale",
        ),
        "not-to-the-end": (
            """
def most_probable():
    return "once upon a time there was a big fox".split()
""",
            "no tale",
        ),
        "a-lucky-draw": (
            """
import random
from litformer import tales

def most_probable():
    drawn = (tales.tell(random.Random(i)) for i in range(1000))
    return max(drawn, key=lambda tale: sum(tale.log_probs)).words
""",
            "A lucky draw proves nothing",
        ),
        "the-least-probable-words": (
            """
from litformer import tales

def most_probable():
    words = []
    while tales.MARK not in (after := tales.next_words(words)):
        words.append(min(after, key=after.get))
    return words
""",
            "more probable tale",
        ),
        "ids": (
            """
def most_probable():
    return [1, 2, 3]
""",
            "list of words",
        ),
    },
}
