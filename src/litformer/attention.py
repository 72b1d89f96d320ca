# Written in chapters/attention.md; edit it there, then run make export.
"""Scaled dot-product attention: a lookup that blends.

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

__all__ = ["attention", "attention_weights", "fused_attention"]


def _check_device(who: str, name: str, x: Tensor, q: Tensor) -> None:
    """Nothing moves between devices by itself."""
    if x.device != q.device:
        raise ValueError(
            f"{who}: {name} is on {x.device}, q on {q.device}. "
            f"Move it with {name}.to(q.device)."
        )


def _check_grid(
    who: str, name: str, grid: Tensor, q: Tensor, k: Tensor
) -> None:
    """Refuse a mask or a bias that could mean more than one thing."""
    _check_device(who, name, grid, q)
    sizes = dict(zip("BHTS", (*q.shape[:3], k.shape[2]), strict=True))
    full = ", ".join(f"{axis}={size}" for axis, size in sizes.items())
    shape = tuple(grid.shape)
    if grid.ndim not in (2, 4):
        raise ValueError(
            f"{who}: {name} must have rank 2 (T, S) or rank 4 (B, H, T, S), "
            f"here ({full}), got rank {grid.ndim} {shape}. Say which axis is "
            "missing: unsqueeze(1) for one grid a sequence, unsqueeze(0) for "
            "one a head."
        )
    wanted = list(sizes.values())[-grid.ndim :]
    if any(g not in (1, n) for g, n in zip(shape, wanted, strict=True)):
        raise ValueError(
            f"{who}: {name} must broadcast to ({full}), got {shape}. "
            f"One row a sequence, (B, S), becomes {name}[:, None, None, :]."
        )


def _check_tensors(who: str, q: Tensor, k: Tensor, v: Tensor | None) -> None:
    """One shape legend, one dtype, one device, and something to look at."""
    sizes = check_shape(who, "q", q, "B H T Dh")
    sizes = check_shape(who, "k", k, "B H S Dh", **sizes)
    if v is not None:
        hint = "Value i belongs to key i: as many values as keys."
        check_shape(who, "v", v, "B H S Dv", hint=hint, **sizes)
    for name, x in zip("qkv", (q, k, v), strict=True):
        if x is None:
            continue
        if not x.is_floating_point() or x.dtype != q.dtype:
            raise TypeError(
                f"{who}: q, k and v must share one floating dtype, got "
                f"{q.dtype} for q and {x.dtype} for {name}."
            )
        _check_device(who, name, x, q)
    if sizes["S"] == 0 or sizes["Dh"] == 0:
        raise ValueError(
            f"{who}: nothing to attend to: S={sizes['S']} keys of width "
            f"Dh={sizes['Dh']}. Pass at least one key of width 1."
        )


def _check_options(
    who: str,
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    causal: bool,
    bias: Tensor | None,
    dropout_p: float = 0.0,
) -> None:
    """A mask that is a mask, a bias that is a bias, a causal that can be."""
    t, s = q.shape[2], k.shape[2]
    if causal and t > s:
        raise ValueError(
            f"{who}: causal=True needs T <= S, got T={t} queries and S={s} "
            "keys. Query i of T sees keys up to S - T + i, so the first "
            f"{t - s} would see none. Are q and k swapped?"
        )
    if mask is not None:
        if mask.dtype != torch.bool:
            raise TypeError(
                f"{who}: mask must be bool with True = may attend, got "
                f"{mask.dtype}. For additive terms use bias=."
            )
        _check_grid(who, "mask", mask, q, k)
    if bias is not None:
        if not bias.is_floating_point():
            raise TypeError(
                f"{who}: bias must be floating point (it is added to the "
                f"scores), got {bias.dtype}. For True and False use mask=."
            )
        _check_grid(who, "bias", bias, q, k)
    if not 0 <= dropout_p < 1:
        raise ValueError(
            f"{who}: dropout_p must lie in [0, 1), got {dropout_p}."
        )


def _allowed(
    q: Tensor, k: Tensor, mask: Tensor | None, causal: bool
) -> Tensor | None:
    """Which query may attend to which key; None where all may."""
    t, s = q.shape[2], k.shape[2]
    if not causal or t == 1:  # the last query sees every key
        return mask
    past = torch.ones(t, s, dtype=torch.bool, device=q.device).tril(s - t)
    return past if mask is None else mask & past


def attention_weights(
    q: Float[Tensor, "B H T Dh"],
    k: Float[Tensor, "B H S Dh"],
    mask: Bool[Tensor, "..."] | None = None,
    *,
    causal: bool = False,
    bias: Float[Tensor, "..."] | None = None,
) -> Float[Tensor, "B H T S"]:
    """How each query shares its attention: every row sums to one.

    A row that may attend to nothing is zero. For `mask`, `causal` and `bias`
    see `attention`. Computed in fp32 at least, cast back at the end.
    """
    _check_tensors("attention_weights", q, k, None)
    _check_options("attention_weights", q, k, mask, causal, bias)
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q.to(wide) / math.sqrt(q.shape[-1])) @ k.to(wide).mT
    if bias is not None:
        scores = scores + bias
    allowed = _allowed(q, k, mask, causal)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    # A softmax over nothing is 0/0. Such a row is computed on zeros and then
    # erased, so that no NaN arises at any point, forward or backward.
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
    """Average the values, for each query under weights of its own.

    `mask` is True where a query may attend to a key, of shape (T, S) or
    broadcastable to (B, H, T, S). `causal` lets query i of T see keys up to
    S - T + i. `bias`, shaped like a mask, is added to the scaled scores. A
    query that may attend to nothing gets zeros, with finite gradients.
    `dropout_p` drops weights, whenever it is not zero.

    Raises:
        ValueError: shapes, devices or lengths that do not fit.
        TypeError: a mask that is not bool, a bias that is not floating.

    Source: Vaswani et al. (2017), section 3.2.1.
    """
    _check_tensors("attention", q, k, v)
    _check_options("attention", q, k, mask, causal, bias, dropout_p)
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
    """`attention` in one kernel that need not store the (T, S) weights.

    Same arguments, same answers, same errors. With a bias the kernel adds it
    in the dtype of `q`.
    """
    _check_tensors("fused_attention", q, k, v)
    _check_options("fused_attention", q, k, mask, causal, bias, dropout_p)
    square = q.shape[2] == k.shape[2]
    if causal and square and mask is None and bias is None:
        # The kernel aligns its causal mask top-left; for T == S that is ours,
        # and it skips the half of the work that is masked.
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
