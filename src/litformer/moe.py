# Written in chapters/moe.md; edit it there, then run make export.
"""Mixture of experts: many feed-forward layers, few of them for each token.

A router scores E experts for each token and keeps the best K. The experts
answer their tokens only. Losses that keep the experts busy read the router's
decisions, which `record_routing` collects.

Axes: N tokens in one row, D d_model, F d_ff, E experts, K experts a token
uses, M slots: pairs of a token and one of its experts.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from litformer.feedforward import GatedFeedForward
from litformer.shapes import check_shape

__all__ = [
    "HOT",
    "Experts",
    "GroupedExperts",
    "MoE",
    "Routing",
    "TopKRouter",
    "balance_loss",
    "describe_routing",
    "expert_load",
    "experts_at_once",
    "grouped_linear",
    "load_balancing_loss",
    "pack",
    "record_routing",
    "router_z_loss",
    "within_capacity",
]


class Routing(NamedTuple):
    """What a router decided. `kept` is None where nothing was dropped."""

    weights: Float[Tensor, "N K"]
    experts: Int[Tensor, "N K"]
    logits: Float[Tensor, "N E"]
    kept: Bool[Tensor, "N K"] | None = None

    @property
    def assigned(self) -> Int[Tensor, "N K"]:
        """The experts; the number E, which no expert has, where dropped."""
        if self.kept is None:
            return self.experts
        return self.experts.masked_fill(~self.kept, self.logits.shape[1])


def _check_router(
    d_model: int, n_experts: int, top_k: int, factor: float | None
) -> None:
    """Said when the router is built, and not at its first step."""
    if min(d_model, n_experts, top_k) < 1:
        raise ValueError(
            f"TopKRouter: sizes must be at least 1, got d_model={d_model}, "
            f"n_experts={n_experts}, top_k={top_k}."
        )
    if top_k > n_experts:
        raise ValueError(
            f"TopKRouter: top_k={top_k} exceeds n_experts={n_experts}: a "
            "token cannot use more experts than there are."
        )
    if factor is not None and not 0 < factor < math.inf:
        raise ValueError(
            "TopKRouter: capacity_factor must be positive and finite, got "
            f"{factor}. With 1.0 every expert has its fair share of slots; "
            "None drops nothing."
        )


class TopKRouter(nn.Module):
    """Score every expert for a token, and keep the best few.

    Weights are probabilities over all E experts, taken at the chosen ones.
    With `normalize` they sum to one: the default, except for `top_k=1`, where
    they would be a constant and the router could not learn. Experts have
    `capacity_factor` times their fair share of slots (None: no limit).
    `selection_bias` is added to the logits for the choice only.

    Raises:
        ValueError: sizes that do not fit, or a router that cannot learn.

    Source: Shazeer et al. (2017), section 2.1; Fedus et al. (2022), 2.1.
    """

    def __init__(
        self,
        d_model: int,
        n_experts: int,
        *,
        top_k: int = 2,
        normalize: bool | None = None,
        capacity_factor: float | None = None,
    ) -> None:
        super().__init__()
        _check_router(d_model, n_experts, top_k, capacity_factor)
        if normalize and top_k == 1:
            raise ValueError(
                "TopKRouter: with top_k=1 a normalised weight is always 1, "
                "and no gradient reaches the router. Use normalize=False."
            )
        self.d_model, self.n_experts, self.top_k = d_model, n_experts, top_k
        self.normalize = top_k > 1 if normalize is None else normalize
        self.capacity_factor = capacity_factor
        self.weight = nn.Parameter(torch.empty(n_experts, d_model))
        self.register_buffer("selection_bias", torch.zeros(n_experts))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights: normalised tokens get logits of variance one."""
        nn.init.normal_(self.weight, std=self.d_model**-0.5)

    def forward(self, x: Float[Tensor, "N D"]) -> Routing:
        """Choose the experts of each token."""
        hint = f"This router was built with d_model={self.d_model}."
        check_shape("TopKRouter", "x", x, "N D", D=self.d_model, hint=hint)
        wide = torch.promote_types(x.dtype, torch.float32)
        with torch.autocast(x.device.type, enabled=False):
            logits = F.linear(x.to(wide), self.weight.to(wide))
            choice = logits.detach() + self.selection_bias
            experts = choice.topk(self.top_k).indices
            weights = logits.softmax(-1).gather(1, experts)
            if self.normalize:
                weights = weights / weights.sum(-1, keepdim=True)
        kept = None
        if self.capacity_factor is not None:
            fair = experts.numel() / self.n_experts
            seats = max(1, math.ceil(self.capacity_factor * fair))
            kept = within_capacity(experts, self.n_experts, seats)
        return Routing(weights.to(x.dtype), experts, logits, kept)


class Experts(nn.Module):
    """Feed-forward layers side by side, one after another: the form to read.

    `make` is called once for each expert and gives any module from (M, D) to
    (M, D). Dropped slots add nothing.

    Raises:
        ValueError: no experts.
    """

    def __init__(self, n_experts: int, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        if n_experts < 1:
            raise ValueError(
                f"Experts: needs at least 1 expert, got n_experts={n_experts}."
            )
        self.n_experts = n_experts
        self.experts = nn.ModuleList(make() for _ in range(n_experts))

    def forward(
        self, x: Float[Tensor, "N D"], routing: Routing
    ) -> Float[Tensor, "N D"]:
        """Each expert answers the tokens sent to it, times their weights."""
        assigned, out = routing.assigned, torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            token, slot = (assigned == number).nonzero(as_tuple=True)
            weights = routing.weights[token, slot, None]
            answers = weights * expert(x[token])
            out = out.index_add(0, token, answers.to(x.dtype))
        return out


class MoE(nn.Module):
    """A feed-forward layer whose weights depend on the token.

    `router(x)` gives a `Routing`, `experts(x, routing)` the answers. `shared`,
    a plain feed-forward layer, serves every token besides. Where a slot was
    dropped, the layer adds nothing. `forward` returns one tensor and leaves
    nothing behind: see `record_routing` for the losses.

    Raises:
        ValueError: a router and experts that do not fit, or a wrong width.

    Source: Shazeer et al. (2017); Dai et al. (2024) for shared experts.
    """

    def __init__(
        self,
        router: TopKRouter,
        experts: nn.Module,
        *,
        shared: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if router.n_experts != experts.n_experts:
            raise ValueError(
                f"MoE: the router chooses among {router.n_experts} experts, "
                f"and there are {experts.n_experts}."
            )
        self.d_model = router.d_model
        self.router, self.experts, self.shared = router, experts, shared

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Send each token to its experts, and add up their answers."""
        hint = f"This layer was built with d_model={self.d_model}."
        check_shape("MoE", "x", x, "... D", D=self.d_model, hint=hint)
        row = x.reshape(-1, self.d_model)
        y = self.experts(row, self.router(row))
        if self.shared is not None:
            y = y + self.shared(row)
        return y.view(x.shape)


def _kernel_fits(rows: Tensor, weights: Tensor) -> bool:
    """Whether PyTorch's grouped product takes these operands."""
    if not hasattr(F, "grouped_mm") or torch.compiler.is_compiling():
        return False  # PyTorch before 2.10; or a tracer, which has no kernel
    takes = {
        "cpu": (torch.float32, torch.bfloat16, torch.float16),
        "cuda": (torch.bfloat16,),
    }.get(rows.device.type, ())
    if rows.is_cuda and torch.cuda.get_device_capability(rows.device) < (8, 0):
        return False
    whole = 16 // rows.element_size()  # numbers in 16 bytes
    return (
        rows.dtype == weights.dtype
        and rows.dtype in takes
        and not any(size % whole for size in weights.shape[1:])
        and rows.data_ptr() % 16 == 0 == weights.data_ptr() % 16
    )


def grouped_linear(
    rows: Float[Tensor, "M A"],
    weights: Float[Tensor, "E O A"],
    counts: Int[Tensor, "E"],
) -> Float[Tensor, "M O"]:
    """The first counts[0] rows times weights[0].T, the next times the next.

    One kernel where PyTorch has one that fits, else a product for each run.
    """
    check_shape("grouped_linear", "counts", counts, "E", E=len(weights))
    if _kernel_fits(rows, weights):
        ends = counts.cumsum(0).to(torch.int32)
        return F.grouped_mm(rows, weights.mT, offs=ends)
    runs = zip(rows.split(counts.tolist()), weights.unbind(), strict=True)
    return torch.cat([F.linear(run, weight) for run, weight in runs])


HOT = 2**20  # numbers: 4 MiB of fp32, small beside what a layer keeps


def experts_at_once(slots: Int[Tensor, "M"], n_experts: int, d_ff: int) -> int:
    """How many experts to serve together, so that their h stays small.

    At least one, and on a GPU all.
    """
    if slots.device.type != "cpu":
        return n_experts
    each = max(1.0, len(slots) * d_ff / n_experts)  # numbers in an expert's h
    return min(n_experts, max(1, int(HOT / each)))


class GroupedExperts(nn.Module):
    """Gated feed-forward layers whose matrices are stacked: the form to run.

    It equals `Experts` made of `GatedFeedForward(..., bias=False)`. Slots are
    sorted by expert, projections are grouped products, and answers are added
    where their tokens stand. A processor serves a few experts at a time.

    Raises:
        ValueError: sizes below one, or layers that cannot be packed.

    Source: Gale et al. (2023).
    """

    def __init__(
        self,
        n_experts: int,
        d_model: int,
        d_ff: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.silu,
    ) -> None:
        super().__init__()
        if min(n_experts, d_model, d_ff) < 1:
            raise ValueError(
                "GroupedExperts: sizes must be at least 1, got n_experts="
                f"{n_experts}, d_model={d_model}, d_ff={d_ff}."
            )
        self.n_experts, self.d_model, self.d_ff = n_experts, d_model, d_ff
        self.activation = activation
        wide, narrow = (n_experts, d_ff, d_model), (n_experts, d_model, d_ff)
        self.gate_proj = nn.Parameter(torch.empty(wide))
        self.up_proj = nn.Parameter(torch.empty(wide))
        self.down_proj = nn.Parameter(torch.empty(narrow))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform, expert by expert: variance 2 / (D + F)."""
        for stack in (self.gate_proj, self.up_proj, self.down_proj):
            for matrix in stack:
                nn.init.xavier_uniform_(matrix)

    def forward(
        self, x: Float[Tensor, "N D"], routing: Routing
    ) -> Float[Tensor, "N D"]:
        """Sort the slots by expert, multiply, and put the answers back."""
        slots = routing.assigned.flatten()
        order = slots.argsort(stable=True)
        counts = slots.bincount(minlength=self.n_experts)[: self.n_experts]
        if routing.kept is not None:  # dropped slots stand at the end
            order = order[: int(counts.sum())]
        token = order // routing.experts.shape[1]
        rows = x.index_select(0, token)  # (M, D)
        weights = routing.weights.flatten()[order, None]
        out = torch.zeros_like(x)
        for place, *block in self._blocks(counts, token, rows, weights):
            out.index_add_(0, place, self._answers(*block).to(x.dtype))
        return out

    def _blocks(self, counts: Tensor, *slots: Tensor) -> Iterable[tuple]:
        """Everything there is for some experts, then for the next ones."""
        stacks = self.gate_proj, self.up_proj, self.down_proj
        few = experts_at_once(slots[0], self.n_experts, self.d_ff)
        if few == self.n_experts:  # nothing to cut
            return [(*slots, counts, *stacks)]
        runs = [int(some.sum()) for some in counts.split(few)]
        cut = [t.split(runs) for t in slots]
        cut += [t.split(few) for t in (counts, *stacks)]
        return zip(*cut, strict=True)

    def _answers(
        self, rows: Tensor, weights: Tensor, counts: Tensor, *stacks: Tensor
    ) -> Float[Tensor, "M D"]:
        """What the experts of a block say to their rows, times the weights."""
        gate, up, down = stacks
        h = self.activation(grouped_linear(rows, gate, counts))
        h = h * grouped_linear(rows, up, counts)
        if self.d_ff < self.d_model:  # weigh where rows are short
            return grouped_linear(h * weights, down, counts)
        return grouped_linear(h, down, counts) * weights


def pack(layers: Iterable[GatedFeedForward]) -> GroupedExperts:
    """Gated layers of one size, without biases, as one `GroupedExperts`.

    Raises:
        ValueError: none, several sizes, biases, or dropout.
    """
    layers = list(layers)
    first = layers[0] if layers else None
    sizes = {(layer.d_model, layer.d_ff) for layer in layers}
    if first is None or len(sizes) > 1:
        raise ValueError(
            "pack: needs layers of one size, got (d_model, d_ff) of "
            f"{sorted(sizes)}."
        )
    if any(layer.up_proj.bias is not None for layer in layers):
        raise ValueError("pack: stacked experts have no biases: bias=False.")
    if any(layer.dropout for layer in layers):
        raise ValueError("pack: stacked experts have no dropout.")
    packed = GroupedExperts(
        len(layers), first.d_model, first.d_ff, activation=first.activation
    )
    with torch.no_grad():
        for name in ("gate_proj", "up_proj", "down_proj"):
            matrices = [getattr(layer, name).weight for layer in layers]
            getattr(packed, name).copy_(torch.stack(matrices))
    return packed.to(matrices[0])


def load_balancing_loss(
    routing: Routing, *, mask: Bool[Tensor, "N"] | None = None
) -> Float[Tensor, ""]:
    """E times the sum over experts of (share of slots) * (mean probability).

    It is 1 when all experts are equally busy, and E when one has everything.
    The share counts what the router wanted, dropped or not, and passes no
    gradient; the probability is over *all* experts, chosen or not. `mask`
    says which tokens count (True); leave out padding.

    Raises:
        ValueError: a mask of another length, or no token that counts.

    Source: Fedus et al. (2022), section 2.2.
    """
    logits, experts = routing.logits, routing.experts
    n, e = logits.shape
    if mask is not None:
        check_shape("load_balancing_loss", "mask", mask, "N", N=n)
        logits, experts = logits[mask], experts[mask]
    if not len(logits):
        raise ValueError(
            "load_balancing_loss: no token counts. Is everything padding?"
        )
    share = experts.flatten().bincount(minlength=e) / experts.numel()
    return e * (share * logits.softmax(-1).mean(0)).sum()


def router_z_loss(routing: Routing) -> Float[Tensor, ""]:
    """The mean square of the log-sum-exp of a token's logits.

    Source: Zoph et al. (2022), section 3.3.
    """
    return routing.logits.logsumexp(-1).square().mean()


def within_capacity(
    experts: Int[Tensor, "N K"], n_experts: int, capacity: int
) -> Bool[Tensor, "N K"]:
    """Which slots find a seat: first choices first, then in order of tokens.

    Raises:
        ValueError: a capacity below one.

    Source: Lepikhin et al. (2021), section 2.2.
    """
    if capacity < 1:
        raise ValueError(
            f"within_capacity: capacity must be at least 1, got {capacity}."
        )
    queue = rearrange(experts, "n k -> (k n)")
    seats = F.one_hot(queue, n_experts).cumsum(0)  # taken so far, each expert
    place = seats.gather(1, queue[:, None])
    k = experts.shape[1]
    return rearrange(place <= capacity, "(k n) 1 -> n k", k=k)


@contextmanager
def record_routing(model: nn.Module) -> Iterator[list[Routing]]:
    """Collect what each router of `model` decides within the `with` block.

    Like this::

        with record_routing(model) as routings:
            logits = model(tokens)
        loss = task_loss(logits) + 0.01 * balance_loss(routings)

    One entry for each call, in the order of the calls, with its gradients.
    Nothing stays on the model. A model without routers gives an empty list.
    """
    found: list[Routing] = []
    hooks = [
        layer.register_forward_hook(lambda _, args, out: found.append(out))
        for layer in model.modules()
        if isinstance(layer, TopKRouter)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def balance_loss(routings: Iterable[Routing]) -> Float[Tensor, ""]:
    """The mean of `load_balancing_loss` over the layers of a model.

    Raises:
        ValueError: nothing was recorded.
    """
    losses = [load_balancing_loss(routing) for routing in routings]
    if not losses:
        raise ValueError(
            "balance_loss: no routing was recorded. Call a model that has a "
            "TopKRouter inside `with record_routing(model)`. A compiled model "
            "does not call hooks that came later: record the original."
        )
    return torch.stack(losses).mean()


def expert_load(routing: Routing) -> Float[Tensor, "E"]:
    """How busy each expert is: slots that wanted it, 1 for the fair share."""
    e = routing.logits.shape[1]
    counts = routing.experts.flatten().bincount(minlength=e)
    return counts * e / max(1, routing.experts.numel())


def describe_routing(routing: Routing) -> str:
    """One line about a routing, for logs: who is crowded, idle, dropped."""
    load = expert_load(routing)
    n, k = routing.experts.shape
    kept = routing.kept
    lost = 0.0 if kept is None else 1 - kept.float().mean().item()
    return (
        f"{n} tokens x {k} to {len(load)} experts: the fullest is "
        f"{int(load.argmax())} with {load.max():.2f} of its fair share, "
        f"{int((load == 0).sum())} idle, {lost:.1%} of the slots dropped"
    )
