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
    },
}
