"""Checks for the exercises of chapters/training.md.

Each recognises the likely mistakes by what they return, and names them.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_equal,
    expect_shape,
    unchanged,
    without,
)
from litformer.losses import calibration_error
from litformer.optim import AdamW, warmup_linear
from litformer.training import set_seed, train


def _normal(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def _alike(got, wrong, atol=1e-5) -> bool:
    """Is this the answer that a known mistake gives?"""
    if not isinstance(got, torch.Tensor | int | float):
        return False
    got, wrong = torch.as_tensor(got), torch.as_tensor(wrong)
    return got.shape == wrong.shape and torch.allclose(
        got.double(), wrong.double(), atol=atol, rtol=1e-5
    )


def _hint(got, mistakes, atol=1e-5) -> str:
    """The first mistake that gives exactly this answer."""
    return next((t for t, w in mistakes.items() if _alike(got, w, atol)), "")


@exercise("training.forgotten-correction")
def forgotten_correction(harmless_after):
    """Solve 1 / sqrt(1 - beta2^t) <= excess."""
    for beta2, excess in (
        (0.999, 1.01),
        (0.999, 2.0),
        (0.98, 1.05),
        (0.95, 1.5),
        (0.9999, 1.1),
    ):
        exact = math.log(1 - excess**-2) / math.log(beta2)
        expected = math.ceil(exact)
        got = harmless_after(beta2, excess)
        near = {
            "The root is missing: v is squared, and stands under a root.": (
                math.log(1 - 1 / excess) / math.log(beta2)
            ),
            "This is where beta2 ** t itself has fallen to excess - 1. How "
            "does it enter the length of the step?": (
                math.log(excess - 1) / math.log(beta2) if excess < 2 else -1
            ),
            "This is the step before: there it is still too long. Round up.": (
                expected - 1
            ),
            "This is the step after: it is harmless, and not the first "
            "one.": expected + 1,
            "1 / (1 - beta2) is how far v looks back, not when the factor "
            "has fallen far enough.": 1 / (1 - beta2),
            "The logarithm of beta2 is negative, and the step is not.": (
                -expected
            ),
            "The root is there twice: v has one root over it, and excess has "
            "none.": math.log(1 - excess**-4) / math.log(beta2),
        }
        hint = ""
        if isinstance(got, int | float) and not isinstance(got, bool):
            # one away is the rounding of the logarithm, if it is that close
            if isinstance(got, int) and (
                abs(exact - round(exact)) < 1e-6
                and abs(got - round(exact)) <= 1
            ):
                continue
            hint = next(
                (t for t, w in near.items() if abs(got - w) < 1.0 and w != -1),
                "",
            )
        expect_equal(
            got, expected, on=f"beta2 = {beta2}, excess = {excess}", hint=hint
        )
    return "For beta2 = 0.999, thousands of steps: longer than many runs."


@exercise("training.adamw-step")
def adamw_step(adamw_step):
    """Three steps in a row, against torch.optim.AdamW."""
    answer_for = without(adamw_step, module="torch.optim.optimizer")
    for lr, b1, b2, eps, decay in (
        (0.1, 0.9, 0.999, 1e-8, 0.0),
        (0.05, 0.8, 0.95, 1e-2, 0.0),
        (0.1, 0.9, 0.99, 1e-8, 0.3),
    ):
        p = nn.Parameter(_normal(3, 2).double())
        options = dict(lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay)
        optimizer = torch.optim.AdamW([p], **options)
        w, m, v = p.detach().clone(), torch.zeros_like(p), torch.zeros_like(p)
        m, v = m.detach(), v.detach()
        for t in range(1, 4):
            on = (
                f"step t = {t}, lr = {lr}, betas = ({b1}, {b2}), eps = {eps}, "
                f"decay = {decay}"
            )
            g = _normal(3, 2, seed=t).double()
            kept = [x.clone() for x in (w, g, m, v)]
            answer = answer_for(w, g, m, v, t, lr, b1, b2, eps, decay)
            if not (isinstance(answer, tuple | list) and len(answer) == 3):
                raise Wrong("Three tensors are asked for: w, m and v.", on=on)
            optimizer.zero_grad()
            p.grad = g.clone()
            optimizer.step()
            state = optimizer.state[p]
            _judge_adamw(
                answer, kept, p.detach(), state, t, (lr, b1, b2, eps, decay), on
            )
            given = *kept, t, lr, b1, b2, eps, decay
            unchanged(adamw_step, *given, names="w g m v", on=on)
            w, m, v = (x.detach().clone() for x in answer)
    return "Six lines, and most networks of the world are trained by them."


def _judge_adamw(answer, before, right, state, t, options, on) -> None:
    """Compare one step, and name what went wrong."""
    w, g, m, v = before
    lr, b1, b2, eps, decay = options
    for name, got in zip("wmv", answer, strict=True):
        if isinstance(got, torch.Tensor) and got.dtype != w.dtype:
            raise Wrong(
                f"`{name}` came as {got.dtype}, and {w.dtype} was given.",
                on=on,
                hint="A step keeps the type of its numbers.",
            )
    mean, square = state["exp_avg"], state["exp_avg_sq"]
    expect_shape(answer[0], tuple(w.shape), on=on)
    expect_close(
        answer[1],
        mean,
        on=on,
        hint=_hint(
            answer[1],
            {
                "The new gradient has weight 1 - beta1. Or is this the "
                "corrected m? Return m itself.": b1 * m + g,
                "The betas of old and new are exchanged.": (1 - b1) * m
                + b1 * g,
                "beta1 is for m, beta2 for v; here they are exchanged.": b2 * m
                + (1 - b2) * g,
                "w comes first, then m, then v.": square,
                "The decay went into m: that is L2, not AdamW.": b1 * m
                + (1 - b1) * (g + decay * w),
                "Return m itself, not the corrected one.": mean / (1 - b1**t),
            },
        ),
    )
    expect_close(
        answer[2],
        square,
        on=on,
        hint=_hint(
            answer[2],
            {
                "v is the mean of the *squares*.": b2 * v + (1 - b2) * g,
                "This squares m, not the gradient.": b2 * v
                + (1 - b2) * mean**2,
                "The new square has weight 1 - beta2. Or is this the "
                "corrected v? Return v itself.": b2 * v + g**2,
                "Return v itself, not the corrected one.": square / (1 - b2**t),
            },
        ),
    )
    m_hat, v_hat = mean / (1 - b1**t), square / (1 - b2**t)

    def step(m_hat=m_hat, v_hat=v_hat, start=w, shrink=lr * decay):
        return start - shrink * w - lr * m_hat / (v_hat.sqrt() + eps)

    mistakes = {
        "The corrections are missing.": step(mean, square),
        "m is not corrected.": step(m_hat=mean),
        "v is not corrected.": step(v_hat=square),
        "The decay is missing.": step(shrink=0.0),
        "The decay is a share of the rate: lr * decay * w, not decay * w.": (
            step(shrink=decay)
        ),
        "This uses the old m and v; a step begins by renewing them.": step(
            *(
                (x - (1 - b) * new) / b / (1 - b**t)
                for x, b, new in ((mean, b1, g), (square, b2, g**2))
            )
        ),
        "The decay is a share of the *old* w, before the step.": (
            step(shrink=0.0) * (1 - lr * decay)
        ),
        "eps is added to the corrected root: correct v first.": w
        - lr * decay * w
        - lr * m_hat * math.sqrt(1 - b2**t) / (square.sqrt() + eps),
        "The root is missing under m_hat.": w
        - lr * decay * w
        - lr * m_hat / (v_hat + eps),
        "eps stands outside the root.": w
        - lr * decay * w
        - lr * m_hat / (v_hat + eps).sqrt(),
        "The step goes uphill: subtract it.": w
        - lr * decay * w
        + lr * m_hat / (v_hat.sqrt() + eps),
        "The decay is added; it should shrink the weight.": step(
            shrink=-lr * decay
        ),
        "The corrections depend on t: divide by 1 - beta**t.": step(
            mean / (1 - b1), square / (1 - b2)
        ),
        "Steps are counted from 1: with t - 1 the corrections are those of "
        "the step before.": step(
            mean / max(1 - b1 ** (t - 1), 1e-9),
            square / max(1 - b2 ** (t - 1), 1e-9),
        ),
        "t is counted from 1 already; with t + 1 the corrections are those "
        "of the next step.": step(
            mean / (1 - b1 ** (t + 1)), square / (1 - b2 ** (t + 1))
        ),
    }
    if decay == 0:  # these are right answers then
        for text in list(mistakes):
            if "decay" in text:
                del mistakes[text]
    expect_close(answer[0], right, on=on, hint=_hint(answer[0], mistakes))


@exercise("training.stable-decay")
def stable_decay(stable_decay):
    """Every step of four runs."""
    for warmup, total, decay in (
        (4, 20, 5),
        (1, 9, 3),
        (10, 30, 20),
        (0, 8, 8),
    ):
        factor, seen = stable_decay(warmup, total, decay), set()
        on = f"warmup = {warmup}, total = {total}, decay = {decay}"
        if not callable(factor):
            raise Wrong(
                "Return a function of the step.", on=on, got=factor,
                hint="Define `factor(step)` inside, and return it uncalled.",
            )  # fmt: skip
        # a function of the step: it may be asked in any order
        for step in [*range(total + 4), 0, total - 1]:
            rise = (step + 1) / warmup if warmup else 1.0
            fall = (total - step) / decay
            right = max(0.0, min(1.0, rise, fall))
            got = factor(step)
            hint = ""
            if step < warmup and _alike(got, step / warmup):
                hint = (
                    "The first value is 1/warmup, not 0: a step at rate 0 "
                    "is lost."
                )
            elif step < warmup and _alike(got, 1.0):
                hint = "The rise is missing."
            elif step == total and _alike(got, 1 / decay):
                hint = "Step `total`, after the last one, has factor 0."
            elif step > total:
                hint = "After the last step the factor stays at 0."
            elif step < total - decay:
                hint = "It stays at 1 until the last `decay` steps."
            elif step >= total - decay and _alike(
                got, max(0.0, (total - 1 - step) / decay)
            ):
                hint = (
                    "The first of the falling steps still has factor 1, and "
                    "the last 1/decay. This is one step ahead."
                )
            elif step >= total - decay and _alike(got, 1.0):
                hint = "The fall is missing, or begins too late."
            elif _alike(got, fall) and fall > 1:
                hint = "No factor exceeds 1."
            elif got is not None and not isinstance(got, torch.Tensor):
                if isinstance(got, int | float) and got < 0:
                    hint = "No factor is below 0."
            if step in seen and not _alike(got, right):
                hint = (
                    "The same step had another factor before. Compute it from "
                    "`step`; do not count calls: a run may resume anywhere."
                )
            seen.add(step)
            expect_close(got, right, on=f"{on}; step {step}", hint=hint)
    return "Such a run can be prolonged: go back to before the fall."


@exercise("training.clip-together")
def clip_together(clip):
    """Large, small, exactly at the limit, and zero."""
    careful = without(clip, module="torch.nn.utils.clip_grad")
    shapes = ((3, 4), (5,), ())
    base = [_normal(*s, seed=i) for i, s in enumerate(shapes)]
    cases = {
        "gradients over the limit": ([10 * g for g in base], 1.0),
        "gradients below the limit": ([0.01 * g for g in base], 1.0),
        "one large tensor and one small one": ([base[0], 1e-3 * base[1]], 0.5),
        "a large limit": (base, 100.0),
        "all zero": ([torch.zeros(2, 2), torch.zeros(3)], 1.0),
        "one tensor": ([base[0]], 0.1),
        "exactly at the limit": ([torch.tensor([3.0, 0.0, 4.0])], 5.0),
    }
    for name, (grads, limit) in cases.items():
        on = f"{name}, limit = {limit}"
        norm = math.sqrt(sum(g.double().square().sum().item() for g in grads))
        factor = min(1.0, limit / norm) if norm else 1.0
        answer = careful([g.clone() for g in grads], limit)
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise Wrong("Two things are asked for: tensors and norm.", on=on)
        clipped, said = answer
        if not isinstance(clipped, tuple | list) or len(clipped) != len(grads):
            raise Wrong(f"Expected a list of {len(grads)} tensors.", on=on)
        each = [g.double().norm().item() for g in grads]
        expect_close(
            said,
            norm,
            on=on,
            hint=_hint(
                said,
                {
                    "The root is missing.": norm**2,
                    "Norms do not add up; their squares do.": sum(each),
                    "This is the largest norm, not the common one.": max(each),
                    "This is the largest number, not the norm of all.": max(
                        g.abs().max().item() for g in grads
                    ),
                    "This is the norm after clipping.": norm * factor,
                    "This is the mean of the norms.": sum(each) / len(each),
                },
            ),
            atol=1e-4,
        )
        for i, (got, g) in enumerate(zip(clipped, grads, strict=True)):
            alone = g * min(1.0, limit / max(each[i], 1e-12))
            hint = _hint(
                got,
                {
                    "Nothing is clipped." if factor < 1 else "": g,
                    "This clips each number by itself, and turns the "
                    "gradient.": g.clamp(-limit, limit),
                    "This clips each tensor by its own norm, and turns the "
                    "gradient.": alone,
                    "Gradients below the limit stay as they are; these were "
                    "scaled up to it.": g * (limit / max(norm, 1e-12)),
                    "The factor is limit / norm. This multiplies by the "
                    "limit only.": g * limit,
                    "The limit is not 1: the factor is limit / norm.": g
                    * min(1.0, 1 / max(norm, 1e-12)),
                    "The factor is limit / norm, and not its square.": g
                    * min(1.0, (limit / max(norm, 1e-12)) ** 2),
                },
            )
            if isinstance(got, torch.Tensor) and got.isnan().any():
                hint = "A norm of zero: 0/0. Such gradients stay zero."
            expect_close(got, g * factor, on=f"{on}; tensor {i}", hint=hint)
    return "One factor for all: the direction stays."


@exercise("training.smooth-padding")
def smooth_padding(smoothed):
    """Against the definition, symbol by symbol."""
    cases = ((3, 5, 7, 0, 0.1), (2, 4, 5, 3, 0.3), (1, 6, 4, 1, 0.0))
    for b, t, v, pad, eps in cases:
        logits = 2 * _normal(b, t, v, seed=v).double()
        make = torch.Generator().manual_seed(v)
        targets = torch.randint(v - 1, (b, t), generator=make)
        targets += (targets >= pad).long()  # never the padding symbol ...
        targets[:, t // 2 :] = pad  # ... but at the end
        targets[0] = torch.where(targets[0] == pad, (pad + 1) % v, targets[0])
        on = f"B, T, V = {b}, {t}, {v}, pad = {pad}, epsilon = {eps}"
        real = targets != pad
        log_p = logits.log_softmax(-1)
        right = log_p.gather(-1, targets[..., None])[..., 0]
        total = log_p.sum(-1)
        real_mean = (total - log_p[..., pad]) / (v - 1)
        cost = -(1 - eps) * right - eps * real_mean
        all_v = -(1 - eps) * right - eps * total / v
        kept = cost[real]
        wrong_class = (total - log_p[..., pad] - right) / (v - 2)
        library = F.cross_entropy(
            logits.flatten(0, 1), targets.flatten(), label_smoothing=eps
        )
        half = -(1 - eps) * (right * real).sum() / real.sum()
        mistakes = {
            "This is the sum; divide by the number of real tokens.": kept.sum(),
            "Padded places are averaged too.": cost.mean(),
            "Padded places add nothing here, but they are counted.": (
                (cost * real).sum() / real.numel()
            ),
            "This is a mean of the rows' means: tokens of short rows count "
            "more.": ((cost * real).sum(1) / real.sum(1)).mean(),
            "The padding symbol gets a share of epsilon: spread it over "
            "V - 1 symbols.": all_v[real].mean(),
            "The share of the padding symbol is left out, but the others do "
            "not get it: divide by V - 1.": (
                -(1 - eps) * right - eps * (total - log_p[..., pad]) / v
            )[real].mean(),
            "The right symbol gets a share of epsilon as well.": (
                -(1 - eps) * right - eps * wrong_class
            )[real].mean(),
            "The smoothed part counts padded places, the other one does "
            "not.": half - eps * real_mean.mean(),
            "PyTorch's function does not know the padding unless "
            "ignore_index says so, and gives it a share of epsilon.": library,
            "The sign: a cross-entropy is positive.": -kept.mean(),
            "There is no smoothing." if eps else "": -right[real].mean(),
            "The softmax is over all V symbols. `pad` gets no share of "
            "epsilon, and still has a probability.": _smoothed(
                logits.index_fill(-1, torch.tensor([pad]), -1e6),
                targets,
                pad,
                eps,
            ),
            "The logarithm is missing: these are probabilities.": -(
                (1 - eps) * right.exp()
                + eps * (log_p.exp().sum(-1) - log_p[..., pad].exp()) / (v - 1)
            )[real].mean(),
            "The softmax runs over V, the last axis.": _smoothed(
                logits, targets, pad, eps, axis=1
            ),
            "The parts are exchanged: 1 - epsilon belongs to the right "
            "symbol.": (-eps * right - (1 - eps) * real_mean)[real].mean(),
        }
        got = smoothed(logits.clone(), targets.clone(), pad, eps)
        expect_shape(got, (), on=on)
        expect_close(got, kept.mean(), on=on, hint=_hint(got, mistakes))
    noisy = logits.clone()
    noisy[~real] = 50.0 * _normal(int((~real).sum()), v, seed=9).double()
    got = smoothed(noisy, targets.clone(), pad, eps)
    expect_close(
        got,
        kept.mean(),
        on=f"{on}; other logits at the padded places",
        hint="What stands at padded places must not matter.",
    )
    sure = (1000 * logits).requires_grad_()
    kept = _smoothed(sure, targets, pad, eps)
    got = smoothed(sure, targets.clone(), pad, eps)
    on = f"{on}; logits of size 1000"
    expect_close(
        got,
        kept,
        on=on,
        hint="exp(-1000) is zero, and its logarithm minus infinity. "
        "`log_softmax` never forms it.",
    )
    if not isinstance(got, torch.Tensor) or not got.requires_grad:
        raise Wrong(
            "The value is right, and no gradient can flow through it.",
            on=on,
            got=got,
            hint="A loss is a tensor: no `.item()`, `float()` or `.detach()`.",
        )
    expect_close(
        torch.autograd.grad(got, sure)[0],
        torch.autograd.grad(kept, sure)[0],
        on=f"{on}: the gradient of your loss",
    )
    return "Training and evaluation must share one convention."


def _smoothed(logits, targets, pad, eps, axis=-1):
    """The definition, with gradients."""
    real = targets != pad
    log_p = logits.log_softmax(axis)[real]
    right = log_p.gather(-1, targets[real][:, None])[:, 0]
    others = (log_p.sum(-1) - log_p[:, pad]) / (logits.shape[-1] - 1)
    return -((1 - eps) * right + eps * others).mean()


@exercise("training.workers")
def workers(factors):
    """The averaged gradient, for equal and unequal counts."""
    for counts in ([12, 2], [5, 5, 5], [7, 0, 3, 2], [1], [100, 300]):
        on = f"counts = {counts}"
        w, n = len(counts), sum(counts)
        expected = [w * c / n for c in counts]
        got = factors(list(counts))
        if not isinstance(got, list | tuple) or len(got) != w:
            raise Wrong(f"Expected a list of {w} numbers.", on=on, got=got)
        got = torch.tensor([float(x) for x in got], dtype=torch.double)

        def wrong(values):
            return torch.tensor(values, dtype=torch.double)

        mistakes = {
            "The library divides by the number of workers already: "
            "multiply by it.": wrong([c / n for c in counts]),
            "This is for the *summed* losses. Here each worker has a mean.": (
                wrong([w / n] * w)
            ),
            "With factors of 1 the workers' means are averaged: tokens of "
            "small batches count more."
            if expected != [1.0] * w
            else "": (wrong([1.0] * w)),
            "The other way round: more tokens, more weight.": wrong(
                [n / (w * c) if c else 0.0 for c in counts]
            ),
            "These do not depend on the other workers.": wrong(
                [float(c) for c in counts]
            ),
            "A worker without tokens is still one of those over whom the "
            "library averages.": wrong(
                [sum(c > 0 for c in counts) * c / n for c in counts]
            ),
            "The number of workers is `len(counts)`, not always 4.": wrong(
                [4 * c / n for c in counts]
            ),
            "Factors need not be whole numbers.": wrong(
                [float(w * c // n) for c in counts]
            ),
        }
        expect_close(got, wrong(expected), on=on, hint=_hint(got, mistakes))
    return "In practice: the summed loss times W over the total of tokens."


@exercise("training.temperature")
def temperature(temperature):
    """Boastful and shy models, judged on other data."""
    for scale in (3.0, 0.4, 7.0, 16.0, 0.07):
        name = "boastful" if scale > 1 else "shy" if scale < 1 else "honest"
        on = f"a model that is {name}: honest logits times {scale}"
        honest = 2 * _normal(4000, 6, seed=int(10 * scale))
        make = torch.Generator().manual_seed(5)
        targets = torch.multinomial(honest.softmax(-1), 1, generator=make)[:, 0]
        logits = scale * honest
        seen, other = slice(0, 2000), slice(2000, 4000)
        kept = logits[seen].clone()
        got = temperature(kept, targets[seen])
        if isinstance(got, torch.Tensor):
            got = got.item()
        if not isinstance(got, int | float) or not math.isfinite(got):
            raise Wrong("Expected one finite number.", on=on, got=got)
        tries = torch.logspace(math.log10(0.05), math.log10(20), 400)
        losses = torch.stack(
            [F.cross_entropy(logits[seen] / t, targets[seen]) for t in tries]
        )
        best = tries[losses.argmin()].item()
        if abs(math.log(got / best) if got > 0 else 9.0) > 0.025:
            mistakes = {
                "This number *multiplies* the logits; they are divided by "
                "it.": 1 / best,
                "The accuracy does not depend on the temperature; minimise "
                "the cross-entropy."
                if abs(best - 1) > 0.1
                else "": 1.0,
                "The end of the range: is the loss minimised, or "
                "maximised?": 20.0,
                "The low end of the range: is the loss minimised, or "
                "maximised?": 0.05,
            }
            hint = next(
                (
                    t
                    for t, w in mistakes.items()
                    if got > 0 and abs(math.log(got / w)) < 0.03
                ),
                "Cross-entropy of `logits / temperature` against the "
                "targets, on all of them.",
            )
            raise Wrong(
                "Another temperature has a lower cross-entropy.",
                on=on,
                expected=best,
                got=got,
                hint=hint,
            )
        before = calibration_error(logits[other], targets[other])
        after = calibration_error(logits[other] / got, targets[other])
        if after > max(0.05, before):
            raise Wrong(
                "On other data the calibration error is "
                f"{after:.3f}, before it was {before:.3f}.",
                on=on,
            )
    return "One number, no training, and not one answer has changed."


def _record(
    *, stop=None, fault="nothing", seed=0, steps=14, lr=0.05, falls=True
):
    """The steps of a small run, straight or resumed with one fault."""
    make = torch.Generator().manual_seed(seed)
    data = [(i, _normal(6, 3, seed=100 * seed + i)) for i in range(9)]
    order = torch.randperm(9, generator=make).tolist()
    data = [data[i] for i in order]
    seen: list[dict] = []

    def factor(step):
        return warmup_linear(3, steps)(step if falls else min(step, 3))

    def loss_fn(model, batch):
        number, x = batch
        loss = (model(x) - x.sum(1, keepdim=True)).square().sum()
        seen.append({"batch": number, "loss": loss.item() / len(x)})
        return loss, len(x)

    def build():
        set_seed(seed)
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.4), nn.Linear(8, 1))
        return model, AdamW(model.parameters(), lr=lr)

    options = dict(steps=stop or steps, schedule=factor, progress=False)
    model, optimizer = build()
    history = train(model, data, loss_fn, optimizer, **options)
    if stop is not None:
        options["steps"] = steps
        if fault == "optimiser":
            optimizer = AdamW(model.parameters(), lr=lr)
        if fault == "random state":
            torch.manual_seed(1000 + seed)
        if fault == "schedule":
            options["schedule"] = lambda step: factor(step - stop)
        batches = data
        if fault == "data":  # so that after the skipping it begins again
            batches = [data[(i - stop) % 9] for i in range(9 * steps)]
        train(model, batches, loss_fn, optimizer, history=history, **options)
    return [
        {**step, "rate": rate}
        for step, rate in zip(seen, history.rates, strict=True)
    ]


@exercise("training.forgotten", seconds=60)
def forgotten(forgotten):
    """Real runs, each resumed with one thing missing."""
    faults = ("nothing", "data", "schedule", "random state", "optimiser")
    hints = {
        ("data", "random state"): "The batch differs too, and explains the "
        "loss. Look at the batches first.",
        ("schedule", "optimiser"): "The rate differs too, and explains the "
        "later losses. Look at the rates before the losses.",
        ("random state", "optimiser"): "The loss of step `stop` itself "
        "differs. A fresh optimiser cannot do that: it has made no step yet.",
        ("optimiser", "random state"): "The loss of step `stop` is the same. "
        "Other dropout masks would have changed it.",
        ("optimiser", "nothing"): "The records agree at step `stop`, and not "
        "after it. Look at all the later losses.",
        ("nothing", "optimiser"): "The records are equal everywhere.",
    }
    kinds = (
        ("", 0, (5, 10), {}),
        ("", 1, (7,), {}),
        (", at a tiny rate", 2, (6,), dict(lr=1e-6)),
        (", with a rate that rises and then stays", 3, (8,), dict(falls=False)),
    )
    for kind, seed, stops, options in kinds:
        straight = _record(seed=seed, **options)
        for stop in stops:
            for fault in faults:
                resumed = _record(stop=stop, fault=fault, seed=seed, **options)
                got = forgotten(
                    [dict(s) for s in straight],
                    [dict(s) for s in resumed],
                    stop,
                )
                hint = hints.get((fault, got), "")
                if got not in faults:
                    hint = "Return one of: " + ", ".join(faults) + "."
                expect_equal(
                    got,
                    fault,
                    on=f"stopped after {stop} steps{kind}, lost: {fault}",
                    hint=hint,
                )
    return "So every resuming loop should be tested: run both, and compare."
