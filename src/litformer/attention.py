# Written in chapters/{attention,multi_head}.md; edit it there.
"""Scaled dot-product attention: a lookup that blends.

Every query is compared with every key; a softmax turns the scores of one
query into weights; the output is the average of the values under them.

Axes: B batch, H heads, T queries, S keys (and values), Dh width of a query
and of a key, Dv width of a value.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from litformer.kv_cache import KVCache
from litformer.shapes import check_shape

__all__ = [
    "MultiHeadAttention",
    "attention",
    "attention_weights",
    "fused_attention",
]


def _check_device(who: str, name: str, x: Tensor, q: Tensor) -> None:
    """Nothing moves between devices by itself."""
    if x.device != q.device:
        raise ValueError(
            f"{who}: {name} is on {x.device}, q on {q.device}. "
            f"Move it with {name}.to(q.device)."
        )


def _check_grid(who: str, name: str, grid: Tensor, q: Tensor, s: int) -> None:
    """Refuse a mask or a bias that could mean more than one thing."""
    _check_device(who, name, grid, q)
    sizes = dict(zip("BHTS", (*q.shape[:3], s), strict=True))
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


def _check_mask(who: str, mask: Tensor, q: Tensor, s: int) -> None:
    """A mask that is a mask, over S keys."""
    if mask.dtype != torch.bool:
        raise TypeError(
            f"{who}: mask must be bool with True = may attend, got "
            f"{mask.dtype}. For additive terms use bias=."
        )
    _check_grid(who, "mask", mask, q, s)


def _check_options(
    who: str,
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    causal: bool,
    bias: Tensor | None,
    dropout_p: float = 0.0,
) -> None:
    """A mask and a bias that fit, a causal that can be."""
    t, s = q.shape[2], k.shape[2]
    if causal and t > s:
        raise ValueError(
            f"{who}: causal=True needs T <= S, got T={t} queries and S={s} "
            "keys. Query i of T sees keys up to S - T + i, so the first "
            f"{t - s} would see none. Are q and k swapped?"
        )
    if mask is not None:
        _check_mask(who, mask, q, s)
    if bias is not None:
        if not bias.is_floating_point():
            raise TypeError(
                f"{who}: bias must be floating point (it is added to the "
                f"scores), got {bias.dtype}. For True and False use mask=."
            )
        _check_grid(who, "bias", bias, q, s)
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

    Raises:
        ValueError, TypeError: as `attention`.
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

    Same arguments and same answers. With a bias the kernel adds it in the
    dtype of `q`.

    Raises:
        ValueError, TypeError: as `attention`.

    Source: Dao et al. (2022), and PyTorch's scaled_dot_product_attention.
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


def _head_sizes(
    d_model: int, n_heads: int, n_kv_heads: int | None, head_dim: int | None
) -> tuple[int, int]:
    """The number of key heads and the width of a head, or why there is none."""
    who = "MultiHeadAttention"
    n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
    width = 1 if head_dim is None else head_dim
    if min(d_model, n_heads, n_kv_heads, width) < 1:
        raise ValueError(
            f"{who}: sizes must be at least 1, got d_model={d_model}, "
            f"n_heads={n_heads}, n_kv_heads={n_kv_heads}, "
            f"head_dim={head_dim}."
        )
    if head_dim is None and d_model % n_heads:
        raise ValueError(
            f"{who}: d_model={d_model} is not divisible by n_heads={n_heads}. "
            "Pass head_dim= to choose the width of a head."
        )
    if n_heads % n_kv_heads:
        raise ValueError(
            f"{who}: n_heads={n_heads} is not a multiple of n_kv_heads="
            f"{n_kv_heads}: each key head must serve the same number of query "
            "heads."
        )
    return n_kv_heads, d_model // n_heads if head_dim is None else head_dim


def _check_dropout(p: float) -> None:
    """Said when a layer is built, and not at its first step in training."""
    if not 0 <= p < 1:
        raise ValueError(
            f"MultiHeadAttention: dropout must lie in [0, 1), got {p}."
        )


def _source(
    layer: nn.Module, x: Tensor, context: Tensor | None, cache: KVCache | None
) -> Tensor:
    """The tokens that keys and values are made from."""
    who = "MultiHeadAttention"
    hint = f"This layer was built with d_model={layer.d_model}."
    sizes = check_shape(who, "x", x, "B T D", D=layer.d_model, hint=hint)
    if context is None and layer.d_context == layer.d_model:
        return x
    if context is None:
        raise ValueError(
            f"{who}: this layer reads a context of width d_context="
            f"{layer.d_context}, while x has {layer.d_model}. Pass context=."
        )
    sizes = {"B": sizes["B"], "Dc": layer.d_context}
    hint = f"This layer was built with d_context={layer.d_context}."
    check_shape(who, "context", context, "B S Dc", hint=hint, **sizes)
    if layer.rotary is not None or cache is not None:
        raise ValueError(
            f"{who}: rotary= and cache= are for self-attention, got a "
            "context: it has positions of its own, and its keys do not grow."
        )
    return context


def _split(x: Float[Tensor, "B T HDh"], n_heads: int) -> Tensor:
    """Into heads: "b t (h d) -> b h t d", in the words of einops."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def _extend(
    cache: KVCache, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor]:
    """All keys and values so far, if the mask is one for all of them."""
    if mask is not None:
        s = len(cache) + k.shape[2]
        _check_mask("MultiHeadAttention", mask, q, s)
    return cache.update(k, v)


class MultiHeadAttention(nn.Module):
    """Attend in several subspaces at once, then mix what the heads found.

    Without `context` this is self-attention, with it cross-attention. With
    `n_kv_heads < n_heads`, groups of query heads share keys and values (1:
    multi-query). `attend` is a function with the contract of `attention`,
    `rotary(x, positions)` turns queries and keys, and `cache.update(k, v)`
    returns all keys and values so far. Dropout acts in training only.

    Raises:
        ValueError: sizes that do not fit.

    Source: Vaswani et al. (2017), section 3.2.2; Ainslie et al. (2023).
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        *,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        d_context: int | None = None,
        dropout: float = 0.0,
        bias: bool = True,
        rotary: nn.Module | None = None,
        attend: Callable[..., Tensor] = fused_attention,
    ) -> None:
        super().__init__()
        n_kv_heads, width = _head_sizes(d_model, n_heads, n_kv_heads, head_dim)
        _check_dropout(dropout)
        d_context = d_model if d_context is None else d_context
        self.d_model, self.d_context, self.head_dim = d_model, d_context, width
        self.n_heads, self.n_kv_heads = n_heads, n_kv_heads
        self.dropout, self.rotary, self.attend = dropout, rotary, attend
        self.q_proj = nn.Linear(d_model, n_heads * width, bias=bias)
        self.k_proj = nn.Linear(d_context, n_kv_heads * width, bias=bias)
        self.v_proj = nn.Linear(d_context, n_kv_heads * width, bias=bias)
        self.o_proj = nn.Linear(n_heads * width, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, which keep variance; zero biases."""
        for layer in (self.q_proj, self.k_proj, self.v_proj, self.o_proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        context: Float[Tensor, "B S Dc"] | None = None,
        *,
        mask: Bool[Tensor, "..."] | None = None,
        causal: bool = False,
        positions: Int[Tensor, "..."] | tuple[Tensor, ...] | None = None,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Mix into each token of `x` what its heads find in `context`.

        `positions` is for `rotary`: where the tokens stand, or what it has
        made of that.
        """
        source = _source(self, x, context, cache)
        q = _split(self.q_proj(x), self.n_heads)
        k = _split(self.k_proj(source), self.n_kv_heads)
        v = _split(self.v_proj(source), self.n_kv_heads)
        if self.rotary is not None:
            if positions is None and cache is not None:  # go on counting
                start, end = len(cache), len(cache) + x.shape[1]
                positions = torch.arange(start, end, device=x.device)
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        if cache is not None:
            k, v = _extend(cache, q, k, v, mask)
        if self.n_kv_heads < self.n_heads:  # a key head serves r query heads
            r = self.n_heads // self.n_kv_heads
            k, v = (y.repeat_interleave(r, dim=1) for y in (k, v))
        p = self.dropout if self.training else 0.0
        out = self.attend(q, k, v, mask, causal=causal, dropout_p=p)
        return self.o_proj(out.transpose(1, 2).flatten(2))
