# Generated from chapters/attention.md by `python -m bookkit export`.
"""Scaled dot-product attention: a weighted average that looks things up.

Every query is compared with every key; a softmax turns the scores of one
query into weights; the output is the average of the values under them.

Axes: B batch, H heads, T queries, S keys (and values), Dh width of a query
and of a key, Dv width of a value.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from litformer.shapes import check_shape

__all__ = [
    "attention",
    "attention_weights",
    "fused_attention",
]


def _allowed(
    q: Tensor, k: Tensor, mask: Tensor | None, causal: bool
) -> Tensor | None:
    """Which query may attend to which key; None where all may."""
    t, s = q.shape[2], k.shape[2]
    if not causal or t == 1:  # the last query sees every key
        return mask
    past = torch.ones(t, s, dtype=torch.bool, device=q.device).tril(s - t)
    return past if mask is None else mask & past


def _check_grid(
    who: str, name: str, grid: Tensor, shape: tuple[int, ...]
) -> None:
    """Refuse a mask or bias whose shape could mean more than one thing."""
    b, h, t, s = shape
    if grid.ndim not in (2, 4):
        raise ValueError(
            f"{who}: {name} must have rank 2 (T={t}, S={s}) or rank 4 "
            f"(B={b}, H={h}, T={t}, S={s}), got rank {grid.ndim} "
            f"{tuple(grid.shape)}. Name the missing axis: unsqueeze(1) for "
            "one grid per sequence, unsqueeze(0) for one per head."
        )
    wanted = shape[-grid.ndim :]
    if any(g not in (1, n) for g, n in zip(grid.shape, wanted, strict=True)):
        raise ValueError(
            f"{who}: {name} must broadcast to (B={b}, H={h}, T={t}, S={s}), "
            f"got {tuple(grid.shape)}. One row per sequence, (B, S), becomes "
            f"{name}[:, None, None, :]."
        )


def _check_inputs(
    who: str,
    q: Tensor,
    k: Tensor,
    v: Tensor | None,
    mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
) -> None:
    """Say what is wrong with the arguments, in numbers, before any maths."""
    check_shape(who, "q", q, "B H T Dh")
    b, h, t, d = q.shape
    check_shape(who, "k", k, "B H S Dh", B=b, H=h, Dh=d)
    s = k.shape[2]
    if v is not None:
        check_shape(who, "v", v, "B H S Dv", B=b, H=h, S=s)
    if any(x is not None and x.dtype != q.dtype for x in (k, v)):
        kinds = ", ".join(str(x.dtype) for x in (q, k, v) if x is not None)
        raise TypeError(
            f"{who}: q, k and v must share one dtype, got {kinds}. Cast "
            "them where they are made."
        )
    if s == 0 or d == 0:
        raise ValueError(
            f"{who}: nothing to attend to: k has shape {tuple(k.shape)} with "
            f"S={s} keys of width Dh={d}. Pass at least one key."
        )
    if causal and t > s:
        raise ValueError(
            f"{who}: causal=True needs T <= S, got T={t} queries and S={s} "
            f"keys. Position i of T sees keys up to S - T + i, so the first "
            f"{t - s} would see none. Are q and k swapped?"
        )
    if mask is not None and mask.dtype != torch.bool:
        raise TypeError(
            f"{who}: mask must be bool with True = may attend, got "
            f"{mask.dtype}. For additive terms use bias=."
        )
    if bias is not None and not bias.is_floating_point():
        raise TypeError(
            f"{who}: bias must be floating point (it is added to the "
            f"scores), got {bias.dtype}. For True/False use mask=."
        )
    for name, x in (("k", k), ("v", v), ("mask", mask), ("bias", bias)):
        if x is not None and x.device != q.device:
            raise ValueError(
                f"{who}: {name} is on {x.device}, q on {q.device}. Move it "
                f"with {name}.to(q.device)."
            )
    for name, x in (("mask", mask), ("bias", bias)):
        if x is not None:
            _check_grid(who, name, x, (b, h, t, s))


def attention_weights(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    causal: bool = False,
    bias: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "B H T S"]:
    """How much each query takes from each value; every row sums to one."""
    _check_inputs("attention_weights", q, k, None, mask, bias, causal)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) / math.sqrt(q.shape[-1])) @ k.to(wide).mT
    if bias is not None:
        scores = scores + bias
    allowed = _allowed(q, k, mask, causal)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    # a softmax over nothing is 0/0: such a row is computed on zeros, and
    # erased, so that no NaN ever exists, forward or backward
    empty = scores.isneginf().all(dim=-1, keepdim=True)
    weights = scores.masked_fill(empty, 0.0).softmax(dim=-1)
    return weights.masked_fill(empty, 0.0).to(q.dtype)


def attention(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dv"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    causal: bool = False,
    bias: Float[Tensor, "..."] | None = None,
    dropout_p: float = 0.0,
) -> Float[Tensor, "B H T Dv"]:
    """Average the values, each query with its own weights."""
    _check_inputs("attention", q, k, v, mask, bias, causal)
    weights = attention_weights(q, k, mask, causal=causal, bias=bias)
    return F.dropout(weights, dropout_p) @ v


def fused_attention(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    v: Float[Tensor, "B H S Dv"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    causal: bool = False,
    bias: Float[Tensor, "..."] | None = None,
    dropout_p: float = 0.0,
) -> Float[Tensor, "B H T Dv"]:
    """`attention` in one fused kernel that never stores the (T, S) weights."""
    _check_inputs("fused_attention", q, k, v, mask, bias, causal)
    if causal and mask is None and bias is None and q.shape[2] == k.shape[2]:
        # for T == S the kernel's own causal mask is ours, and skips half
        return F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout_p, is_causal=True
        )
    grid = _allowed(q, k, mask, causal)
    if bias is not None:
        grid = bias if grid is None else torch.where(grid, bias, -math.inf)
        grid = grid.to(q.dtype)
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=grid, dropout_p=dropout_p
    )
