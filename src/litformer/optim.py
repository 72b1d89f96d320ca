# Written in chapters/training.md; edit it there, then run make export.
"""From gradients to parameters: AdamW, and how long its steps are.

A schedule is a function of the step, counted from 0, that gives the factor of
the learning rate at that step. `train` multiplies; the optimiser keeps the
rate at factor 1.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

__all__ = [
    "AdamW",
    "adamw_update",
    "decay_groups",
    "inverse_sqrt",
    "warmup_cosine",
    "warmup_linear",
]


@torch.no_grad()
def adamw_update(
    params: list[Tensor],
    grads: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """Step number `step` (from 1) of AdamW, in place, for all tensors at once.

    Source: Loshchilov and Hutter (2019), algorithm 2.
    """
    # torch._foreach_* run one operation over a list of tensors, which saves
    # most of the time of many small tensors; torch.optim is built on them.
    first, second = betas
    if weight_decay:
        torch._foreach_mul_(params, 1 - lr * weight_decay)
    torch._foreach_lerp_(means, grads, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, grads, grads, 1 - second)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, math.sqrt(1 - second**step))
    torch._foreach_add_(roots, eps)
    torch._foreach_addcdiv_(params, means, roots, -lr / (1 - first**step))


class AdamW(torch.optim.Optimizer):
    """Steps of one length for every parameter, and decay that is decoupled.

    Each gradient is divided by the root of the running mean of its square;
    `weight_decay` shrinks the weights directly, in units of `lr`.

    Raises:
        ValueError: options out of range, or sparse gradients.

    Source: Kingma and Ba (2015); Loshchilov and Hutter (2019).
    """

    def __init__(
        self,
        params: Iterable,
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        options = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(params, options)
        for group in self.param_groups:  # a group may bring its own options
            for name in ("lr", "eps", "weight_decay"):
                if not group[name] >= 0:
                    raise ValueError(
                        f"AdamW: {name} must be 0 or more, got {group[name]}."
                    )
            if not all(0 <= beta < 1 for beta in group["betas"]):
                raise ValueError(
                    f"AdamW: betas must be in [0, 1), got {group['betas']}."
                )

    @torch.no_grad()
    def step(self, closure: Callable | None = None) -> Tensor | None:
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            ages: dict[int, list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    ages.setdefault(self._age(p), []).append(p)
            for age, params in ages.items():
                state = [self.state[p] for p in params]
                adamw_update(
                    params,
                    [p.grad for p in params],
                    [s["mean"] for s in state],
                    [s["square"] for s in state],
                    step=age,
                    lr=group["lr"],
                    betas=group["betas"],
                    eps=group["eps"],
                    weight_decay=group["weight_decay"],
                )
        return loss

    def _age(self, p: Tensor) -> int:
        """Steps of this parameter, with this one; it may have sat some out."""
        if p.grad.is_sparse:
            raise ValueError(
                "AdamW: a gradient is sparse. Build nn.Embedding without "
                "sparse=True."
            )
        state = self.state[p]
        if not state:
            state["step"] = 0
            state["mean"] = torch.zeros_like(p)
            state["square"] = torch.zeros_like(p)
        state["step"] += 1
        return state["step"]


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Two groups for an optimiser: matrices decay, the rest does not.

    Biases and norms have one axis; shrinking them only hurts the scale that
    they set. Rows of an embedding that a batch lacks would shrink without
    being used. A tied output layer is an embedding here.
    """
    tables = {
        id(p)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for p in module.parameters()
    }
    decay, rest = [], []
    for p in model.parameters():
        if p.requires_grad:
            matrix = p.ndim >= 2 and id(p) not in tables
            (decay if matrix else rest).append(p)
    groups = [(decay, weight_decay), (rest, 0.0)]
    return [dict(params=p, weight_decay=d) for p, d in groups if p]


def _warmup(who: str, warmup: int, total: int) -> None:
    """Refuse a warm-up that does not fit into the run."""
    if not 0 <= warmup < total:
        raise ValueError(
            f"{who}: warmup must be in 0 to total - 1 = {total - 1} steps, "
            f"got {warmup}."
        )


def warmup_linear(warmup: int, total: int) -> Callable[[int], float]:
    """Rise to 1 in `warmup` steps, then fall evenly to 0 at step `total`.

    The first step has factor 1/warmup, the last one 1/(total - warmup): no
    step is wasted on a factor of 0.
    """
    _warmup("warmup_linear", warmup, total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (total - step) / (total - warmup))

    return factor


def warmup_cosine(
    warmup: int, total: int, *, floor: float = 0.1
) -> Callable[[int], float]:
    """Rise to 1 in `warmup` steps, then half a cosine down to `floor`.

    Source: Loshchilov and Hutter (2017), section 3, without restarts.
    """
    _warmup("warmup_cosine", warmup, total)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min(1.0, (step - warmup) / (total - warmup))
        return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2

    return factor


def inverse_sqrt(d_model: int, warmup: int) -> Callable[[int], float]:
    """The rate of the 2017 Transformer itself: use it with lr=1.

    It rises to 1/sqrt(d_model * warmup) in `warmup` steps, then falls with
    the root of the step.

    Source: Vaswani et al. (2017), equation 3.
    """
    if warmup < 1 or d_model < 1:
        raise ValueError(
            "inverse_sqrt: needs d_model >= 1 and warmup >= 1, got "
            f"d_model={d_model}, warmup={warmup}."
        )

    def factor(step: int) -> float:
        number = step + 1  # the paper counts from 1
        return d_model**-0.5 * min(number**-0.5, number * warmup**-1.5)

    return factor
