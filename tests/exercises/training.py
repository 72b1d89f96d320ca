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
    },
}
