# Written in chapters/training.md; edit it there, then run make export.
"""The training loop: gradients summed, divided once, checked, then a step.

A loss function takes the model and one micro-batch. It returns the *sum* of
the losses of its tokens, and how many tokens that were, so that a mean over
several micro-batches is a mean over tokens.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from litformer.checkpoints import save_checkpoint
from litformer.runs import History, random_state, set_random_state

__all__ = ["TrainingDiverged", "set_seed", "train"]


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _endless(batches: Iterable) -> Iterator:
    """Pass after pass over the batches."""
    drawn = 0
    while True:
        before = drawn
        for batch in batches:
            drawn += 1
            yield batch
        if drawn == before:
            raise ValueError(
                f"train: batches ended after {drawn}, and more are needed. "
                "Pass a list or a DataLoader, which can be read again, or a "
                "generator without end."
            )


def _from(batches: Iterable, used: int) -> Iterator:
    """The batches that come after those that a resumed run has used."""
    stream = _endless(batches)
    if used:
        before = random_state()  # drawing must not move the model's dropout
        for _ in range(used):
            next(stream)
        set_random_state(before)
    return stream


def _accumulate(
    model: nn.Module, loss_fn: Callable, micro: list
) -> tuple[list[float], int]:
    """Add up gradients of summed losses; return the sums, and the tokens."""
    sums, counts = [], []
    for batch in micro:
        found = loss_fn(model, batch)
        if not (isinstance(found, tuple) and len(found) == 2):
            raise TypeError(
                "train: loss_fn must return (sum of losses, number of "
                f"tokens), got {type(found).__name__}."
            )
        found[0].backward()
        sums.append(found[0].detach())
        counts.append(found[1])
    # read numbers only now: each reading waits for the device
    tokens = sum(int(count) for count in counts)
    if tokens < 1:
        raise ValueError(
            f"train: the {len(micro)} batch(es) of a step hold {tokens} "
            "tokens that count. Is everything padding?"
        )
    return [float(s) for s in sums], tokens


def _average_and_clip(
    optimizer: torch.optim.Optimizer, tokens: int, clip_norm: float | None
) -> float:
    """Divide the gradients by the tokens, clip; return the norm before it."""
    groups = optimizer.param_groups
    params = [p for group in groups for p in group["params"]]
    grads = [p.grad for p in params if p.grad is not None]
    if not grads:
        raise ValueError(
            "train: no parameter of the optimiser got a gradient. Was it "
            "built from the parameters of another model?"
        )
    norm = torch.nn.utils.get_total_norm(grads).item() / tokens
    clip = 1.0 if clip_norm is None else min(1.0, clip_norm / (norm + 1e-6))
    if math.isfinite(norm):  # otherwise they stay, as evidence
        torch._foreach_mul_(grads, clip / tokens)
    return norm


def _step(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """One step at a multiple of each group's rate; return the first rate."""
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        optimizer.step()
    finally:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
    return float(rates[0] * factor)


class TrainingDiverged(RuntimeError):
    """A loss or gradient is not finite; the model is as before this step.

    `step` and `batch`, counted from 0, say where; `data` is the micro-batch
    and `history` what came before.
    """

    def __init__(self, message, *, step, batch, data, history) -> None:
        super().__init__(message)
        self.step, self.batch = step, batch
        self.data, self.history = data, history


def _check_finite(model, history, micro, sums, norm, checkpoint) -> None:
    """Stop before a loss or a gradient that is no number does harm."""
    bad = [i for i, value in enumerate(sums) if not math.isfinite(value)]
    if not bad and math.isfinite(norm):
        return
    at = bad[0] if bad else 0
    step, batch = len(history), sum(history.batches) + at
    what = f"the loss is {sums[at]}" if bad else f"the gradient is {norm}"
    kept = "There is no checkpoint."
    if checkpoint is not None:
        kept = f"The last checkpoint in {checkpoint} is intact."
    raise TrainingDiverged(
        f"train: {what} at step {step}, batch {batch}. "
        f"{_likely_cause(model, micro[at], history)} The model is as it was "
        f"before this step. {kept}",
        step=step,
        batch=batch,
        data=micro[at],
        history=history,
    )


def _likely_cause(model: nn.Module, batch: object, history: History) -> str:
    """The first explanation that fits."""
    if not all(t.isfinite().all() for t in _floats(batch)):
        return "The batch holds NaN or infinity: look at the data."
    for name, p in model.named_parameters():
        if not p.isfinite().all():
            return f"Parameter {name} was not finite before this step."
    recent = history.losses[-20:]
    if recent and recent[-1] > 1.5 * min(recent):
        return (
            f"The loss had grown from {min(recent):.3g} to {recent[-1]:.3g}: "
            f"the rate, {history.rates[-1]:.2g}, is too high. Lower it, warm "
            "up longer, or clip."
        )
    named = model.named_parameters()
    grads = [(n, p.grad) for n, p in named if p.grad is not None]
    traces = [n for n, g in grads if not g.isfinite().all()]
    trace = f" Its trace is in the gradient of {traces[-1]}." if traces else ""
    return (
        "Data and parameters are finite. Look for log 0, 0/0, the root of 0 "
        f"or an overflow on the way.{trace}"
    )


def _floats(batch: object) -> Iterator[Tensor]:
    """The floating-point tensors of a batch, however it is nested."""
    if isinstance(batch, Tensor) and batch.is_floating_point():
        yield batch
    elif isinstance(batch, dict):
        yield from _floats(list(batch.values()))
    elif isinstance(batch, list | tuple):
        for part in batch:
            yield from _floats(part)


def _check_run(grad_accum, clip_norm, checkpoint, every) -> None:
    """Refuse options that mean nothing."""
    if grad_accum < 1:
        raise ValueError(f"train: grad_accum must be >= 1, got {grad_accum}.")
    if clip_norm is not None and not clip_norm > 0:
        raise ValueError(
            f"train: clip_norm must be above 0, got {clip_norm}. None turns "
            "clipping off."
        )
    if every is not None and checkpoint is None:
        raise ValueError(
            f"train: checkpoint_every={every} without checkpoint=: name a "
            "folder."
        )
    if every is not None and every < 1:
        raise ValueError(f"train: checkpoint_every must be >= 1, got {every}.")


def _begin(history: History | None, checkpoint: str | Path | None) -> History:
    """The history to go on with; a new run must not replace an old one."""
    if history is None:
        history = History()
    if checkpoint is not None and not history and Path(checkpoint).exists():
        raise ValueError(
            f"train: {checkpoint} exists already, and this run would replace "
            "it. Resume it (history=load_checkpoint(...)), or delete it."
        )
    return history


def _bar(first: int, steps: int, progress: bool) -> tqdm:
    """The steps that are left, with a bar if they take over a second."""
    return tqdm(
        range(first, steps),
        initial=first,
        total=steps,
        unit="step",
        delay=1.0,
        disable=not progress,
    )


def _due(done: int, steps: int, every: int | None) -> bool:
    """Is a checkpoint due? Always after the last step."""
    return done == steps or (every is not None and done % every == 0)


def train(
    model: nn.Module,
    batches: Iterable,
    loss_fn: Callable[[nn.Module, object], tuple],
    optimizer: torch.optim.Optimizer,
    *,
    steps: int,
    schedule: Callable[[int], float] | None = None,
    grad_accum: int = 1,
    clip_norm: float | None = 1.0,
    on_step: Callable[[History], object] | None = None,
    history: History | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int | None = None,
    progress: bool = True,
) -> History:
    """Train until `steps` steps are done in all; return what each did.

    `loss_fn(model, batch)` gives (sum of losses, number of tokens). To go on
    with an old run, pass the history that `load_checkpoint` returned, and
    the same batches from their beginning: those used are skipped.
    """
    _check_run(grad_accum, clip_norm, checkpoint, checkpoint_every)
    history = _begin(history, checkpoint)
    stream = _from(batches, sum(history.batches))
    model.train()
    for step in (bar := _bar(len(history), steps, progress)):
        optimizer.zero_grad()
        micro = [next(stream) for _ in range(grad_accum)]
        sums, tokens = _accumulate(model, loss_fn, micro)
        norm = _average_and_clip(optimizer, tokens, clip_norm)
        _check_finite(model, history, micro, sums, norm, checkpoint)
        rate = _step(optimizer, 1.0 if schedule is None else schedule(step))
        history.add(sum(sums) / tokens, rate, norm, tokens, grad_accum)
        bar.set_postfix_str(f"loss {history.losses[-1]:.3f}", refresh=False)
        if on_step is not None:
            on_step(history)
            model.train()  # in case it was put to eval
        if checkpoint is not None and _due(step + 1, steps, checkpoint_every):
            save_checkpoint(checkpoint, model, optimizer, history)
    return history
