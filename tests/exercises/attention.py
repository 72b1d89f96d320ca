"""Mistakes that people make in the exercises of chapters/attention.md."""

MUTANTS = {
    "attention.repair-the-cat": {
        "scaled-by-the-number-of-keys": (
            """
import torch

def repaired(q, k, v):
    products = k @ q
    weights = torch.softmax(products / len(k) ** 0.5, 0)
    return products, weights, weights @ v
""",
            r"root of the number of keys",
        ),
        "calls-attention": (
            """
import torch
from litformer.attention import attention_weights

def repaired(q, k, v):
    w = attention_weights(q[None, None, None], k[None, None])[0, 0, 0]
    return k @ q, w, w @ v
""",
            r"calls `litformer.attention`",
        ),
        "forgot-the-scale": (
            """
import torch

def repaired(q, k, v):
    products = k @ q
    weights = torch.softmax(products, 0)
    return products, weights, weights @ v
""",
            r"scale is missing",
        ),
        "divided-by-d": (
            """
import torch

def repaired(q, k, v):
    products = k @ q
    weights = torch.softmax(products / len(q), 0)
    return products, weights, weights @ v
""",
            r"square root is missing",
        ),
        "returned-scaled-products": (
            """
import torch

def repaired(q, k, v):
    products = k @ q / len(q) ** 0.5
    weights = torch.softmax(products, 0)
    return products, weights, weights @ v
""",
            r"divided already",
        ),
        "normalised-without-exponential": (
            """
import torch

def repaired(q, k, v):
    products = k @ q
    weights = products / products.sum()
    return products, weights, weights @ v
""",
            r"without the exponential",
        ),
        "averaged-the-keys": (
            """
import torch

def repaired(q, k, v):
    products = k @ q
    weights = torch.softmax(products / len(q) ** 0.5, 0)
    return products, weights, weights @ k
""",
            r"averages the keys|Expected shape",
        ),
        "output-only": (
            """
import torch

def repaired(q, k, v):
    return torch.softmax(k @ q / len(q) ** 0.5, 0) @ v
""",
            r"Three tensors are asked for",
        ),
    },
    "attention.stable-softmax": {
        "calls-softmax": (
            """
import torch

def stable_softmax(scores):
    return torch.nan_to_num(torch.nn.Softmax(-1)(scores))
""",
            r"calls `softmax`",
        ),
        "empty-only-if-all-is": (
            """
import torch

def stable_softmax(scores):
    if scores.isneginf().all():
        return torch.zeros_like(scores)
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)
""",
            r"beside one that is not",
        ),
        "no-maximum": (
            """
def stable_softmax(scores):
    e = scores.exp()
    return e / e.sum(-1, keepdim=True)
""",
            r"Subtract the largest score",
        ),
        "one-maximum-for-all": (
            """
def stable_softmax(scores):
    e = (scores - scores.max()).exp()
    return e / e.sum(-1, keepdim=True)
""",
            r"maximum of its own",
        ),
        "wrong-axis": (
            """
def stable_softmax(scores):
    e = (scores - scores.amax(0, keepdim=True)).exp()
    return e / e.sum(0, keepdim=True)
""",
            r"along the first axis",
        ),
        "nan-on-an-empty-row": (
            """
def stable_softmax(scores):
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)
""",
            r"-inf throughout[\s\S]*NaN",
        ),
        "large-negative-number-for-infinity": (
            """
def stable_softmax(scores):
    scores = scores.clamp_min(-1e9)
    e = (scores - scores.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)
""",
            r"-inf throughout",
        ),
    },
    "attention.temperature": {
        "nan-entropy": (
            """
import math

def temperature_for(scores, keys_in_use):
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = math.sqrt(low * high)
        w = (scores / middle).softmax(-1)
        if (-(w * w.log()).sum()).exp() < keys_in_use:
            low = middle
        else:
            high = middle
    return middle
""",
            r"0 ln 0 is NaN",
        ),
        "sum-of-squares": (
            """
import math

def temperature_for(scores, keys_in_use):
    low, high = 1e-4, 1e4
    for _ in range(60):
        middle = math.sqrt(low * high)
        w = (scores.double() / middle).softmax(-1)
        if 1 / w.square().sum() < keys_in_use:
            low = middle
        else:
            high = middle
    return middle
""",
            r"squared weights",
        ),
        "inverse": (
            """
import torch

def temperature_for(scores, keys_in_use):
    low, high = -12.0, 12.0
    for _ in range(80):
        middle = (low + high) / 2
        w = torch.softmax(scores.double() * 2.718281828459045**middle, -1)
        if torch.special.entr(w).sum().exp() > keys_in_use:
            low = middle
        else:
            high = middle
    return 2.718281828459045**middle
""",
            r"This is the inverse",
        ),
        "entropy-in-bits": (
            """
import math
import torch

def temperature_for(scores, keys_in_use):
    low, high = -12.0, 12.0
    for _ in range(80):
        middle = (low + high) / 2
        w = torch.softmax(scores.double() / math.exp(middle), -1)
        bits = torch.special.entr(w).sum() / math.log(2)
        if bits.exp() < keys_in_use:
            low = middle
        else:
            high = middle
    return math.exp(low)
""",
            r"Nats belong to exp",
        ),
        "search-in-the-wrong-direction": (
            """
import math
import torch

def temperature_for(scores, keys_in_use):
    low, high = math.log(1e-4), math.log(1e4)
    for _ in range(60):
        middle = (low + high) / 2
        w = torch.softmax(scores.double() / math.exp(middle), -1)
        if torch.special.entr(w).sum().exp() > keys_in_use:
            low = middle
        else:
            high = middle
    return math.exp(low)
""",
            r"right end of its interval",
        ),
        "interval-too-narrow": (
            """
import torch

def temperature_for(scores, keys_in_use):
    low, high = 0.1, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        w = torch.softmax(scores.double() / middle, -1)
        if torch.special.entr(w).sum().exp() < keys_in_use:
            low = middle
        else:
            high = middle
    return low
""",
            r"interval wide enough",
        ),
        "stopped-too-early": (
            """
import math
import torch

def temperature_for(scores, keys_in_use):
    low, high = math.log(1e-4), math.log(1e4)
    for _ in range(9):
        middle = (low + high) / 2
        w = torch.softmax(scores.double() / math.exp(middle), -1)
        if torch.special.entr(w).sum().exp() < keys_in_use:
            low = middle
        else:
            high = middle
    return math.exp(low)
""",
            r"search longer",
        ),
    },
    "attention.equivariant-or-invariant": {
        "one-swap-only": (
            """
import torch

def classify(f):
    kinds = set()
    for _ in range(9):
        x = torch.randn(6, 4)
        order = torch.tensor([1, 0, 2, 3, 4, 5])
        before, after = f(x), f(x[order])
        if torch.allclose(after, before, atol=1e-5):
            kinds.add("invariant")
        elif before.ndim == 2 and torch.allclose(
            after, before[order], atol=1e-5
        ):
            kinds.add("equivariant")
        else:
            return "neither"
    return kinds.pop()
""",
            r"the last row[\s\S]*One permutation that passes proves",
        ),
        "names-exchanged": (
            """
import torch

def classify(f):
    x = torch.randn(7, 5)
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    before, after = f(x), f(x[order])
    if before.shape != x.shape:
        return "equivariant"
    if torch.allclose(after, before, atol=1e-5):
        return "equivariant"
    if torch.allclose(after, before[order], atol=1e-5):
        return "invariant"
    return "neither"
""",
            r"outputs move along",
        ),
        "one-rotation-only": (
            """
import torch

def classify(f):
    x = torch.randn(7, 5)
    before, after = f(x), f(x.roll(2, 0))
    if torch.allclose(after, before, atol=1e-5):
        return "invariant"
    if before.shape == x.shape and torch.allclose(
        after, before.roll(2, 0), atol=1e-5
    ):
        return "equivariant"
    return "neither"
""",
            r"around a circle[\s\S]*One permutation that passes proves",
        ),
        "exact-comparison": (
            """
import torch

def classify(f):
    x = torch.randn(7, 5)
    order = torch.tensor([3, 6, 0, 2, 5, 1, 4])
    before, after = f(x), f(x[order])
    if torch.equal(after, before):
        return "invariant"
    if before.shape == x.shape and torch.equal(after, before[order]):
        return "equivariant"
    return "neither"
""",
            r"up to rounding",
        ),
        "permuted-the-columns": (
            """
import torch

def classify(f):
    x = torch.randn(7, 5)
    order = torch.tensor([3, 0, 2, 4, 1])
    before, after = f(x), f(x[:, order])
    if torch.allclose(after, before, atol=1e-5):
        return "invariant"
    if torch.allclose(after, before[..., order], atol=1e-5):
        return "equivariant"
    return "neither"
""",
            r"permute the rows",
        ),
        "equal-rows": (
            """
import torch

def classify(f):
    x = torch.ones(7, 5)
    order = torch.randperm(7)
    before, after = f(x), f(x[order])
    if torch.allclose(after, before, atol=1e-5):
        return "invariant"
    return "neither"
""",
            r"outputs move along",
        ),
    },
    "attention.kill-the-mutants": {
        "no-mask": (
            """
import torch

def killer():
    q, k, v = torch.randn(2, 3, 5, 11), torch.randn(2, 3, 7, 11), None
    return dict(q=q, k=k, v=torch.randn(2, 3, 7, 13), mask=None, causal=True)
""",
            r"mask must be a tensor",
        ),
        "nan": (
            """
import torch

def killer():
    q, k = torch.randn(2, 3, 5, 11), torch.randn(2, 3, 7, 11)
    mask = torch.ones(5, 7).bool()
    mask[:, 1] = False
    v = torch.full((2, 3, 7, 13), float("nan"))
    return dict(q=q, k=k, v=v, mask=mask, causal=True)
""",
            r"right answer itself is not finite",
        ),
        "all-sizes-equal": (
            """
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 5, 5, generator=make)
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[2:, 1] = False
    return dict(q=q, k=k, v=v, mask=mask, causal=True)
""",
            r"survives: the version that scales by the width of v",
        ),
        "square": (
            """
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    mask = torch.ones(7, 7, dtype=torch.bool)
    mask[2:, 1] = False
    return dict(
        q=torch.randn(2, 3, 7, 11, generator=make),
        k=torch.randn(2, 3, 7, 11, generator=make),
        v=torch.randn(2, 3, 7, 13, generator=make),
        mask=mask,
        causal=True,
    )
""",
            r"top-left causal mask[\s\S]*agree if T = S",
        ),
        "mask-repeats-causal": (
            """
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    return dict(
        q=torch.randn(2, 3, 5, 11, generator=make),
        k=torch.randn(2, 3, 7, 11, generator=make),
        v=torch.randn(2, 3, 7, 13, generator=make),
        mask=torch.ones(5, 7, dtype=torch.bool).tril(2),
        causal=True,
    )
""",
            r"ignores the mask[\s\S]*forbid something that causal allows",
        ),
        "not-causal": (
            """
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[:, 1] = False
    return dict(
        q=torch.randn(2, 3, 5, 11, generator=make),
        k=torch.randn(2, 3, 7, 11, generator=make),
        v=torch.randn(2, 3, 7, 13, generator=make),
        mask=mask,
        causal=False,
    )
""",
            r"or without causal=True",
        ),
        "a-dead-row": (
            """
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[0] = False
    return dict(
        q=torch.randn(2, 3, 5, 11, generator=make),
        k=torch.randn(2, 3, 7, 11, generator=make),
        v=torch.randn(2, 3, 7, 13, generator=make),
        mask=mask,
        causal=True,
    )
""",
            r"no key at all",
        ),
        "float-mask": (
            """
import torch

def killer():
    make = torch.Generator().manual_seed(0)
    return dict(
        q=torch.randn(2, 3, 5, 11, generator=make),
        k=torch.randn(2, 3, 7, 11, generator=make),
        v=torch.randn(2, 3, 7, 13, generator=make),
        mask=torch.ones(5, 7),
        causal=True,
    )
""",
            r"refuses this input[\s\S]*mask must be bool",
        ),
    },
    "attention.merge": {
        "half-a-is-never-empty": (
            """
import math
import torch

def merge(out_a, lse_a, out_b, lse_b):
    if (lse_a == -math.inf).all():
        return out_b, lse_b
    ahead = lse_b - lse_a
    share = torch.sigmoid(ahead)[:, None]
    lse = lse_a + torch.nn.functional.softplus(ahead)
    return (1 - share) * out_a + share * out_b, lse
""",
            r"sees nothing in half a",
        ),
        "plain-mean": (
            """
import torch

def merge(out_a, lse_a, out_b, lse_b):
    return (out_a + out_b) / 2, torch.logaddexp(lse_a, lse_b)
""",
            r"mean of the two halves",
        ),
        "sum": (
            """
import torch

def merge(out_a, lse_a, out_b, lse_b):
    return out_a + out_b, torch.logaddexp(lse_a, lse_b)
""",
            r"undo that",
        ),
        "shares-exchanged": (
            """
import torch

def merge(out_a, lse_a, out_b, lse_b):
    share = torch.sigmoid(lse_b - lse_a)[:, None]
    return share * out_a + (1 - share) * out_b, torch.logaddexp(lse_a, lse_b)
""",
            r"shares are exchanged",
        ),
        "overflow": (
            """
import torch

def merge(out_a, lse_a, out_b, lse_b):
    a, b = lse_a.exp()[:, None], lse_b.exp()[:, None]
    out = (a * out_a + b * out_b) / (a + b)
    return out, (a + b)[:, 0].log()
""",
            r"scores in hundreds",
        ),
        "nan-where-nothing-is-seen": (
            """
import torch

def merge(out_a, lse_a, out_b, lse_b):
    lse = torch.logaddexp(lse_a, lse_b)
    a, b = (lse_a - lse).exp()[:, None], (lse_b - lse).exp()[:, None]
    return a * out_a + b * out_b, lse
""",
            r"sees nothing at all",
        ),
        "sum-of-logs": (
            """
import torch

def merge(out_a, lse_a, out_b, lse_b):
    share = torch.sigmoid(lse_a - lse_b)[:, None]
    return share * out_a + (1 - share) * out_b, lse_a + lse_b
""",
            r"not the sum of the logs",
        ),
    },
    "attention.backward-by-hand": {
        "calls-autograd": (
            """
import math
import torch

def attention_backward(q, k, v, out, lse, grad):
    def weigh(q, k, v):
        scores = q @ k.T / math.sqrt(q.shape[1])
        return (scores - lse[:, None]).exp() @ v

    return torch.autograd.functional.vjp(weigh, (q, k, v), grad)[1]
""",
            r"calls `(grad|backward|requires_grad_)`",
        ),
        "calls-softmax": (
            """
import math
import torch

def attention_backward(q, k, v, out, lse, grad):
    scale = 1 / math.sqrt(q.shape[1])
    w = (q @ k.T * scale).softmax(-1)
    d = scale * w * (grad @ v.T - (grad * out).sum(-1, keepdim=True))
    return d @ k, d.T @ q, w.T @ grad
""",
            r"calls `softmax`",
        ),
        "forgot-the-blend": (
            """
def attention_backward(q, k, v, out, lse, grad):
    scale = q.shape[-1] ** -0.5
    w = (scale * q @ k.T - lse[:, None]).exp()
    d = w * (grad @ v.T)
    return scale * d @ k, scale * d.T @ q, w.T @ grad
""",
            r"blend is missing",
        ),
        "forgot-the-scale-in-the-gradient": (
            """
def attention_backward(q, k, v, out, lse, grad):
    scale = q.shape[-1] ** -0.5
    w = (scale * q @ k.T - lse[:, None]).exp()
    d = w * (grad @ v.T - (grad * out).sum(-1, keepdim=True))
    return d @ k, d.T @ q, w.T @ grad
""",
            r"scale is missing in this gradient",
        ),
        "forgot-the-scale-in-the-scores": (
            """
def attention_backward(q, k, v, out, lse, grad):
    scale = q.shape[-1] ** -0.5
    w = (q @ k.T - lse[:, None]).exp()
    d = w * (grad @ v.T - (grad * out).sum(-1, keepdim=True))
    return scale * d @ k, scale * d.T @ q, w.T @ grad
""",
            r"scores without the scale",
        ),
        "forgot-the-weights": (
            """
def attention_backward(q, k, v, out, lse, grad):
    scale = q.shape[-1] ** -0.5
    w = (scale * q @ k.T - lse[:, None]).exp()
    d = grad @ v.T - (grad * out).sum(-1, keepdim=True)
    return scale * d @ k, scale * d.T @ q, w.T @ grad
""",
            r"factor of the weights is missing",
        ),
        "forgot-the-log-sum-exp": (
            """
def attention_backward(q, k, v, out, lse, grad):
    scale = q.shape[-1] ** -0.5
    w = (scale * q @ k.T).exp()
    d = w * (grad @ v.T - (grad * out).sum(-1, keepdim=True))
    return scale * d @ k, scale * d.T @ q, w.T @ grad
""",
            r"without the log-sum-exp",
        ),
    },
    "attention.entropy-number": {
        "whole-square": (
            """
import math

def entropy_of(n, sigma):
    return max(0.0, math.log(n) - sigma**2)

freezing_width = math.log(64)
""",
            r"half of sigma",
        ),
        "in-bits": (
            """
import math

def entropy_of(n, sigma):
    return max(0.0, (math.log(n) - sigma**2 / 2) / math.log(2))

freezing_width = 2 * math.log(64)
""",
            r"in bits",
        ),
        "not-squared": (
            """
import math

def entropy_of(n, sigma):
    return max(0.0, math.log(n) - sigma / 2)

freezing_width = 2 * math.log(64)
""",
            r"A simulation gives",
        ),
        "negative": (
            """
import math

def entropy_of(n, sigma):
    return math.log(n) - sigma**2 / 2

freezing_width = 2 * math.log(64)
""",
            r"No entropy is",
        ),
        "width-from-its-root": (
            """
import math

def entropy_of(n, sigma):
    return max(0.0, math.log(n) - sigma**2 / 2)

freezing_width = math.sqrt(2 * math.log(64))
""",
            r"not its root",
        ),
    },
}
