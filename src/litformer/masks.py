# Written in chapters/masks.md; edit it there, then run make export.
"""Masks: which query may read which key, and a detector for leaks.

A mask is bool, True = may attend, of shape (T, S) or of rank 4 and
broadcastable to (B, H, T, S). The T queries are the last T of the S
positions: query i stands at position S - T + i. Masks combine with `&` and
`|`.

Axes: B batch, H heads, T queries, S keys, D features.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from litformer.shapes import check_shape

__all__ = [
    "causal_mask",
    "document_mask",
    "document_positions",
    "influence",
    "leaks",
    "padding_mask",
    "prefix_mask",
    "response",
    "sliding_window_mask",
]


def _positions(
    who: str, t: int, s: int | None, device: torch.device | str | None
) -> tuple[Int[Tensor, "T 1"], Int[Tensor, "1 S"]]:
    """Where the queries and the keys stand, ready to be compared."""
    if isinstance(t, Tensor):
        raise TypeError(
            f"{who}: t must be a number of queries, got a tensor of shape "
            f"{tuple(t.shape)}. Pass its length, such as x.shape[-2]."
        )
    s = t if s is None else s
    if not 1 <= t <= s:
        raise ValueError(
            f"{who}: needs 1 <= T <= S, got T={t} queries and S={s} keys. "
            "The queries are the last T of the S positions: with a cache, S "
            "counts cached and new ones."
        )
    keys = torch.arange(s, device=device)
    return keys[s - t :, None], keys[None, :]


def causal_mask(
    t: int, s: int | None = None, *, device: torch.device | str | None = None
) -> Bool[Tensor, "T S"]:
    """Let each query see itself and what came before it.

    Raises:
        ValueError: more queries than keys; the first would see nothing.

    Source: Vaswani et al. (2017), section 3.2.3.
    """
    query, key = _positions("causal_mask", t, s, device)
    return key <= query


def _check_integers(who: str, name: str, tensor: Tensor, hint: str) -> None:
    """Refuse floats, and booleans, which are another kind of table."""
    kind = tensor.dtype
    if kind.is_floating_point or kind.is_complex or kind == torch.bool:
        raise TypeError(f"{who}: {name} must be integers, got {kind}. {hint}")


def padding_mask(lengths: Int[Tensor, " B"], s: int) -> Bool[Tensor, "B 1 1 S"]:
    """Hide the padding: key j of sequence b is real while j < lengths[b].

    The padding stands on the right; flip(-1) makes it the left. The check
    of the values waits for the device once, so build the mask once a batch.

    Raises:
        TypeError: lengths that are not integers.
        ValueError: wrong rank, or a length outside of 0 to S.
    """
    who, hint = "padding_mask", "For a table of real tokens (B, S) use "
    hint += "table.bool()[:, None, None, :]."
    check_shape(who, "lengths", lengths, "B", hint=hint)
    _check_integers(who, "lengths", lengths, "They count the real tokens.")
    if not torch.compiler.is_compiling():
        wrong = ((lengths < 0) | (lengths > s)).nonzero().flatten().tolist()
        if wrong:
            b, length = wrong[0], int(lengths[wrong[0]])
            raise ValueError(
                f"{who}: lengths must be between 0 and S={s}, got "
                f"lengths[{b}]={length}. Is s the width of the padded batch?"
            )
    real = torch.arange(s, device=lengths.device) < lengths[:, None]
    return rearrange(real, "b s -> b 1 1 s")


def prefix_mask(
    t: int,
    s: int | None = None,
    *,
    prefix: int,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "T S"]:
    """Let all see the first `prefix` keys, and the rest causally.

    Raises:
        TypeError: a tensor of prefixes; the message says what to do.
        ValueError: more queries than keys, or a prefix outside of 0 to S.

    Source: Raffel et al. (2020), section 3.2.1.
    """
    query, key = _positions("prefix_mask", t, s, device)
    if isinstance(prefix, Tensor):
        raise TypeError(
            f"prefix_mask: prefix must be one number, got a tensor of shape "
            f"{tuple(prefix.shape)}. For one prefix per sequence use "
            "causal_mask(t, s) | padding_mask(prefix, s)."
        )
    if not 0 <= prefix <= key.numel():
        raise ValueError(
            f"prefix_mask: prefix must be between 0 and S={key.numel()}, got "
            f"{prefix}. It counts the keys that every query may see."
        )
    return (key <= query) | (key < prefix)


def sliding_window_mask(
    t: int,
    s: int | None = None,
    *,
    window: int,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "T S"]:
    """Let each query see the last `window` keys, its own among them.

    Raises:
        ValueError: more queries than keys, or a window of less than 1.

    Source: Beltagy et al. (2020), section 3.1, here looking back only.
    """
    if window < 1:
        raise ValueError(
            f"sliding_window_mask: window must be at least 1, got {window}. "
            "It counts the query's own position: 1 sees only itself."
        )
    query, key = _positions("sliding_window_mask", t, s, device)
    return (key <= query) & (key > query - window)


def document_mask(
    documents: Int[Tensor, "B S"], t: int | None = None
) -> Bool[Tensor, "B 1 T S"]:
    """Keep packed documents apart: see only keys with your document's id.

    Both directions; add & causal_mask(t, s) for a decoder. Give the unused
    tail of a row an id of its own, and no query is left without a key. `t`
    counts the queries when the others are cached; by default all S.

    Raises:
        TypeError: ids that are not integers.
        ValueError: wrong rank, or more queries than ids.

    Source: Krell et al. (2021).
    """
    who, hint = "document_mask", "For a single row pass documents[None]."
    s = check_shape(who, "documents", documents, "B S", hint=hint)["S"]
    _check_integers(who, "documents", documents, "They are document ids.")
    query, _ = _positions(who, s if t is None else t, s, documents.device)
    mine = rearrange(documents[:, query.flatten()], "b t -> b 1 t 1")
    return mine == rearrange(documents, "b s -> b 1 1 s")


def document_positions(documents: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Count positions from 0 again wherever a new document begins.

    A document is a run of equal ids: [7, 7, 7, 4, 4] -> [0, 1, 2, 0, 1].

    Raises:
        TypeError: ids that are not integers.
        ValueError: wrong rank.
    """
    who, hint = "document_positions", "For a single row pass documents[None]."
    s = check_shape(who, "documents", documents, "B S", hint=hint)["S"]
    _check_integers(who, "documents", documents, "They are document ids.")
    column = torch.arange(s, device=documents.device)
    first = documents != documents.roll(1, dims=1)
    first[:, :1] = True
    start = torch.where(first, column, 0).cummax(dim=1).values
    return column - start


def influence(
    f: Callable[[Tensor], Tensor], x: Float[Tensor, "B S D"]
) -> Float[Tensor, "B T S"]:
    """How strongly output i depends on input j, by gradient.

    `f` maps (B, S, D) to (B, T, width) without mixing sequences. Each output
    is read along one fixed random direction: a plain sum would be blind
    after a LayerNorm, whose outputs always sum to the same number.

    Raises:
        ValueError: x of a wrong rank, or an f that autograd cannot follow.
    """
    check_shape("influence", "x", x, "B S D")
    x = x.detach().clone().requires_grad_()
    out = f(x)
    check_shape("influence", "f(x)", out, "B T width", B=x.shape[0])
    if not out.requires_grad:
        raise ValueError(
            "influence: f(x) has no gradient with respect to x. Does f detach "
            "or round it? response() needs no gradient."
        )
    dice = torch.Generator().manual_seed(0)
    direction = torch.randn(out.shape[-1], generator=dice).to(out)
    read = (out @ direction).sum(dim=0)
    slopes = [
        torch.autograd.grad(o, x, retain_graph=True, materialize_grads=True)[0]
        for o in read
    ]
    return torch.stack([slope.abs().amax(dim=-1) for slope in slopes], dim=1)


def response(
    f: Callable[[Tensor], Tensor],
    x: Float[Tensor, "B S D"],
    *,
    scales: tuple[float, ...] = (0.1, 1.0, 10.0, 100.0),
) -> Bool[Tensor, "B T S"]:
    """Whether output i moves when input j is replaced by another vector.

    Each scale, in units of the size of x, gives a random vector and its
    opposite: one of the two raises the score of key j, which wakes up a
    saturated softmax. "Moves" means at all: a hidden key changes no bit.

    Raises:
        ValueError: x of a wrong rank, or an f that is not deterministic.
    """
    check_shape("response", "x", x, "B S D")
    dice = torch.Generator().manual_seed(0)
    size = x.square().mean().sqrt().item() or 1.0
    others = []
    for scale in scales:
        noise = torch.randn(x[:, 0].shape, generator=dice).to(x)
        others += [scale * size * noise, -scale * size * noise]
    moved = []
    with torch.no_grad():
        before = f(x)
        if not torch.equal(before.nan_to_num(), f(x).nan_to_num()):
            raise ValueError(
                "response: f gives two answers to one input. Switch its "
                "dropout off with model.eval()."
            )
        for j in range(x.shape[1]):
            changed = torch.zeros_like(before[..., 0], dtype=torch.bool)
            for other in others:
                swapped = x.clone()
                swapped[:, j] = other
                changed |= (f(swapped) != before).any(dim=-1)
            moved.append(changed)
    return torch.stack(moved, dim=-1)


def leaks(
    f: Callable[[Tensor], Tensor],
    x: Float[Tensor, "B S D"],
    mask: Bool[Tensor, "..."],
) -> Bool[Tensor, "B T S"]:
    """Where `f` reads what `mask` forbids, by gradient or by response.

    A True is a proof, with i and j as the witnesses. All False is evidence
    at this x only. With several heads a pair counts as allowed if one head
    allows it.

    Raises:
        TypeError: a mask that is not bool.
        ValueError: a mask that does not fit the T outputs and S inputs.
    """
    if mask.dtype != torch.bool:
        raise TypeError(
            f"leaks: mask must be bool with True = may attend, got "
            f"{mask.dtype}."
        )
    reached = (influence(f, x) != 0) | response(f, x)  # NaN counts as reached
    allowed = mask.any(dim=1) if mask.ndim == 4 else mask
    sizes = zip(allowed.shape, reached.shape[-allowed.ndim :], strict=False)
    if mask.ndim not in (2, 4) or any(m not in (1, n) for m, n in sizes):
        b, t, s = reached.shape
        raise ValueError(
            f"leaks: mask must be (T={t}, S={s}) or broadcast to (B={b}, H, "
            f"T={t}, S={s}), got {tuple(mask.shape)}."
        )
    return reached & ~allowed
