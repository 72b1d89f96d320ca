"""Mistakes that people make in the exercises of chapters/training.md."""

MUTANTS = {
    "training.forgotten-correction": {
        "root-forgotten": (
            """
import math

def harmless_after(beta2, excess):
    return math.ceil(math.log(1 - 1 / excess) / math.log(beta2))
""",
            r"root is missing",
        ),
        "beta-itself": (
            """
import math

def harmless_after(beta2, excess):
    return math.ceil(math.log(excess - 1) / math.log(beta2))
""",
            r"itself has fallen",
        ),
        "rounded-down": (
            """
import math

def harmless_after(beta2, excess):
    return math.floor(math.log(1 - excess**-2) / math.log(beta2))
""",
            r"Round up",
        ),
        "how-far-it-looks-back": (
            """
def harmless_after(beta2, excess):
    return round(1 / (1 - beta2))
""",
            r"how far v looks back",
        ),
        "one": (
            """
def harmless_after(beta2, excess):
    return 1
""",
            r"beta2 = 0.999",
        ),
        "one-too-many": (
            """
import math

def harmless_after(beta2, excess):
    return math.ceil(math.log(1 - excess**-2) / math.log(beta2)) + 1
""",
            r"not the first one",
        ),
        "a-float": (
            """
import math

def harmless_after(beta2, excess):
    return float(math.ceil(math.log(1 - excess**-2) / math.log(beta2)))
""",
            r"as int",
        ),
        "two-roots": (
            """
import math

def harmless_after(beta2, excess):
    return math.ceil(math.log(1 - excess**-4) / math.log(beta2))
""",
            r"root is there twice",
        ),
        "sign-of-the-logarithm": (
            """
import math

def harmless_after(beta2, excess):
    return -math.ceil(math.log(1 - excess**-2) / math.log(beta2))
""",
            r"logarithm of beta2 is negative",
        ),
    },
    "training.adamw-step": {
        "l2": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    g = g + decay * w
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    w = w - lr * (m / (1 - beta1**t)) / ((v / (1 - beta2**t)).sqrt() + eps)
    return w, m, v
""",
            r"L2, not AdamW",
        ),
        "no-corrections": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return w - lr * decay * w - lr * m / (v.sqrt() + eps), m, v
""",
            r"corrections are missing",
        ),
        "only-m-corrected": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    return w - lr * decay * w - lr * m / (1 - beta1**t) / (v.sqrt() + eps), m, v
""",
            r"v is not corrected",
        ),
        "eps-in-the-root": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2**t) + eps).sqrt()
    return w - lr * decay * w - lr * m / (1 - beta1**t) / root, m, v
""",
            r"outside the root",
        ),
        "decay-without-the-rate": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2**t)).sqrt() + eps
    return w - decay * w - lr * m / (1 - beta1**t) / root, m, v
""",
            r"share of the rate",
        ),
        "decay-forgotten": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2**t)).sqrt() + eps
    return w - lr * m / (1 - beta1**t) / root, m, v
""",
            r"decay is missing",
        ),
        "not-squared": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g
    root = (v / (1 - beta2**t)).abs().sqrt() + eps
    return w - lr * decay * w - lr * m / (1 - beta1**t) / root, m, v
""",
            r"mean of the \*squares\*",
        ),
        "returns-the-corrected": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = (beta1 * m + (1 - beta1) * g) / (1 - beta1**t)
    v = (beta2 * v + (1 - beta2) * g**2) / (1 - beta2**t)
    return w - lr * decay * w - lr * m / (v.sqrt() + eps), m, v
""",
            r"Return m itself",
        ),
        "weight-only": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    return w - lr * g
""",
            r"Three tensors",
        ),
        "in-place": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m.mul_(beta1).add_((1 - beta1) * g)
    v.mul_(beta2).add_((1 - beta2) * g**2)
    w = w * (1 - lr * decay)
    root = (v / (1 - beta2**t)).sqrt() + eps
    return w - lr * m / (1 - beta1**t) / root, m, v
""",
            r"`m` was changed in place",
        ),
        "an-optimiser": (
            """
import torch

def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    p = torch.nn.Parameter(w.clone())
    options = dict(lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay)
    optimizer = torch.optim.AdamW([p], **options)
    state = dict(step=torch.tensor(t - 1.0), exp_avg=m.clone())
    optimizer.state[p] = state | dict(exp_avg_sq=v.clone())
    p.grad = g.clone()
    optimizer.step()
    state = optimizer.state[p]
    return p.detach(), state["exp_avg"], state["exp_avg_sq"]
""",
            r"rules out",
        ),
        "the-book's-optimiser": (
            """
import torch
from litformer.optim import AdamW

def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    p = torch.nn.Parameter(w.clone())
    optimizer = AdamW(
        [p], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=decay
    )
    state = dict(step=t - 1, mean=m.clone(), square=v.clone())
    optimizer.state[p] = state
    p.grad = g.clone()
    optimizer.step()
    return p.detach(), state["mean"], state["square"]
""",
            r"rules out",
        ),
        "single-precision": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    w, g, m, v = w.float(), g.float(), m.float(), v.float()
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2**t)).sqrt() + eps
    return w - lr * decay * w - lr * m / (1 - beta1**t) / root, m, v
""",
            r"came as torch\.float32",
        ),
        "ignores-t": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2)).sqrt() + eps
    return w - lr * decay * w - lr * m / (1 - beta1) / root, m, v
""",
            r"depend on t",
        ),
        "t-plus-one": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2**(t + 1))).sqrt() + eps
    return w - lr * decay * w - lr * m / (1 - beta1**(t + 1)) / root, m, v
""",
            r"counted from 1 already",
        ),
        "old-means": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    root = (v / (1 - beta2**t)).sqrt() + eps
    w = w - lr * decay * w - lr * m / (1 - beta1**t) / root
    return w, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
""",
            r"begins by renewing",
        ),
        "decay-of-the-new-w": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    root = (v / (1 - beta2**t)).sqrt() + eps
    w = w - lr * m / (1 - beta1**t) / root
    return w - lr * decay * w, m, v
""",
            r"share of the \*old\* w",
        ),
        "eps-before-the-correction": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g**2
    rate = lr * (1 - beta2**t) ** 0.5 / (1 - beta1**t)
    return w - lr * decay * w - rate * m / (v.sqrt() + eps), m, v
""",
            r"correct v first",
        ),
        "betas-exchanged": (
            """
def adamw_step(w, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta2 * m + (1 - beta2) * g
    v = beta1 * v + (1 - beta1) * g**2
    root = (v / (1 - beta1**t)).sqrt() + eps
    return w - lr * decay * w - lr * m / (1 - beta2**t) / root, m, v
""",
            r"beta1 is for m",
        ),
    },
    "training.stable-decay": {
        "starts-at-zero": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        return max(0.0, min(1.0, step / warmup if warmup else 1.0,
                            (total - step) / decay))
    return factor
""",
            r"1/warmup, not 0",
        ),
        "one-step-ahead": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        rise = (step + 1) / warmup if warmup else 1.0
        return max(0.0, min(1.0, rise, (total - 1 - step) / decay))
    return factor
""",
            r"one step ahead",
        ),
        "falls-at-once": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        rise = (step + 1) / warmup if warmup else 1.0
        fall = (total - step) / (total - warmup)
        return max(0.0, min(1.0, rise, fall))
    return factor
""",
            r"stays at 1",
        ),
        "never-falls": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        return min(1.0, (step + 1) / warmup if warmup else 1.0)
    return factor
""",
            r"fall is missing",
        ),
        "no-rise": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        return max(0.0, min(1.0, (total - step) / decay))
    return factor
""",
            r"rise is missing",
        ),
        "a-list": (
            """
def stable_decay(warmup, total, decay):
    return [1.0] * total
""",
            r"Return a function",
        ),
        "below-zero": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        rise = (step + 1) / warmup if warmup else 1.0
        return min(1.0, rise, (total - step) / decay)
    return factor
""",
            r"stays at 0",
        ),
        "counts-its-calls": (
            """
def stable_decay(warmup, total, decay):
    calls = iter(range(10**9))
    def factor(_):
        step = next(calls)
        rise = (step + 1) / warmup if warmup else 1.0
        return max(0.0, min(1.0, rise, (total - step) / decay))
    return factor
""",
            r"do not count calls",
        ),
        "no-warm-up-divides": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        return max(0.0, min(1.0, (step + 1) / warmup, (total - step) / decay))
    return factor
""",
            r"ZeroDivisionError",
        ),
        "whole-numbers": (
            """
def stable_decay(warmup, total, decay):
    def factor(step):
        rise = (step + 1) // warmup if warmup else 1
        return max(0, min(1, rise, (total - step) // decay))
    return factor
""",
            r"1/warmup, not 0",
        ),
    },
    "training.clip-together": {
        "each-tensor-alone": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    return [g * min(1.0, limit / max(g.norm().item(), 1e-9))
            for g in grads], norm
""",
            r"its own norm",
        ),
        "each-number": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    return [g.clamp(-limit, limit) for g in grads], norm
""",
            r"each number by itself",
        ),
        "scales-up": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    return [g * limit / max(norm, 1e-12) for g in grads], norm
""",
            r"scaled up",
        ),
        "norms-added": (
            """
def clip(grads, limit):
    norm = sum(g.norm().item() for g in grads)
    factor = min(1.0, limit / norm) if norm else 1.0
    return [g * factor for g in grads], norm
""",
            r"their squares do",
        ),
        "no-root": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).item()
    factor = min(1.0, limit / norm) if norm else 1.0
    return [g * factor for g in grads], norm
""",
            r"root is missing",
        ),
        "zero-over-zero": (
            """
import torch

def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt()
    factor = torch.where(norm > limit, limit / norm, norm / norm)
    return [g * factor for g in grads], norm.item()
""",
            r"0/0",
        ),
        "norm-forgotten": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    return [g * min(1.0, limit / max(norm, 1e-9)) for g in grads]
""",
            r"Two things are asked for|list of 3",
        ),
        "nothing": (
            """
def clip(grads, limit):
    return grads, sum(g.square().sum() for g in grads).sqrt().item()
""",
            r"Nothing is clipped",
        ),
        "pytorch's": (
            """
import torch

def clip(grads, limit):
    params = [torch.nn.Parameter(g.clone()) for g in grads]
    for p, g in zip(params, grads):
        p.grad = g.clone()
    norm = torch.nn.utils.clip_grad_norm_(params, limit)
    return [p.grad for p in params], norm.item()
""",
            r"rules out",
        ),
        "largest-number": (
            """
def clip(grads, limit):
    norm = max(g.abs().max().item() for g in grads)
    factor = min(1.0, limit / norm) if norm else 1.0
    return [g * factor for g in grads], norm
""",
            r"largest number",
        ),
        "always-to-one": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    factor = min(1.0, 1 / norm) if norm else 1.0
    return [g * factor for g in grads], norm
""",
            r"limit is not 1",
        ),
        "factor-squared": (
            """
def clip(grads, limit):
    norm = sum(g.square().sum() for g in grads).sqrt().item()
    factor = min(1.0, (limit / norm) ** 2) if norm else 1.0
    return [g * factor for g in grads], norm
""",
            r"not its square",
        ),
    },
    "training.smooth-padding": {
        "pad-gets-a-share": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    return -((1 - epsilon) * right + epsilon * log_p.mean(-1)).mean()
""",
            r"padding symbol gets a share",
        ),
        "counts-padding": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, targets[..., None])[..., 0]
    others = (log_p.sum(-1) - log_p[..., pad]) / (log_p.shape[-1] - 1)
    return -(((1 - epsilon) * right + epsilon * others) * real).mean()
""",
            r"they are counted",
        ),
        "averages-padding": (
            """
def smoothed(logits, targets, pad, epsilon):
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, targets[..., None])[..., 0]
    others = (log_p.sum(-1) - log_p[..., pad]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean()
""",
            r"Padded places are averaged",
        ),
        "smooths-padding": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, targets[..., None])[..., 0][real].mean()
    others = (log_p.sum(-1) - log_p[..., pad]) / (log_p.shape[-1] - 1)
    return -(1 - epsilon) * right - epsilon * others.mean()
""",
            r"smoothed part counts padded places",
        ),
        "mean-of-rows": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)
    right = log_p.gather(-1, targets[..., None])[..., 0]
    others = (log_p.sum(-1) - log_p[..., pad]) / (log_p.shape[-1] - 1)
    cost = -((1 - epsilon) * right + epsilon * others) * real
    return (cost.sum(1) / real.sum(1)).mean()
""",
            r"rows' means",
        ),
        "library": (
            """
import torch.nn.functional as F

def smoothed(logits, targets, pad, epsilon):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(),
                           label_smoothing=epsilon)
""",
            r"ignore_index",
        ),
        "no-smoothing": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)[real]
    return -log_p.gather(-1, targets[real][:, None]).mean()
""",
            r"no smoothing",
        ),
        "wrong-ones-only": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad] - right) / (log_p.shape[-1] - 2)
    return -((1 - epsilon) * right + epsilon * others).mean()
""",
            r"right symbol gets a share",
        ),
        "summed": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).sum()
""",
            r"This is the sum",
        ),
        "a-float": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean().item()
""",
            r"no gradient can flow",
        ),
        "detached": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.detach().log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean()
""",
            r"no gradient can flow",
        ),
        "log-of-softmax": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.softmax(-1).log()[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean()
""",
            r"never forms it",
        ),
        "pad-out-of-the-softmax": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    logits = logits.clone()
    logits[..., pad] = -1e9
    log_p = logits.log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    keep = [i for i in range(log_p.shape[-1]) if i != pad]
    return -((1 - epsilon) * right + epsilon * log_p[:, keep].mean(-1)).mean()
""",
            r"still has a probability",
        ),
        "pad-is-always-0": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != 0
    log_p = logits.log_softmax(-1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, 0]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean()
""",
            r"pad = 3",
        ),
        "softmax-over-places": (
            """
def smoothed(logits, targets, pad, epsilon):
    real = targets != pad
    log_p = logits.log_softmax(1)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad]) / (log_p.shape[-1] - 1)
    return -((1 - epsilon) * right + epsilon * others).mean()
""",
            r"runs over V",
        ),
    },
    "training.workers": {
        "ones": (
            """
def factors(counts):
    return [1.0 for _ in counts]
""",
            r"means are averaged",
        ),
        "shares": (
            """
def factors(counts):
    return [n / sum(counts) for n in counts]
""",
            r"divides by the number of workers already",
        ),
        "for-sums": (
            """
def factors(counts):
    return [len(counts) / sum(counts) for _ in counts]
""",
            r"\*summed\* losses",
        ),
        "upside-down": (
            """
def factors(counts):
    return [sum(counts) / (len(counts) * n) if n else 0.0 for n in counts]
""",
            r"other way round",
        ),
        "counts": (
            """
def factors(counts):
    return list(counts)
""",
            r"do not depend on the other workers",
        ),
        "one-number": (
            """
def factors(counts):
    return len(counts) / sum(counts)
""",
            r"list of 2 numbers",
        ),
        "idle-workers-left-out": (
            """
def factors(counts):
    at_work = sum(n > 0 for n in counts)
    return [at_work * n / sum(counts) for n in counts]
""",
            r"still one of those",
        ),
        "always-four": (
            """
def factors(counts):
    return [4 * n / sum(counts) for n in counts]
""",
            r"not always 4",
        ),
        "nothing-by-nothing": (
            """
def factors(counts):
    w, n = len(counts), sum(counts)
    return [w * c / n if c else float("nan") for c in counts]
""",
            r"holds NaN",
        ),
        "whole-numbers": (
            """
def factors(counts):
    return [len(counts) * n // sum(counts) for n in counts]
""",
            r"need not be whole",
        ),
    },
    "training.temperature": {
        "one": (
            """
def temperature(logits, targets):
    return 1.0
""",
            r"accuracy does not depend",
        ),
        "upside-down": (
            """
import math
import torch
import torch.nn.functional as F

def temperature(logits, targets):
    tries = torch.logspace(math.log10(0.05), math.log10(20), 400)
    losses = [F.cross_entropy(logits * t, targets) for t in tries]
    return tries[torch.stack(losses).argmin()].item()
""",
            r"multiplies",
        ),
        "maximises": (
            """
import math
import torch
import torch.nn.functional as F

def temperature(logits, targets):
    tries = torch.logspace(math.log10(0.05), math.log10(20), 400)
    losses = [F.cross_entropy(logits / t, targets) for t in tries]
    return tries[torch.stack(losses).argmax()].item()
""",
            r"or maximised",
        ),
        "too-coarse": (
            """
import torch
import torch.nn.functional as F

def temperature(logits, targets):
    tries = torch.arange(1.0, 20.0)
    losses = [F.cross_entropy(logits / t, targets) for t in tries]
    return tries[torch.stack(losses).argmin()].item()
""",
            r"lower cross-entropy",
        ),
        "most-confident-right": (
            """
def temperature(logits, targets):
    return logits.std().item()
""",
            r"lower cross-entropy",
        ),
        "too-narrow-a-search": (
            """
import torch
import torch.nn.functional as F

def temperature(logits, targets):
    tries = torch.logspace(-1, 1, 400)
    losses = [F.cross_entropy(logits / t, targets) for t in tries]
    return tries[torch.stack(losses).argmin()].item()
""",
            r"honest logits times (16|0\.07)",
        ),
        "ten-rows-only": (
            """
import torch
import torch.nn.functional as F

def temperature(logits, targets):
    tries = torch.logspace(-1.3, 1.3, 400)
    losses = [F.cross_entropy(logits[:10] / t, targets[:10]) for t in tries]
    return tries[torch.stack(losses).argmin()].item()
""",
            r"on all of them",
        ),
        "the-best-calibration": (
            """
import torch
from litformer.losses import calibration_error

def temperature(logits, targets):
    tries = torch.logspace(-1.3, 1.3, 400).tolist()
    return min(tries, key=lambda t: calibration_error(logits / t, targets))
""",
            r"lower cross-entropy",
        ),
        "nan": (
            """
def temperature(logits, targets):
    return float("nan")
""",
            r"one finite number",
        ),
    },
    "training.forgotten": {
        "loss-first": (
            """
def forgotten(straight, resumed, stop):
    if straight[stop]["loss"] != resumed[stop]["loss"]:
        return "random state"
    rest = zip(straight[stop:], resumed[stop:])
    pairs = list(rest)
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if any(a["rate"] != b["rate"] for a, b in pairs):
        return "schedule"
    later = any(a["loss"] != b["loss"] for a, b in pairs)
    return "optimiser" if later else "nothing"
""",
            r"Look at the batches first",
        ),
        "optimiser-before-schedule": (
            """
def forgotten(straight, resumed, stop):
    pairs = list(zip(straight[stop:], resumed[stop:]))
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if straight[stop]["loss"] != resumed[stop]["loss"]:
        return "random state"
    if any(a["loss"] != b["loss"] for a, b in pairs):
        return "optimiser"
    return "nothing"
""",
            r"Look at the rates before",
        ),
        "exchanged": (
            """
def forgotten(straight, resumed, stop):
    pairs = list(zip(straight[stop:], resumed[stop:]))
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if any(a["rate"] != b["rate"] for a, b in pairs):
        return "schedule"
    if straight[stop]["loss"] != resumed[stop]["loss"]:
        return "optimiser"
    if any(a["loss"] != b["loss"] for a, b in pairs):
        return "random state"
    return "nothing"
""",
            r"has made no step yet",
        ),
        "only-the-first-step": (
            """
def forgotten(straight, resumed, stop):
    a, b = straight[stop], resumed[stop]
    if a["batch"] != b["batch"]:
        return "data"
    if a["rate"] != b["rate"]:
        return "schedule"
    if a["loss"] != b["loss"]:
        return "random state"
    return "nothing"
""",
            r"all the later losses",
        ),
        "never-nothing": (
            """
def forgotten(straight, resumed, stop):
    pairs = list(zip(straight[stop:], resumed[stop:]))
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if any(a["rate"] != b["rate"] for a, b in pairs):
        return "schedule"
    if straight[stop]["loss"] != resumed[stop]["loss"]:
        return "random state"
    return "optimiser"
""",
            r"equal everywhere",
        ),
        "american-spelling": (
            """
def forgotten(straight, resumed, stop):
    pairs = list(zip(straight[stop:], resumed[stop:]))
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if any(a["rate"] != b["rate"] for a, b in pairs):
        return "schedule"
    if straight[stop]["loss"] != resumed[stop]["loss"]:
        return "random state"
    if any(a["loss"] != b["loss"] for a, b in pairs):
        return "optimizer"
    return "nothing"
""",
            r"Return one of",
        ),
        "nearly-equal": (
            """
def forgotten(straight, resumed, stop):
    pairs = list(zip(straight, resumed))
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if any(abs(a["rate"] - b["rate"]) > 1e-9 for a, b in pairs):
        return "schedule"
    far = [abs(a["loss"] - b["loss"]) > 1e-3 for a, b in pairs]
    if far[stop]:
        return "random state"
    return "optimiser" if any(far) else "nothing"
""",
            r"at a tiny rate",
        ),
        "the-last-step-only": (
            """
def forgotten(straight, resumed, stop):
    a, b = straight[-1], resumed[-1]
    if a["batch"] != b["batch"]:
        return "data"
    if a["rate"] != b["rate"]:
        return "schedule"
    if straight[stop]["loss"] != resumed[stop]["loss"]:
        return "random state"
    return "optimiser" if a["loss"] != b["loss"] else "nothing"
""",
            r"Look at the rates before",
        ),
        "one-step-late": (
            """
def forgotten(straight, resumed, stop):
    pairs = list(zip(straight, resumed))
    if any(a["batch"] != b["batch"] for a, b in pairs):
        return "data"
    if any(a["rate"] != b["rate"] for a, b in pairs):
        return "schedule"
    if straight[stop + 1]["loss"] != resumed[stop + 1]["loss"]:
        return "random state"
    later = any(a["loss"] != b["loss"] for a, b in pairs)
    return "optimiser" if later else "nothing"
""",
            r"The loss of step `stop` is the same",
        ),
    },
}
