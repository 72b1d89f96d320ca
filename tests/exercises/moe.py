"""Wrong answers to the exercises of chapters/moe.md, as people give them.

id -> name of the mistake -> (code instead of the solution, what must be said).
"""


def _count(**changes):
    parts = (
        dict(
            kv="d_model // n_heads * n_kv_heads",
            attention="2 * d_model * d_model + 2 * d_model * kv",
            router="n_experts * d_model",
            expert="3 * d_model * d_ff",
            norms="2 * d_model",
            outside="2 * vocab_size * d_model + d_model",
            answer="whole(n_experts), whole(top_k)",
        )
        | changes
    )
    return f"""
def count(vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads,
          n_experts, top_k):
    kv = {parts["kv"]}
    attention = {parts["attention"]}
    outside = {parts["outside"]}

    def whole(n):
        router = {parts["router"]}
        layer = attention + router + n * {parts["expert"]} + {parts["norms"]}
        return n_layers * layer + outside

    return {parts["answer"]}
"""


def _dispatch(token, counts="slots.bincount(minlength=n_experts)"):
    return f"""
def dispatch(experts, n_experts):
    n, k = experts.shape
    slots = experts.flatten()
    order = slots.argsort(stable=True)
    return {token}, {counts}
"""


def _balance(body):
    return f"""
import torch

def balance(logits, k):
    n, e = logits.shape
    p = logits.softmax(-1)
    top = p.topk(k)
    share = top.indices.flatten().bincount(minlength=e) / (n * k)
    only = torch.zeros_like(p).scatter(1, top.indices, top.values)
{body}
"""


def _kept(test="taken[e] < capacity", tokens="range(n)", swap=False):
    first, second = "for k in range(width)", f"for n in {tokens}"
    if swap:
        first, second = second, first
    second = second.replace("range(n)", "range(height)")
    first = first.replace("range(n)", "range(height)")
    return f"""
import torch

def kept(experts, n_experts, capacity):
    height, width = experts.shape
    seated = torch.zeros(experts.shape, dtype=torch.bool)
    taken = [0] * n_experts
    {first}:
        {second}:
            e = int(experts[n, k])
            seated[n, k] = {test}
            taken[e] += 1
    return seated
"""


def _push(before, last):
    return f"""
import torch

def push_out():
    before = torch.tensor({before})
    after = before.clone()
    after[3] = torch.tensor({last})
    return before, after
"""


def _adjust(formula):
    return f"""
def adjust(bias, counts, rate):
    mean = counts.float().mean()
    return {formula}
"""


def _cheat(body):
    return f"""
import torch

def cheat(n, e):
    busy = e // 2
    own = torch.arange(n) % busy
    logits = torch.full((n, e), -30.0)
{body}
    return logits
"""


MUTANTS = {
    "moe.count": {
        "all-experts-are-active": (
            _count(answer="whole(n_experts), whole(n_experts)"),
            r"This is the total",
        ),
        "two-matrices": (
            _count(expert="2 * d_model * d_ff"),
            r"three matrices, not two",
        ),
        "no-router": (_count(router="0"), r"routers are missing"),
        "router-of-the-chosen": (
            _count(router="n * d_model"),
            r"all of its rows are active",
        ),
        "all-heads-have-keys": (
            _count(kv="d_model"),
            r"n_kv_heads heads",
        ),
        "everything-scaled": (
            _count(
                answer="whole(n_experts), whole(n_experts) * top_k // n_experts"
            ),
            r"Only the experts are used k of E times",
        ),
        "tied": (
            _count(outside="vocab_size * d_model + d_model"),
            r"not tied",
        ),
        "no-norms": (
            _count(norms="0", outside="2 * vocab_size * d_model"),
            r"norms are missing",
        ),
        "one-number": (_count(answer="whole(n_experts)"), r"two numbers"),
        "floats": (
            """
def count(
    vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, n_experts, top_k
):
    kv = d_model // n_heads * n_kv_heads

    def w(n):
        return (
            n_layers
            * (
                2 * d_model * d_model
                + 2 * d_model * kv
                + n_experts * d_model
                + n * 3 * d_model * d_ff
                + 2 * d_model
            )
            + 2 * vocab_size * d_model
            + d_model
        )

    return float(w(n_experts)), float(w(top_k))
""",
            r"its type is not",
        ),
        "swapped": (
            """
def count(
    vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, n_experts, top_k
):
    kv = d_model // n_heads * n_kv_heads

    def w(n):
        return (
            n_layers
            * (
                2 * d_model * d_model
                + 2 * d_model * kv
                + n_experts * d_model
                + n * 3 * d_model * d_ff
                + 2 * d_model
            )
            + 2 * vocab_size * d_model
            + d_model
        )

    return w(top_k), w(n_experts)
""",
            r"are exchanged",
        ),
        "single-router": (
            """
def count(
    vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, n_experts, top_k
):
    kv = d_model // n_heads * n_kv_heads

    def w(n):
        return (
            n_layers
            * (
                2 * d_model * d_model
                + 2 * d_model * kv
                + n * 3 * d_model * d_ff
                + 2 * d_model
            )
            + 2 * vocab_size * d_model
            + d_model
            + n_experts * d_model
        )

    return w(n_experts), w(top_k)
""",
            r"router of its own",
        ),
        "kv-whole": (
            """
def count(
    vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, n_experts, top_k
):
    kv = n_kv_heads

    def w(n):
        return (
            n_layers
            * (
                2 * d_model * d_model
                + 2 * d_model * kv
                + n_experts * d_model
                + n * 3 * d_model * d_ff
                + 2 * d_model
            )
            + 2 * vocab_size * d_model
            + d_model
        )

    return w(n_experts), w(top_k)
""",
            r"d_model / n_heads wide",
        ),
        "top2": (
            """
def count(
    vocab_size, d_model, d_ff, n_layers, n_heads, n_kv_heads, n_experts, top_k
):
    kv = d_model // n_heads * n_kv_heads

    def w(n):
        return (
            n_layers
            * (
                2 * d_model * d_model
                + 2 * d_model * kv
                + n_experts * d_model
                + n * 3 * d_model * d_ff
                + 2 * d_model
            )
            + 2 * vocab_size * d_model
            + d_model
        )

    return w(n_experts), w(2)
""",
            r"Expected 3012",
        ),
    },
    "moe.dispatch": {
        "slots-for-tokens": (_dispatch("order"), r"numbers of slots"),
        "modulo": (_dispatch("order % n"), r"this is s % N"),
        "choice-by-choice": (
            _dispatch("experts.T.flatten().argsort(stable=True) % n"),
            r"tokens must keep their order",
        ),
        "backwards": (
            _dispatch("slots.argsort(stable=True, descending=True) // k"),
            r"last expert first",
        ),
        "first-choices-only": (
            _dispatch("experts[:, 0].argsort(stable=True)"),
            r"once for each of its experts",
        ),
        "counts-end-too-soon": (
            _dispatch("order // k", "slots.bincount()"),
            r"still needs its 0",
        ),
        "loop": (
            """
import torch


def dispatch(experts, n_experts):
    toks, counts = [], []
    for e in range(n_experts):
        t = (experts == e).any(1).nonzero().flatten()
        toks.append(t)
        counts.append(len(t))
    return torch.cat(toks), torch.tensor(counts)
""",
            r"there is a loop in it",
        ),
        "float-div": (
            """
def dispatch(experts, n_experts):
    slots = experts.flatten()
    order = slots.argsort(stable=True)
    return order / experts.shape[1], slots.bincount(minlength=n_experts)
""",
            r"whole numbers",
        ),
        "float-token": (
            """
def dispatch(experts, n_experts):
    slots = experts.flatten()
    order = slots.argsort(stable=True)
    return (order // experts.shape[1]).float(), slots.bincount(
        minlength=n_experts
    )
""",
            r"whole numbers",
        ),
        "k2": (
            """
def dispatch(experts, n_experts):
    slots = experts.flatten()
    order = slots.argsort(stable=True)
    return order // 2, slots.bincount(minlength=n_experts)
""",
            r"tokens|entries differ",
        ),
        "counts-none": (
            """
def dispatch(experts, n_experts):
    slots = experts.flatten()
    order = slots.argsort(stable=True)
    return order // experts.shape[1], None
""",
            r"`counts` should be",
        ),
    },
    "moe.balance": {
        "chosen-only": (
            _balance("    return e * (share * only.mean(0)).sum()"),
            r"over the chosen probabilities",
        ),
        "normalised-weights": (
            _balance(
                "    only = only / only.sum(1, keepdim=True)\n"
                "    return e * (share * only.mean(0)).sum()"
            ),
            r"normalised weights",
        ),
        "no-factor": (
            _balance("    return (share * p.mean(0)).sum()"),
            r"factor E is missing",
        ),
        "squares": (
            _balance("    return e * p.mean(0).square().sum()"),
            r"sum of P squared",
        ),
        "first-choices": (
            _balance(
                "    share = top.indices[:, 0].bincount(minlength=e) / n\n"
                "    return e * (share * p.mean(0)).sum()"
            ),
            r"Only first choices",
        ),
        "shares-sum-to-k": (
            _balance("    return e * (k * share * p.mean(0)).sum()"),
            r"shares sum to K",
        ),
        "summed-over-tokens": (
            _balance("    return e * (share * p.sum(0)).sum()"),
            r"summed over the tokens",
        ),
        "no-gradient": (
            _balance("    return e * (share * p.mean(0)).sum().detach()"),
            r"has no gradient",
        ),
        "no-minlength": (
            """
def balance(logits, k):
    n, e = logits.shape
    s = logits.topk(k).indices.flatten().bincount() / (n * k)
    return e * (s * logits.softmax(-1).mean(0)).sum()
""",
            r"\(11, 6\)|must match",
        ),
        "softmax-dim0": (
            """
def balance(logits, k):
    n, e = logits.shape
    s = logits.topk(k).indices.flatten().bincount(minlength=e) / (n * k)
    return e * (s * logits.softmax(0).mean(0)).sum()
""",
            r"over the tokens",
        ),
        "k-for-e": (
            """
def balance(logits, k):
    n, e = logits.shape
    s = logits.topk(k).indices.flatten().bincount(minlength=e) / (n * k)
    return k * (s * logits.softmax(-1).mean(0)).sum()
""",
            r"not k",
        ),
        "soft-share": (
            """
def balance(logits, k):
    n, e = logits.shape
    p = logits.softmax(-1)
    s = logits.topk(k).indices.flatten().bincount(minlength=e) / (n * k)
    s = s + p.mean(0) - p.mean(0).detach()
    return e * (s * p.mean(0)).sum()
""",
            r"through nothing else",
        ),
        "detached-mean": (
            """
def balance(logits, k):
    n, e = logits.shape
    s = logits.topk(k).indices.flatten().bincount(minlength=e) / (n * k)
    return (
        e * (s * logits.softmax(-1).mean(0).detach()).sum() + 0 * logits.sum()
    )
""",
            r"the gradient",
        ),
    },
    "moe.seats": {
        "token-by-token": (_kept(swap=True), r"goes token by token"),
        "one-too-few": (_kept("taken[e] < capacity - 1"), r"too few"),
        "one-too-many": (_kept("taken[e] <= capacity"), r"too many"),
        "last-first": (
            _kept(tokens="reversed(range(height))"),
            r"last come first",
        ),
        "the-dropped": (_kept("taken[e] >= capacity"), r"dropped ones"),
        "numbers": (
            _kept().replace("return seated", "return seated.long()"),
            r"bool tensor",
        ),
        "only-if-seated-first": (
            """
import torch


def kept(experts, n_experts, capacity):
    out = torch.zeros(experts.shape, dtype=torch.bool)
    taken = [0] * n_experts
    for k in range(experts.shape[1]):
        for n in range(experts.shape[0]):
            e = int(experts[n, k])
            out[n, k] = taken[e] < capacity and (k == 0 or out[n, k - 1])
            taken[e] += out[n, k].item()
    return out
""",
            r"still tries for the second",
        ),
        "second-first": (
            """
import torch


def kept(experts, n_experts, capacity):
    out = torch.zeros(experts.shape, dtype=torch.bool)
    taken = [0] * n_experts
    for k in reversed(range(experts.shape[1])):
        for n in range(experts.shape[0]):
            e = int(experts[n, k])
            out[n, k] = taken[e] < capacity
            taken[e] += 1
    return out
""",
            r"entries differ",
        ),
        "transposed": (
            """
import torch


def kept(experts, n_experts, capacity):
    out = torch.zeros(experts.shape, dtype=torch.bool)
    taken = [0] * n_experts
    for k in range(experts.shape[1]):
        for n in range(experts.shape[0]):
            e = int(experts[n, k])
            out[n, k] = taken[e] < capacity
            taken[e] += 1
    return out.T
""",
            r"another order",
        ),
    },
    "moe.push-out": {
        "nobody-loses": (
            _push([[0, 1], [1, 2], [0, 2], [2, 0]], [2, 1]),
            r"still has both",
        ),
        "already-lost": (
            _push([[0, 1], [1, 2], [1, 2], [2, 0]], [1, 0]),
            r"must have both of its seats",
        ),
        "another-token": (
            """
import torch

def push_out():
    before = torch.tensor([[0, 1], [1, 2], [0, 2], [2, 0]])
    after = torch.tensor([[0, 1], [1, 2], [1, 2], [2, 0]])
    return before, after
""",
            r"Only the last token may change",
        ),
        "twice-the-same": (
            _push([[0, 1], [1, 2], [0, 2], [2, 0]], [1, 1]),
            r"must be different",
        ),
        "second-choice": (
            _push([[0, 1], [1, 2], [0, 2], [2, 0]], [0, 1]),
            r"still has both",
        ),
        "expert-3": (
            """
import torch


def push_out():
    b = torch.tensor([[0, 1], [1, 2], [0, 3], [2, 0]])
    a = b.clone()
    a[3] = torch.tensor([1, 0])
    return b, a
""",
            r"experts are 0, 1 and 2",
        ),
        "in-place": (
            """
import torch


def push_out():
    b = torch.tensor([[0, 1], [1, 2], [0, 2], [2, 0]])
    a = b
    a[3] = torch.tensor([1, 0])
    return b, a
""",
            r"must have both of its seats",
        ),
        "three-rows": (
            """
import torch


def push_out():
    return torch.tensor([[0, 1], [1, 2], [0, 2]]), torch.tensor(
        [[0, 1], [1, 2], [1, 0]]
    )
""",
            r"shape",
        ),
    },
    "moe.loss-free": {
        "wrong-sign": (
            _adjust("bias + rate * (counts - mean).sign()"),
            r"sign is wrong",
        ),
        "proportional": (
            _adjust("bias + rate * (mean - counts)"),
            r"proportional to the gap",
        ),
        "relative": (
            _adjust("bias + rate * (mean - counts) / mean"),
            r"relative gap",
        ),
        "no-rate": (_adjust("bias + (mean - counts).sign()"), r"rate is miss"),
        "forgets": (_adjust("rate * (mean - counts).sign()"), r"forgets"),
        "nothing-returned": (
            """
def adjust(bias, counts, rate):
    bias += rate * (counts.mean() - counts).sign()
""",
            r"Nothing|None|return",
        ),
        "no-zero-at-mean": (
            """
import torch


def adjust(bias, counts, rate):
    return bias + rate * torch.where(counts < counts.mean(), 1.0, -1.0)
""",
            r"keeps its bias",
        ),
        "rate-fixed": (
            """
def adjust(bias, counts, rate):
    return bias + 0.1 * (counts.mean() - counts).sign()
""",
            r"rate is not used",
        ),
        "int-division": (
            """
def adjust(bias, counts, rate):
    return bias + rate * ((counts.sum() // len(counts)) - counts).sign()
""",
            r"exact mean",
        ),
        "int-counts-fail": (
            """
def adjust(bias, counts, rate):
    return bias + rate * (counts.mean() - counts).sign()
""",
            r"mean\(\)",
        ),
        "only-up": (
            """
def adjust(bias, counts, rate):
    return bias + rate * (counts < counts.mean())
""",
            r"bias \[0\.0, 0\.5, -0\.5",
        ),
    },
    "moe.cheat": {
        "balanced": (
            _cheat("    logits[torch.arange(n), torch.arange(n) % e] = 30.0"),
            r"Only 0 of 64 experts are idle",
        ),
        "sure": (
            _cheat("    logits[torch.arange(n), own] = 30.0"),
            r"sure of crowded experts",
        ),
        "undecided-among-all": (
            _cheat(
                "    logits[:] = 0.0\n    logits[torch.arange(n), own] = 0.001"
            ),
            r"the same for all experts",
        ),
        "one-decoy": (
            _cheat(
                "    logits[:, -1] = 0.0\n"
                "    logits[torch.arange(n), own] = 0.01"
            ),
            r"below 0\.1 is asked for",
        ),
        "ties": (
            _cheat(
                "    logits[:, busy:] = 0.0\n"
                "    logits[torch.arange(n), own] = 0.0"
            ),
            r"two best experts",
        ),
        "minus-infinity": (
            _cheat(
                "    logits[:] = -float('inf')\n"
                "    logits[:, busy:] = 0.0\n"
                "    logits[torch.arange(n), own] = 0.01"
            ),
            r"must be finite",
        ),
        "nan": (
            """
import torch


def cheat(n, e):
    return torch.full((n, e), float("nan"))
""",
            r"must be finite",
        ),
        "quarter": (
            """
import torch


def cheat(n, e):
    busy = e - 20
    l = torch.full((n, e), -30.0)
    l[:, busy:] = 0
    l[torch.arange(n), torch.arange(n) % busy] = 0.01
    return l
""",
            r"Only 20 of 64",
        ),
        "tiny-hair": (
            """
import torch


def cheat(n, e):
    l = torch.full((n, e), -30.0)
    l[:, 32:] = 1
    l[torch.arange(n), torch.arange(n) % 32] = 1 + 1e-9
    return l
""",
            r"two best experts",
        ),
        "all-to-one": (
            """
import torch


def cheat(n, e):
    l = torch.zeros(n, e)
    l[:, 0] = 0.01
    return l
""",
            r"same for all experts",
        ),
    },
}
