"""Checks for the exercises of chapters/moe.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised.
"""

import torch

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_equal,
    expect_no_loop,
    expect_shape,
)
from litformer.gpt import GPT, GPTConfig
from litformer.moe import (
    GroupedExperts,
    MoE,
    Routing,
    TopKRouter,
    load_balancing_loss,
    within_capacity,
)


def _normal(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def _routed(logits, k):
    """The routing of these logits by the plain rule."""
    chosen = logits.topk(k).indices
    return Routing(logits.gather(1, chosen), chosen, logits)


def _hint(got, mistakes) -> str:
    """The mistake that gives exactly this answer, if one does."""
    for text, wrong in mistakes.items():
        if isinstance(got, torch.Tensor) or isinstance(wrong, torch.Tensor):
            a, b = torch.as_tensor(got), torch.as_tensor(wrong)
            if a.shape == b.shape and torch.allclose(
                a.double(), b.double(), atol=1e-6
            ):
                return text
        elif got == wrong:
            return text
    return ""


# ------------------------------------------------------------------ count


def _built(case) -> tuple[int, int]:
    """Total and active parameters of a model that is really built."""
    e, k = case["n_experts"], case["top_k"]

    def feedforward(d_model, d_ff, *, bias):
        router = TopKRouter(d_model, e, top_k=k)
        return MoE(router, GroupedExperts(e, d_model, d_ff))

    model = GPT(
        GPTConfig.llama(
            case["vocab_size"],
            8,
            d_model=case["d_model"],
            d_ff=case["d_ff"],
            n_layers=case["n_layers"],
            n_heads=case["n_heads"],
            n_kv_heads=case["n_kv_heads"],
            tie_embeddings=False,
            feedforward=feedforward,
        )
    )
    total = sum(p.numel() for p in model.parameters())
    idle = sum(
        p.numel() * (e - k) // e
        for layer in model.modules()
        if isinstance(layer, GroupedExperts)
        for p in layer.parameters()
    )
    return total, total - idle


def _parts(c) -> dict[str, int]:
    """What a model of these sizes consists of, for recognising mistakes."""
    d, width = c["d_model"], c["d_model"] // c["n_heads"]
    return {
        "expert": 3 * d * c["d_ff"],
        "router": c["n_experts"] * d,
        "keys": 2 * d * width * c["n_kv_heads"],
        "query": 2 * d * d,
        "norm": d,
        "table": d * c["vocab_size"],
    }


@exercise("moe.count")
def count(count):
    """Total and active parameters against models that are built."""
    names = (
        "vocab_size d_model d_ff n_layers n_heads n_kv_heads n_experts top_k"
    ).split()
    for sizes in (
        (11, 12, 20, 2, 3, 3, 4, 1),
        (7, 16, 8, 3, 4, 2, 8, 2),
        (13, 24, 5, 1, 6, 1, 5, 5),
    ):
        case = dict(zip(names, sizes, strict=True))
        total, active = _built(case)
        p, layers = _parts(case), case["n_layers"]
        e, k = case["n_experts"], case["top_k"]
        on = ", ".join(f"{n}={v}" for n, v in case.items())
        answer = count(**case)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two numbers, (total, active).", got=answer)
        for name, got, right, used in (
            ("total", answer[0], total, e),
            ("active", answer[1], active, k),
        ):
            gap = {
                "The routers are missing: a row of d_model weights for each "
                "expert, in every layer.": p["router"] * layers,
                "Each layer has a router of its own.": p["router"]
                * (layers - 1),
                "Biases are counted, and there are none in such a router.": -e
                * layers,
                "A gated expert has three matrices, not two.": p["expert"]
                // 3
                * used
                * layers,
                "There are a token table and a head, and they are not tied.": p[
                    "table"
                ],
                "The norms are missing: two in each layer, and the last "
                "one.": p["norm"] * (2 * layers + 1),
                "The last norm is missing.": p["norm"],
                "The attention has four matrices.": (p["query"] + p["keys"])
                * layers,
                "The experts are missing.": p["expert"] * used * layers,
            }
            mistakes = {
                text: right - less for text, less in gap.items() if less
            }
            mistakes["The two numbers are exchanged: first the total."] = (
                active if name == "total" else total
            )
            mistakes["A head is d_model / n_heads wide."] = right - layers * (
                p["keys"] - 2 * case["d_model"] * case["n_kv_heads"]
            )
            mistakes["Keys and values have n_kv_heads heads."] = (
                right + layers * (p["query"] - p["keys"])
            )
            if name == "active":
                del mistakes["The two numbers are exchanged: first the total."]
                mistakes |= {
                    "This is the total. A token uses top_k of the experts "
                    "only.": total,
                    "The router scores all experts, whichever are used: all "
                    "of its rows are active.": active
                    - layers * (p["router"] - k * case["d_model"]),
                    "Only the experts are used k of E times: attention, "
                    "norms and tables are used by every token.": total * k // e,
                }
            expect_equal(
                got, right, on=f"{name}, {on}", hint=_hint(got, mistakes)
            )
    big = dict(zip(names, (32_000, 4096, 14_336, 32, 32, 8, 8, 2), strict=True))
    total, active = (round(n / 1e9, 1) for n in count(**big))
    return (
        f"Mixtral 8x7B has {total} billion parameters and uses {active} for a "
        "token: only the feed-forward layers are there eight times."
    )


# --------------------------------------------------------------- dispatch


@exercise("moe.dispatch")
def dispatch(dispatch):
    """Tokens in the order of their experts, at several sizes."""
    for n, e, k, seed in ((4, 3, 2, 0), (7, 5, 3, 1), (6, 4, 1, 2)):
        experts = _normal(n, e, seed=seed).topk(k).indices
        if e == 5:  # an expert that nobody chose, and it is the last one
            experts = _normal(n, 4, seed=seed).topk(k).indices
        slots = experts.flatten()
        order = slots.argsort(stable=True)
        on = f"experts = {experts.tolist()}, n_experts={e}"
        answer = dispatch(experts.clone(), e)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong("Return two tensors, (token, counts).", got=answer)
        token, counts = answer
        for name, got in (("token", token), ("counts", counts)):
            if not isinstance(got, torch.Tensor) or got.is_floating_point():
                raise Wrong(
                    f"`{name}` should be a tensor of whole numbers.",
                    on=on,
                    got=got,
                    hint="Tokens are looked up by it: use // in place of /."
                    if name == "token"
                    else "How many slots each expert got.",
                )
        right = order // k
        by_slot = experts.T.flatten().argsort(stable=True) % n
        expect_equal(
            token,
            right,
            on=f"token, {on}",
            hint=_hint(
                token,
                {
                    "These are numbers of slots. Slot s belongs to token "
                    "s // K.": order,
                    "Slots s and s + 1 belong to one token, so it is s // K; "
                    "this is s % N.": order % n,
                    "Right experts, but within an expert the tokens must keep "
                    "their order: sort stably, in the order of the "
                    "slots.": by_slot,
                    "This sorts the other way, last expert first.": (
                        slots.argsort(stable=True, descending=True) // k
                    ),
                    "Each token comes once here. It must come once for each "
                    "of its experts.": experts[:, 0].argsort(stable=True),
                },
            ),
        )
        expect_equal(
            counts,
            slots.bincount(minlength=e),
            on=f"counts, {on}",
            hint="The last expert has no token, and still needs its 0: there "
            "are n_experts counts."
            if len(counts) < e
            else "How many slots each expert got.",
        )
    few = torch.tensor([[0, 1]]), 2
    expect_no_loop(dispatch, few, (experts, e), on=on)
    return "One sort, and every expert's tokens stand together."


# ---------------------------------------------------------------- balance


def _wrong_balances(logits, k) -> dict[str, torch.Tensor]:
    """What well-known mistakes give, by their explanation."""
    n, e = logits.shape
    p = logits.softmax(-1)
    top = p.topk(k)
    chosen = top.indices
    counts = chosen.flatten().bincount(minlength=e)
    share, mean = counts / counts.sum(), p.mean(0)
    only = torch.zeros_like(p).scatter(1, chosen, top.values)
    normal = only / only.sum(1, keepdim=True)
    first = chosen[:, 0].bincount(minlength=e) / n
    return {
        "The mean is over the chosen probabilities. It must be over all "
        "experts: one that nobody chose needs the gradient most.": e
        * (share * only.mean(0)).sum(),
        "The softmax is over the tokens. It must be over the experts, the "
        "last axis.": e * (share * logits.softmax(0).mean(0)).sum(),
        "The factor is the number of experts E, not k.": k
        * (share * mean).sum(),
        "The mean is over the normalised weights of the chosen experts. Use "
        "the softmax over all of them.": e * (share * normal.mean(0)).sum(),
        "The factor E is missing.": (share * mean).sum(),
        "This is E times the sum of P squared. The share f is a count of "
        "choices, not a mean probability.": e * mean.square().sum(),
        "Only first choices are counted. All K slots of a token are.": e
        * (first * mean).sum(),
        "The shares sum to K here. Divide by the number of slots, N times K.": k
        * e
        * (share * mean).sum(),
        "This is the mean over the experts, so the factor E is there only "
        "once: E times the sum is meant.": (share * mean).mean(),
        "Probabilities are summed over the tokens. Take their mean.": e
        * (share * p.sum(0)).sum(),
    }


@exercise("moe.balance")
def balance(balance):
    """Value and gradient against the definition."""
    for n, e, k, seed in (
        (12, 4, 2, 0),
        (30, 7, 1, 1),
        (9, 5, 3, 2),
        (11, 6, 2, 3),
    ):
        logits = _normal(n, e, seed=seed)
        on = f"logits of shape ({n}, {e}), k={k}"
        if seed == 3:
            logits[:, -1] -= 9
            on += ", the last expert is chosen by nobody"
        logits.requires_grad_()
        got = balance(logits, k)
        right = load_balancing_loss(_routed(logits, k))
        expect_shape(torch.as_tensor(got), (), on=on)
        mistakes = _wrong_balances(logits.detach(), k)
        value = torch.as_tensor(got).detach()
        expect_close(value, right.detach(), on=on, hint=_hint(value, mistakes))
        if not torch.as_tensor(got).requires_grad:
            raise Wrong(
                "The value is right, and it has no gradient.",
                on=on,
                hint="Was something detached, or .item() called?",
            )
        mine, want = (
            torch.autograd.grad(loss, logits)[0] for loss in (got, right)
        )
        expect_close(
            mine,
            want,
            on=f"the gradient, {on}",
            hint="The gradient flows through the mean probabilities of all "
            "experts, and through nothing else.",
        )
    return "Counts are prices, probabilities are what is moved."


# ------------------------------------------------------------------ seats


def _seats_in_turn(experts, n_experts, capacity):
    """The wrong rule: who lost a first choice gets no second one."""
    seated = within_capacity(experts, n_experts, capacity)
    return seated.cumprod(1).bool()


def _seats_by_token(experts, n_experts, capacity):
    """The wrong queue: all choices of a token before the next token."""
    left = [capacity] * n_experts
    kept = torch.zeros_like(experts, dtype=torch.bool)
    for n, row in enumerate(experts.tolist()):
        for k, e in enumerate(row):
            kept[n, k] = left[e] > 0
            left[e] -= left[e] > 0
    return kept


@exercise("moe.seats")
def seats(kept):
    """Who finds a seat, on small tables that can be followed by hand."""
    tables = [
        ([[0], [1], [0], [0]], 2, 2),
        ([[0, 1], [0, 2], [0, 1], [1, 0]], 3, 2),
        ([[0, 1], [0, 1], [1, 0]], 2, 2),
        ([[0, 1], [0, 1], [0, 2]], 3, 2),
        (_normal(9, 4, seed=1).topk(3).indices.tolist(), 4, 4),
        (_normal(20, 5, seed=2).topk(2).indices.tolist(), 5, 100),
    ]
    for table, e, capacity in tables:
        experts = torch.tensor(table)
        on = f"experts = {table}, n_experts={e}, capacity={capacity}"
        if len(table) > 10:
            on = f"{len(table)} tokens, {e} experts with {capacity} seats each"
        got = kept(experts.clone(), e, capacity)
        right = within_capacity(experts, e, capacity)
        back = within_capacity(experts.flip(0), e, capacity).flip(0)
        mistakes = {
            "This goes token by token. All first choices are seated before "
            "any second choice.": _seats_by_token(experts, e, capacity),
            "Who lost the seat of its first choice still tries for the "
            "second.": _seats_in_turn(experts, e, capacity),
            "One seat too few: place number `capacity` is still a "
            "seat.": within_capacity(experts, e, capacity - 1)
            if capacity > 1
            else torch.zeros_like(right),
            "One seat too many: count from 1, or compare with "
            "<.": within_capacity(experts, e, capacity + 1),
            "The last come first here.": back,
            "These are the dropped ones. Return True for who is seated.": (
                ~right
            ),
        }
        if isinstance(got, torch.Tensor) and got.dtype != torch.bool:
            raise Wrong(
                "The answer must be a bool tensor, True where a slot is kept.",
                on=on,
                got=got,
            )
        expect_equal(got, right, on=on, hint=_hint(got, mistakes))
    return "The order of the queue decides who is dropped, and it is a choice."


# --------------------------------------------------------------- push out


@exercise("moe.push-out")
def push_out(push_out):
    """Two tables that differ in the last row, and a first token that loses."""
    answer = push_out()
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong("Return two tables, (before, after).", got=answer)
    tables = [torch.as_tensor(t) for t in answer]
    for name, table in zip(("before", "after"), tables, strict=True):
        expect_shape(table, (4, 2), on=name, hint="Four tokens, two experts "
                     "for each.")  # fmt: skip
        if (
            table.dtype.is_floating_point
            or not ((table >= 0) & (table < 3)).all()
        ):
            raise Wrong("The experts are 0, 1 and 2.", on=name, got=table)
        if (table[:, 0] == table[:, 1]).any():
            raise Wrong(
                "A token's two experts must be different.", on=name, got=table
            )
    before, after = tables
    if not torch.equal(before[:3], after[:3]):
        raise Wrong(
            "Only the last token may change: the first three rows of both "
            "tables must be equal.",
            expected=before,
            got=after,
        )
    seated = [within_capacity(table, 3, 2) for table in tables]
    if not seated[0][0].all():
        raise Wrong(
            "Before the change, the first token must have both of its seats.",
            on=before,
            got=seated[0],
            hint="Its second expert must not be two others' first choice yet.",
        )
    if seated[1][0].all():
        raise Wrong(
            "After the change, the first token still has both of its seats.",
            on=after,
            got=seated[1],
            hint="Only a *first* choice is seated before the first token's "
            "second choice. How many of those does it take to fill an expert?",
        )
    return "A token of the future took a seat from the past."


# -------------------------------------------------------------- loss-free


def _simulate(adjust, steps, rate, seed):
    """Route a skewed stream; the bias alone must even out the load."""
    e, k = 8, 2
    skew = torch.linspace(-2, 2, e)
    bias, loads = torch.zeros(e), []
    for step in range(steps):
        logits = _normal(512, e, seed=seed + step) + skew
        chosen = (logits + bias).topk(k).indices
        counts = chosen.flatten().bincount(minlength=e).float()
        loads.append(counts / counts.mean())
        bias = adjust(bias.clone(), counts.clone(), rate)
        if not isinstance(bias, torch.Tensor) or bias.shape != (e,):
            raise Wrong(
                "Return the new bias, one number for each expert.",
                got=bias,
                hint="A function that changes the bias in place must return "
                "it, too.",
            )
        if not bias.isfinite().all():
            raise Wrong("The bias is not finite any more.", got=bias)
    return bias, loads


@exercise("moe.loss-free")
def loss_free(adjust):
    """One step by hand, then a skewed stream."""
    for start, slots, rate in (
        ([0.0, 0.5, -0.5, 0.0], [10.0, 2.0, 4.0, 4.0], 0.1),
        ([0.0, 0.5, -0.5, 0.0, 0.2], [10.0, 2.0, 4.0, 4.0, 5.0], 0.25),
        ([0.3, 0.0, 0.0, -0.1], [10, 2, 4, 5], 0.01),
    ):
        bias, counts = torch.tensor(start), torch.tensor(slots)
        got = adjust(bias.clone(), counts.clone(), rate)
        counts = counts.float()
        mean = counts.mean()
        up = rate * (mean - counts).sign()
        mistakes = {
            "The sign is wrong: a crowded expert's bias goes down.": bias - up,
            "Every step has the same size, the rate, in the direction of the "
            "sign. This one is proportional to the gap.": bias
            + rate * (mean - counts),
            "This one is proportional to the relative gap; the rule takes its "
            "sign.": bias + rate * (mean - counts) / mean,
            "The rate is missing.": bias + up / rate,
            "The argument rate is not used.": bias + up / rate * 0.1,
            "This forgets the old bias: add to it.": up,
            "An expert that got just the mean keeps its bias.": bias
            + rate * torch.where(counts < mean, 1.0, -1.0),
            "Compare with the exact mean, which need not be a whole "
            "number.": bias + rate * (mean.floor() - counts).sign(),
            "Compare with the mean of the counts.": bias
            + rate * (counts.median() - counts).sign(),
        }
        expect_close(
            got,
            bias + up,
            on=f"bias {start}, counts {slots}, rate {rate}",
            hint=_hint(got, mistakes),
        )
    _, loads = _simulate(adjust, 300, 0.02, 100)
    first = loads[0].max().item()
    last = torch.stack(loads[-50:]).mean(0)
    if last.max() > 1.1 or last.min() < 0.9:
        raise Wrong(
            "After 300 steps the stream is still uneven: a fair share is 1.",
            on="512 tokens a step, 8 experts, 2 chosen, rate 0.02",
            expected="every load within 10 % of 1",
            got=last,
        )
    return (
        f"The fullest expert went from {first:.1f} times its fair share to "
        f"{last.max():.2f}, and no gradient was spent on it."
    )


# ------------------------------------------------------------------ cheat


@exercise("moe.cheat")
def cheat(cheat):
    """A small balance loss, and half of the experts without a token."""
    n, e = 1024, 64
    logits = cheat(n, e)
    expect_shape(logits, (n, e), on="cheat(1024, 64)")
    logits = logits.detach().float()
    if not logits.isfinite().all():
        raise Wrong(
            "The logits must be finite.",
            on="cheat(1024, 64)",
            hint="A large negative number does what -inf would do.",
        )
    best = logits.sort(1, descending=True).values
    if (best[:, 0] == best[:, 1]).any():
        raise Wrong(
            "Some token has two best experts. Its choice must be clear, if "
            "only by a hair.",
            on="cheat(1024, 64)",
            hint="Give the chosen expert 0.01 more than the others.",
        )
    routing = _routed(logits, 1)
    counts = routing.experts.flatten().bincount(minlength=e)
    idle = int((counts == 0).sum())
    loss = load_balancing_loss(routing).item()
    if idle < e // 2 - 1:
        raise Wrong(
            f"Only {idle} of 64 experts are idle.",
            on="cheat(1024, 64)",
            expected="31 or more without a token",
            got=counts,
        )
    if loss >= 0.1:
        near = ""
        if abs(loss - 1) < 0.02:
            near = (
                "The mean probability is the same for all experts, and then "
                "the loss is 1 whatever the shares are. Put probability where "
                "nobody goes."
            )
        elif loss > 1.5:
            near = (
                "The tokens are sure of crowded experts, which is just what "
                "the loss punishes. Let each hesitate between its expert and "
                "many idle ones."
            )
        raise Wrong(
            f"The balance loss is {loss:.3f}; below 0.1 is asked for.",
            on="cheat(1024, 64)",
            hint=near,
        )
    return (
        f"{idle} of 64 experts are idle, and the loss says {loss:.3f}, where "
        "perfect balance is 1."
    )
