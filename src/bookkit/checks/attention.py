"""Checks for the exercises of chapters/attention.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised: "this is what comes out without the scale".
"""

import itertools
import math

import torch

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_equal,
    expect_shape,
    without,
)
from litformer.attention import attention


def _normal(*shape, seed=0, dtype=torch.float32):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=dtype)


def _recognise(got, expected, mistakes, *, on, atol=1e-5) -> None:
    """`expect_close`, with the mistake that gives exactly this answer."""
    hint = ""
    for text, wrong in mistakes.items():
        same_shape = isinstance(got, torch.Tensor) and got.shape == wrong.shape
        if same_shape and torch.allclose(
            got.to(wrong.dtype), wrong, atol=1e-5, equal_nan=True
        ):
            hint = text
            break
    expect_close(got, expected, on=on, hint=hint, atol=atol)


@exercise("attention.repair-the-cat")
def repair_the_cat(repaired):
    """Dot products, weights and output of one query."""
    repaired = without(
        repaired,
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
        module="litformer.attention",
    )
    cat = (
        torch.tensor([0.1, 0.2]),
        torch.tensor([[0.3, 0.4], [0.1, 0.2], [0.5, 0.6]]),
        torch.tensor([[0.7, 0.8], [0.9, 1.0], [1.1, 1.2]]),
    )
    other = _normal(3), _normal(5, 3, seed=1), _normal(5, 2, seed=2)
    for name, (q, k, v) in {
        "the printed example": cat,
        "random vectors, d_k = 3, S = 5, d_v = 2": other,
    }.items():
        answer = repaired(q, k, v)
        if not isinstance(answer, tuple | list) or len(answer) != 3:
            raise Wrong(
                "Three tensors are asked for: the dot products, the weights "
                "and the output.",
                on=name,
                got=answer,
            )
        products, weights, output = answer
        raw = k @ q
        scale = math.sqrt(len(q))
        right = torch.softmax(raw / scale, 0)
        _recognise(
            products,
            raw,
            {
                "These are divided already. The first result is the plain "
                "dot products.": raw / scale
            },
            on=f"the dot products of {name}",
        )
        _recognise(
            weights,
            right,
            {
                "The scale is missing: divide by the square root of "
                "d_k.": torch.softmax(raw, 0),
                "This divides by d_k. The square root is missing.": (
                    torch.softmax(raw / len(q), 0)
                ),
                "This multiplies by the square root of d_k, where it should "
                "divide.": torch.softmax(raw * scale, 0),
                "This divides by the root of the number of keys: d_k is the "
                "length of q.": torch.softmax(raw / math.sqrt(len(k)), 0),
                "This divides by the root of the width of the values: d_k is "
                "the length of q.": (
                    torch.softmax(raw / math.sqrt(v.shape[1]), 0)
                ),
                "The softmax is missing: these are the scaled scores.": raw
                / scale,
                "These are normalised without the exponential.": (
                    raw / raw.sum()
                ),
            },
            on=f"the weights of {name}",
        )
        _recognise(
            output,
            right @ v,
            {
                "This is the plain mean of the values: use the "
                "weights.": v.mean(0),
                "This averages the keys. The keys decide how much, the values "
                "decide what.": right @ k,
            },
            on=f"the output of {name}",
        )
    return (
        "The printed output, [0.99, 1.1], would need a weight of the last "
        "word that is 0.45 above that of the first. Products that differ by a "
        "tenth give almost equal weights."
    )


@exercise("attention.stable-softmax")
def stable_softmax(stable_softmax):
    """Softmax on ordinary, huge, mixed and fully masked rows."""
    stable_softmax = without(
        stable_softmax, "softmax", "log_softmax", "softmin"
    )
    small = _normal(2, 3, 5)
    _recognise(
        stable_softmax(small.clone()),
        small.softmax(-1),
        {
            "It normalises along the first axis.": small.softmax(0),
            "It normalises along the axis before the last.": small.softmax(-2),
            "It normalises over the whole tensor: each row needs a sum of "
            "its own.": small.flatten().softmax(0).view_as(small),
        },
        on="scores of shape (2, 3, 5)",
    )
    for row in ([1000.0, 1001.0, 999.0], [-1000.0, -1001.0, -1002.0]):
        scores = torch.tensor([row])
        expect_close(
            stable_softmax(scores),
            scores.softmax(-1),
            on=f"scores {row}",
            hint="exp overflows above 88 and is 0 below -104. Subtract the "
            "largest score of the row first: it changes nothing else.",
        )
    rows = torch.tensor([[0.0, 1.0, 2.0], [500.0, 501.0, 502.0]])
    expect_close(
        stable_softmax(rows),
        rows.softmax(-1),
        on="two rows, one about 0 and one about 500",
        hint="Each row has a maximum of its own. With one maximum for all, "
        "the small row vanishes.",
    )
    masked = torch.tensor([[0.0, -math.inf, 1.0]])
    expect_close(
        stable_softmax(masked),
        masked.softmax(-1),
        on="scores [0, -inf, 1]",
        hint="A score of -inf must get weight 0.",
    )
    for beside in ([], [[0.0, 1.0, 2.0]]):
        rows = torch.tensor([[-math.inf] * 3, *beside])
        expect_close(
            stable_softmax(rows),
            rows.softmax(-1).nan_to_num(),
            on="a row that is -inf throughout"
            + (", beside one that is not" if beside else ""),
            hint="-inf - (-inf) is NaN, and so is 0 / 0. Such a row needs a "
            "maximum of 0 and a divisor that is not 0.",
        )
    return "This is how attention treats a query that may see nothing."


def _keys_in_use(scores, temperature) -> float:
    w = torch.softmax(scores.double() / temperature, -1)
    return torch.special.entr(w).sum().exp().item()


def _inverse_sum_of_squares(scores, temperature) -> float:
    w = torch.softmax(scores.double() / temperature, -1)
    return 1 / w.square().sum().item()


@exercise("attention.temperature", seconds=20)
def temperature(temperature_for):
    """exp(entropy) at the temperature that was found."""
    cases = [
        (torch.tensor([2.0, 0.0, 1.0, 1.5]), 2.0),
        (torch.tensor([2.0, 0.0, 1.0, 1.5]), 3.9),
        (0.01 * _normal(50), 5.0),
        (100 * _normal(50, seed=1), 1.5),
    ]
    for scores, wanted in cases:
        answer = temperature_for(scores, wanted)
        on = f"{len(scores)} scores from {scores.min():.3g} to " + (
            f"{scores.max():.3g}, {wanted} keys in use"
        )
        try:
            tau = float(answer)
        except (TypeError, ValueError):
            raise Wrong(
                "A temperature is one number.", on=on, got=answer
            ) from None
        if not tau > 0:
            raise Wrong("A temperature is positive.", on=on, got=tau)
        got = _keys_in_use(scores, tau)
        if abs(got / wanted - 1) <= 1.1e-3:
            continue
        entropy = math.log(max(got, 1.0))
        if abs(_keys_in_use(scores, 1 / tau) / wanted - 1) <= 2e-3:
            hint = "This is the inverse: scores are divided by a temperature."
        elif got < 1.001 or got > 0.999 * len(scores):
            hint = (
                "This is one end of what is possible. More temperature means "
                "more keys in use: does the search move the right end of its "
                "interval? And is the entropy a number: 0 ln 0 is NaN in "
                "floating point?"
            )
        elif abs(_inverse_sum_of_squares(scores, tau) / wanted - 1) < 2e-3:
            hint = (
                "Here 1 over the sum of the squared weights has the wanted "
                "value. That counts keys too, but in another way."
            )
        elif abs(entropy - wanted) < 1e-2:
            hint = (
                "Here the entropy itself has the wanted value. Its "
                "exponential should."
            )
        elif abs(entropy - math.log(wanted) * math.log(2)) < 1e-2:
            hint = "This takes the entropy in bits. Nats belong to exp."
        elif abs(got / wanted - 1) < 0.2:
            hint = "Near, but not within 0.1 %: search longer."
        elif scores.abs().max() > 20 or scores.abs().max() < 0.2:
            hint = "Is the interval wide enough for such scores?"
        else:
            hint = "Is it the exponential of the entropy that you compare?"
        raise Wrong(
            f"At your temperature {tau:.4g} there are {got:.4g} keys in use, "
            f"not {wanted}.",
            on=on,
            hint=hint,
        )
    return (
        "Scores that differ by hundredths need a small temperature, scores "
        "in the hundreds a large one. Attention's scale is such a temperature."
    )


def _permutation_zoo():
    """name -> (function, what it is)."""

    def attend(x, causal=False):
        # of any width, since the learner chooses the shape of x
        w = _normal(x.shape[1], x.shape[1], seed=11).to(x)
        q, k, v = ((x @ m)[None, None] for m in (w, w.T, w @ w))
        return attention(q, k, v, causal=causal)[0, 0]

    return {
        "self-attention": (attend, "equivariant"),
        "each row doubled": (lambda x: 2 * x, "equivariant"),
        "the mean of the rows": (lambda x: x.mean(0), "invariant"),
        "the mean of self-attention": (
            lambda x: attend(x).mean(0),
            "invariant",
        ),
        "every row replaced by the largest entries": (
            lambda x: x.amax(0).expand_as(x),
            "invariant",
        ),
        "causal self-attention": (lambda x: attend(x, True), "neither"),
        "positions added, then self-attention": (
            lambda x: attend(x + _normal(*x.shape, seed=12).to(x)),
            "neither",
        ),
        "rows in reverse order": (lambda x: x.flip(0), "neither"),
        "each row minus the row before it, around a circle": (
            lambda x: x - x.roll(1, 0),
            "neither",
        ),
        "rows sorted by their first entry": (
            lambda x: x[x[:, 0].argsort()],
            "invariant",
        ),
        "the first row": (lambda x: x[0], "neither"),
        # whoever moves two rows only leaves one of these three where it is
        "the last row": (lambda x: x[-1], "neither"),
        "the row in the middle": (lambda x: x[len(x) // 2], "neither"),
        "each row's entries in reverse order": (
            lambda x: x.flip(1),
            "equivariant",
        ),
        "each row centred by the mean of all": (
            lambda x: x - x.mean(0),
            "equivariant",
        ),
    }


@exercise("attention.equivariant-or-invariant")
def equivariant_or_invariant(classify):
    """Fifteen functions, some of them treacherous."""
    for name, (f, kind) in _permutation_zoo().items():
        for _ in range(3):  # an answer by luck rarely comes three times
            answer = classify(f)
            swapped = {"equivariant": "invariant", "invariant": "equivariant"}
            hint = ""
            if swapped.get(kind) == answer:
                hint = (
                    "Equivariant: the outputs move along with the rows. "
                    "Invariant: they stay the same."
                )
            elif kind == "neither":
                hint = (
                    "One permutation that passes proves nothing. Try several "
                    "random ones on random inputs, and let one failure decide."
                )
            elif answer == "neither":
                hint = (
                    "Compare up to rounding (torch.allclose), permute the "
                    "rows and not the columns, and expect outputs without "
                    "rows, of shape (D,), too."
                )
            expect_equal(answer, kind, on=f"the function: {name}", hint=hint)
    return "A law needs all permutations; a counterexample needs one."


def _mutants():
    """Wrong implementations of attention: name -> function."""

    def attend(
        q, k, v, mask, causal, scale=None, axis=-1, align=None, use_mask=True
    ):
        t, s = q.shape[2], k.shape[2]
        scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        allowed = torch.ones(t, s, dtype=torch.bool)
        if causal:
            allowed = allowed.tril(s - t if align is None else align)
        if use_mask:
            allowed = allowed & mask
        scores = scores.masked_fill(~allowed, -math.inf)
        return scores.softmax(axis).nan_to_num() @ v

    def shifted(q, k, v, mask, causal):
        align = k.shape[2] - q.shape[2] - 1
        return attend(q, k, v, mask, causal, align=align)

    def by(f):
        return lambda q, k, v, mask, causal: attend(
            q, k, v, mask, causal, scale=f(q, k, v)
        )

    return {
        "the version without a scale": by(lambda q, k, v: 1.0),
        "the version that scales by the width of v": by(
            lambda q, k, v: v.shape[-1] ** -0.5
        ),
        "the version that scales by the number of keys": by(
            lambda q, k, v: k.shape[2] ** -0.5
        ),
        "the version with the softmax along the queries": (
            lambda *a: attend(*a, axis=-2)
        ),
        "the version with a top-left causal mask": (
            lambda *a: attend(*a, align=0)
        ),
        "the version whose causal mask cuts off one key too many": shifted,
        "the version that ignores the mask": (
            lambda *a: attend(*a, use_mask=False)
        ),
    }


_WHY_ALIVE = {
    "the version without a scale": "Are the scores all alike, or is d_k 1?",
    "the version that scales by the width of v": "Is d_v equal to d_k?",
    "the version that scales by the number of keys": "Is S equal to d_k?",
    "the version with the softmax along the queries": (
        "With T = S = 1, or equal scores everywhere, the axis does not matter."
    ),
    "the version with a top-left causal mask": (
        "Top-left and bottom-right agree if T = S, or without causal=True."
    ),
    "the version whose causal mask cuts off one key too many": (
        "Is causal True, and may the query see that last key at all?"
    ),
    "the version that ignores the mask": (
        "The mask must forbid something that causal allows."
    ),
}


@exercise("attention.kill-the-mutants")
def kill_the_mutants(killer):
    """One input on which seven wrong versions differ from the right one."""
    given = killer()
    names = {"q", "k", "v", "mask", "causal"}
    if not isinstance(given, dict) or set(given) != names:
        raise Wrong(
            "The input must be a dict with q, k, v, mask and causal.",
            got=sorted(given) if isinstance(given, dict) else given,
        )
    q, k, v, mask = (given[n] for n in ("q", "k", "v", "mask"))
    causal = bool(given["causal"])
    if not isinstance(mask, torch.Tensor):
        raise Wrong("The mask must be a tensor, of dtype bool.", got=mask)
    try:
        right = attention(q, k, v, mask, causal=causal)
    except (ValueError, TypeError) as error:
        raise Wrong(f"The right version refuses this input. {error}") from None
    sizes = {n: tuple(x.shape) for n, x in zip("qkv", (q, k, v), strict=True)}
    on = ", ".join(f"{n} {s}" for n, s in sizes.items()) + f", causal={causal}"
    t, s = q.shape[2], k.shape[2]
    allowed = torch.ones(t, s, dtype=torch.bool).tril(s - t if causal else s)
    alive = (allowed & mask).any(-1)
    if not alive.all():
        raise Wrong(
            "Some query may attend to no key at all. Leave each of them one.",
            on=on,
            hint="Together, mask and causal forbid a whole row.",
        )
    if not right.isfinite().all():
        raise Wrong(
            "The right answer itself is not finite, so nothing can differ "
            "from it.",
            on=on,
            got=right,
        )
    for name, mutant in _mutants().items():
        gap = (mutant(q, k, v, mask, causal) - right).abs().max().item()
        if not gap >= 1e-3:
            raise Wrong(
                f"One mutant survives: {name} gives the right answer to "
                f"within {gap:.1g}.",
                on=on,
                hint=_WHY_ALIVE[name],
            )
    return "All seven are caught. This is why the book's tests use primes."


@exercise("attention.merge")
def merge(merge):
    """Two halves against attention over all keys."""

    def part(q, k, v, allowed=None):
        scores = (q @ k.T) / math.sqrt(q.shape[-1])
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        return scores.softmax(-1).nan_to_num() @ v, scores.logsumexp(-1)

    for factor, what in ((1, "ordinary scores"), (30, "scores in hundreds")):
        q, k, v = (
            factor * _normal(5, 11),
            _normal(9, 11, seed=1),
            _normal(9, 3, seed=2),
        )
        k = k * (1 if factor == 1 else 4)
        a, b = part(q, k[:2], v[:2]), part(q, k[2:], v[2:])
        expected, lse = part(q, k, v)
        answer = merge(*a, *b)
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise Wrong(
                "Two tensors are asked for, the output and the log-sum-exp.",
                got=answer,
            )
        on = f"{what}; 2 keys in half a, 7 in half b"
        expect_shape(answer[0], (5, 3), on=on)
        expect_shape(answer[1], (5,), on=on)
        shares = torch.softmax(torch.stack([a[1], b[1]]), 0)[..., None]
        _recognise(
            answer[0],
            expected,
            {
                "This is the mean of the two halves. The half with the larger "
                "denominator counts more.": (a[0] + b[0]) / 2,
                "This is the sum of the two halves. Each was divided by its "
                "own denominator: undo that.": a[0] + b[0],
                "This weighs the halves by their numbers of keys. What counts "
                "is the sum of exponentials.": (2 * a[0] + 7 * b[0]) / 9,
                "The shares are exchanged.": (
                    shares[1] * a[0] + shares[0] * b[0]
                ),
                "This uses the log-sum-exps as if they were the sums: take "
                "the exponential.": (
                    (a[1][:, None] * a[0] + b[1][:, None] * b[0])
                    / (a[1] + b[1])[:, None]
                ),
            },
            on=on,
            atol=1e-4,
        )
        _recognise(
            answer[1],
            lse,
            {
                "The log of a sum is not the sum of the logs.": a[1] + b[1],
                "The larger of the two is only nearly right: add the "
                "exponentials.": torch.maximum(a[1], b[1]),
            },
            on=f"the log-sum-exp of {on}",
            atol=1e-4,
        )
    q, k, v = _normal(4, 3), _normal(4, 3, seed=1), _normal(4, 3, seed=2)
    allowed = torch.tensor(
        [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1]]
    ).bool()
    a = part(q, k[:2], v[:2], allowed[:, :2])
    b = part(q, k[2:], v[2:], allowed[:, 2:])
    expected, lse = part(q, k, v, allowed)
    got, got_lse = merge(*a, *b)
    on = (
        "query 0 sees nothing in half a, query 1 sees nothing at all, query 2 "
        "nothing in half b"
    )
    hint = (
        "Where both log-sum-exps are -inf, -inf - (-inf) is NaN. The output "
        "of such a query is 0. Each half may be the empty one."
    )
    expect_close(got, expected, on=on, hint=hint)
    expect_close(got_lse, lse, on=f"the log-sum-exp; {on}", hint=hint)
    return (
        "With this step, any number of blocks can be joined in any order: it "
        "is the heart of FlashAttention, and of attention across machines."
    )


@exercise("attention.backward-by-hand")
def backward_by_hand(attention_backward):
    """Against autograd, in double precision, all sizes different."""
    q, k, v, grad = (
        _normal(*shape, seed=i, dtype=torch.double)
        for i, shape in enumerate([(5, 11), (7, 11), (7, 3), (5, 3)])
    )
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    scores = leaves[0] @ leaves[1].T / math.sqrt(11)
    weights = scores.softmax(-1)
    out = weights @ leaves[2]
    expected = torch.autograd.grad(out, leaves, grad)
    weights, out = weights.detach(), out.detach()
    lse = scores.detach().logsumexp(-1)
    attention_backward = without(
        attention_backward,
        *("softmax", "log_softmax", "grad", "backward"),
        *("scaled_dot_product_attention", "requires_grad_"),
    )
    answer = attention_backward(q, k, v, out, lse, grad)
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise Wrong(
            "Three tensors are asked for: the gradients of q, k and v.",
            got=answer,
        )
    wrong_scores = {
        "The blend is missing: subtract g · o, one number a query, from "
        "g · v before you multiply by the weights.": weights * (grad @ v.T),
        "The factor of the weights is missing in the gradient of the "
        "scores.": grad @ v.T - (grad * out).sum(-1, keepdim=True),
        "The mean of g · v was subtracted. What belongs there is its average "
        "under the weights, g · o.": (
            weights * (grad @ v.T - (grad @ v.T).mean(-1, keepdim=True))
        ),
    }
    right = weights * (grad @ v.T - (grad * out).sum(-1, keepdim=True))
    scale = 11**-0.5
    raw = (q @ k.T - lse[:, None]).exp()
    on = "T = 5, S = 7, d_k = 11, d_v = 3, float64"
    _recognise(
        answer[2],
        expected[2],
        {
            "The weights came from scores without the scale.": raw.T @ grad,
            "These are the scores' exponentials without the log-sum-exp: "
            "subtract it.": (scale * q @ k.T).exp().T @ grad,
        },
        on=f"the gradient of v; {on}",
    )
    for name, got, want, via in (
        ("q", answer[0], expected[0], lambda d: d @ k),
        ("k", answer[1], expected[1], lambda d: d.T @ q),
    ):
        mistakes = {
            "The scale is missing in this gradient: the scores were divided, "
            "so it passes through.": via(right),
            "The scale was applied twice.": scale * scale * via(right),
        }
        for (text, d), s in itertools.product(
            wrong_scores.items(), (scale, 1.0)
        ):
            mistakes[text] = mistakes.get(text, s * via(d))
        _recognise(got, want, mistakes, on=f"the gradient of {name}; {on}")
    return (
        "No weights were kept, and none were needed. FlashAttention trades "
        "this second exponential for the memory of the weights."
    )


def _measured(n, sigma) -> float:
    scores = sigma * _normal(400, n, dtype=torch.double)
    return torch.special.entr(scores.softmax(-1)).sum(-1).mean().item()


@exercise("attention.entropy-number")
def entropy_number(entropy_of, freezing_width):
    """The formula against itself and against a simulation."""
    for n, sigma in ((4096, 1.0), (4096, 0.3), (64, 1.0), (1000, 2.0)):
        on = f"n = {n}, sigma = {sigma}"
        log = math.log(n)
        got = entropy_of(n, sigma)
        hint = f"A simulation gives {_measured(n, sigma):.3f}."
        for text, value in {
            "This is the entropy of n equal weights: the spread of the "
            "scores lowers it.": log,
            "E[s e^s] / E[e^s] is sigma², and ln Z adds sigma²/2: half of "
            "sigma² remains.": log - sigma**2,
            "The sign of ln Z's term is wrong.": log - 1.5 * sigma**2,
            "The square of sigma is missing.": log - sigma / 2,
            "This is in bits. The chapter counts in nats.": (
                (log - sigma**2 / 2) / math.log(2)
            ),
            "The spread adds to the entropy here; it must lower it.": log
            + sigma**2 / 2,
        }.items():
            if isinstance(got, float | int) and abs(got - value) < 1e-6:
                hint = f"{text} {hint}"
                break
        expect_close(got, log - sigma**2 / 2, on=on, hint=hint)
    expect_close(
        entropy_of(64, 10.0),
        0.0,
        on="n = 64, sigma = 10",
        hint="The formula is negative here. No entropy is: return 0.",
    )
    hint = ""
    if isinstance(freezing_width, float | int):
        for text, value in {
            "At this point sigma² = 2 ln n, and sigma² is d_k itself, not its "
            "root.": math.sqrt(2 * math.log(64)),
            "ln n - sigma²/2 = 0 gives sigma² = 2 ln n.": math.log(64),
            "The square of that: sigma² is d_k already.": (
                (2 * math.log(64)) ** 2
            ),
            "Use the natural logarithm.": 2 * math.log2(64),
        }.items():
            if abs(freezing_width - value) < 0.05:
                hint = text
    expect_close(
        freezing_width,
        2 * math.log(64),
        on="freezing_width, for n = 64",
        hint=hint,
        atol=0.05,
    )
    return (
        "With 64 keys, undivided attention freezes at a width of about "
        f"{2 * math.log(64):.1f}. Usual heads have a width of 64 or 128."
    )
