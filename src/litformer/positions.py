# Written in chapters/positions.md; edit it there, then run make export.
"""Positions: five ways to tell attention what stands where.

Sinusoidal and learned positions add a vector to each token. RoPE turns
queries and keys by an angle that grows with the position. ALiBi and T5 add
to each score a number that depends on the distance of key and query.

Axes: B batch, H heads, T queries, S keys, D d_model, Dh head_dim. The T
queries are the last T of the S positions.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int, Num
from torch import Tensor, nn

from litformer.attention import fused_attention
from litformer.shapes import check_shape

__all__ = [
    "ALiBi",
    "LearnedPositions",
    "RotaryEmbedding",
    "SinusoidalPositions",
    "T5Bias",
    "Turns",
    "WithBias",
    "alibi_slopes",
    "half_to_interleaved",
    "interleaved_to_half",
    "relative_bucket",
    "rotary_angles",
    "sinusoidal_table",
]


def sinusoidal_table(
    n: int, d_model: int, *, base: float = 10_000.0
) -> Float[Tensor, "n D"]:
    """One row for each of n places: sines and cosines, fast ones first.

    Columns 2i and 2i + 1 hold the sine and the cosine of p * base**(-2i/D).

    Raises:
        ValueError: an odd width, or no places.

    Source: Vaswani et al. (2017), section 3.5.
    """
    if d_model < 2 or d_model % 2:
        raise ValueError(
            f"sinusoidal_table: d_model must be even, got {d_model}. Each "
            "speed takes two columns, a sine and a cosine."
        )
    if n < 1:
        raise ValueError(f"sinusoidal_table: needs n >= 1 places, got {n}.")
    place = torch.arange(n, dtype=torch.float64)[:, None]
    angles = place / base ** (torch.arange(0, d_model, 2).double() / d_model)
    both = [angles.sin(), angles.cos()]
    return rearrange(both, "two n f -> n (f two)").float()


def _places(
    who: str, positions: Tensor | None, b: int, t: int, device: torch.device
) -> Num[Tensor, "..."]:
    """Where the tokens stand: at 0 to T - 1, unless told otherwise."""
    if positions is None:
        return torch.arange(t, device=device)
    if tuple(positions.shape) not in ((t,), (1, t), (b, t)):
        raise ValueError(
            f"{who}: positions must have shape (T={t},) or (B={b}, T={t}), "
            f"got {tuple(positions.shape)}. One place a token: with a cache, "
            "the places of the new tokens."
        )
    return positions


def _rows(
    who: str, positions: Tensor | None, x: Tensor, max_len: int
) -> Int[Tensor, "..."]:
    """Places that have a row in a table of max_len rows."""
    b, t = x.shape[:2]
    rows = _places(who, positions, b, t, x.device)
    if rows.dtype.is_floating_point or rows.dtype == torch.bool:
        raise TypeError(
            f"{who}: positions must be integers, got {rows.dtype}. They are "
            "numbers of rows."
        )
    low, high = 0, t - 1
    if positions is not None and rows.numel():  # only then a look at the data
        low, high = (int(end) for end in rows.aminmax())
    if low < 0:
        raise ValueError(
            f"{who}: positions must be 0 or more, got {low}. For padding on "
            "the left, clamp them at 0 and mask the padding."
        )
    if high >= max_len:
        raise ValueError(
            f"{who}: positions {low} to {high} exceed max_len={max_len}, "
            f"whose rows are 0 to {max_len - 1}. Shorten the sequence, or "
            f"build the table with max_len={high + 1} or more."
        )
    return rows


class SinusoidalPositions(nn.Module):
    """Add to each token the clock hands of its place; nothing is learned.

    x (B, T, D) -> (B, T, D); positions (T,) or (B, T), by default 0 to T - 1.

    Raises:
        ValueError: a place outside the table, or an odd width.

    Source: Vaswani et al. (2017), section 3.5.
    """

    def __init__(self, d_model: int, *, max_len: int = 4096) -> None:
        super().__init__()
        self.d_model, self.max_len = d_model, max_len
        table = sinusoidal_table(max_len, d_model)
        self.register_buffer("table", table, persistent=False)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Add the rows of the table."""
        check_shape("SinusoidalPositions", "x", x, "B T D", D=self.d_model)
        rows = _rows("SinusoidalPositions", positions, x, self.max_len)
        return x + self.table[rows].to(x.dtype)


class LearnedPositions(nn.Module):
    """Add to each token a learned vector for its place.

    x (B, T, D) -> (B, T, D); positions (T,) or (B, T), by default 0 to T - 1.
    There are max_len rows, and no row for anything beyond.

    Raises:
        ValueError: a place outside the table.

    Source: Gehring et al. (2017), section 3.1; as in BERT and GPT-2.
    """

    def __init__(self, max_len: int, d_model: int) -> None:
        super().__init__()
        self.d_model, self.max_len = d_model, max_len
        self.table = nn.Embedding(max_len, d_model)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal with standard deviation 0.02, as in BERT and GPT-2."""
        nn.init.normal_(self.table.weight, std=0.02)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        positions: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Add the learned rows."""
        check_shape("LearnedPositions", "x", x, "B T D", D=self.d_model)
        rows = _rows("LearnedPositions", positions, x, self.max_len)
        return x + self.table(rows).to(x.dtype)


def rotary_angles(
    positions: Num[Tensor, "..."],
    head_dim: int,
    *,
    base: float = 10_000.0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "... pairs"]:
    """How far each pair is turned at each position, in radians.

    Pair i turns by base**(-2i/Dh) a place.
    """
    # Computed anew, not kept in a buffer: model.bfloat16() would round the
    # speeds to three digits, and far positions would end up anywhere.
    device = positions.device
    pairs = torch.arange(0, head_dim, 2, device=device, dtype=dtype)
    speeds = 1.0 / base ** (pairs / head_dim)
    return positions[..., None].to(dtype) * speeds


class Turns(NamedTuple):
    """What `RotaryEmbedding` multiplies with, at each place.

    Made by its `turns`, for a model whose layers all turn alike.
    """

    cos: Float[Tensor, "... T Dh"]
    sin: Float[Tensor, "... T Dh"]  # minus it, for the first of a pair


def _checked(who: str, turns: Turns, x: Tensor) -> Turns:
    """Turns of as many places as there are tokens, and of this width."""
    (t, width), shape = x.shape[2:], tuple(turns.cos.shape)
    if shape[-2:] != (t, width):
        raise ValueError(
            f"{who}: turns must end with (T={t}, Dh={width}), got {shape}. "
            "Make them by turns() of a module with this head_dim, for the "
            "places of these tokens alone."
        )
    return turns


class RotaryEmbedding(nn.Module):
    """Turn pairs of coordinates by angles that grow with the position.

    x (B, H, T, Dh) -> the same shape; positions (T,) or (B, T), fractions
    welcome, or the `Turns` made of them. Pairs are (i, i + Dh/2), or
    (2i, 2i + 1) if `interleaved`.

    Raises:
        ValueError: an odd head_dim, or positions that do not fit.

    Source: Su et al. (2021), section 3.2.
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = 10_000.0,
        interleaved: bool = False,
    ) -> None:
        super().__init__()
        if head_dim < 2 or head_dim % 2:
            raise ValueError(
                f"RotaryEmbedding: head_dim must be even, got {head_dim}. It "
                "turns pairs: let d_model / n_heads be even."
            )
        self.head_dim, self.base, self.interleaved = head_dim, base, interleaved
        # x.unflatten(-1, pairs) has the two of each pair along the axis two
        self.pairs, self.two = ((-1, 2), -1) if interleaved else ((2, -1), -2)

    def turns(
        self,
        positions: Num[Tensor, "..."],
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Turns:
        """The turns at these places, for any number of calls."""
        wide = torch.promote_types(dtype, torch.float32)
        angles = rotary_angles(
            positions, self.head_dim, base=self.base, dtype=wide
        )
        if angles.ndim == 3:  # (B, T, f): every head of a sequence alike
            angles = angles[:, None]
        cos, sin = angles.cos(), angles.sin()
        cos, sin = torch.stack((cos, cos), self.two), (-sin, sin)
        return Turns(cos.flatten(-2), torch.stack(sin, self.two).flatten(-2))

    def forward(
        self,
        x: Float[Tensor, "B H T Dh"],
        positions: Num[Tensor, "..."] | Turns | None = None,
    ) -> Float[Tensor, "B H T Dh"]:
        """Turn queries or keys, before any cache sees them."""
        who = "RotaryEmbedding"
        check_shape(who, "x", x, "B H T Dh", Dh=self.head_dim)
        if isinstance(positions, Turns):
            cos, sin = _checked(who, positions, x)
        else:
            places = _places(who, positions, x.shape[0], x.shape[2], x.device)
            cos, sin = self.turns(places, dtype=x.dtype)
        partner = x.unflatten(-1, self.pairs).flip(self.two).flatten(-2)
        return (x * cos + partner * sin).to(x.dtype)


def _check_rows(who: str, weight: Tensor, n_heads: int) -> None:
    """Rows that divide into heads, and heads into pairs."""
    if n_heads < 1 or weight.ndim < 1 or weight.shape[0] % (2 * n_heads):
        raise ValueError(
            f"{who}: weight must have n_heads * head_dim rows with an even "
            f"head_dim, got shape {tuple(weight.shape)} for "
            f"n_heads={n_heads}. A key projection has n_kv_heads heads."
        )


def interleaved_to_half(
    weight: Float[Tensor, "rows ..."], n_heads: int
) -> Float[Tensor, "rows ..."]:
    """Reorder the rows of a q or k projection: pairs (2i, 2i+1) to (i, i+Dh/2).

    For a weight (H * Dh, D) or a bias (H * Dh,). Values are not turned, so
    their projection stays.
    """
    _check_rows("interleaved_to_half", weight, n_heads)
    return rearrange(weight, "(h f two) ... -> (h two f) ...", h=n_heads, two=2)


def half_to_interleaved(
    weight: Float[Tensor, "rows ..."], n_heads: int
) -> Float[Tensor, "rows ..."]:
    """The way back: rows of pairs (i, i+Dh/2) to pairs (2i, 2i+1)."""
    _check_rows("half_to_interleaved", weight, n_heads)
    return rearrange(weight, "(h two f) ... -> (h f two) ...", h=n_heads, two=2)


def _distances(
    who: str, t: int, s: int, device: torch.device
) -> Int[Tensor, "T S"]:
    """Place of the key minus place of the query: negative is the past."""
    if not 1 <= t <= s:
        raise ValueError(
            f"{who}: needs 1 <= T <= S, got T={t} queries and S={s} keys. "
            "The queries are the last T of the S positions; tokens of two "
            "different sequences have no distance."
        )
    places = torch.arange(s, device=device)
    return places - places[s - t :, None]


def alibi_slopes(n_heads: int) -> Float[Tensor, "H"]:
    """How steeply each head penalises distance: 2**(-8h/H) for h = 1 to H.

    For H that is not a power of two: the slopes of the power below it, then
    every other slope of the power above, as the authors' code has it.

    Raises:
        ValueError: no heads.

    Source: Press et al. (2022), section 3.
    """
    if n_heads < 1:
        raise ValueError(f"alibi_slopes: needs n_heads >= 1, got {n_heads}.")

    def series(n: int) -> list[float]:
        return [2 ** (-8 * h / n) for h in range(1, n + 1)]

    below = 2 ** (n_heads.bit_length() - 1)
    return torch.tensor(
        series(below) + series(2 * below)[::2][: n_heads - below]
    )


class ALiBi(nn.Module):
    """A penalty on each score that grows with the distance; not learned.

    forward(t, s) -> (1, H, T, S). The paper is causal. Without a mask, keys
    to the right are penalised like keys to the left.

    Source: Press et al. (2022), section 3.
    """

    def __init__(self, n_heads: int) -> None:
        super().__init__()
        slopes = alibi_slopes(n_heads)
        self.register_buffer("slopes", slopes, persistent=False)

    def forward(self, t: int, s: int) -> Float[Tensor, "1 H T S"]:
        """The penalties of the last t of s positions, in fp32."""
        away = _distances("ALiBi", t, s, self.slopes.device).abs()
        return -self.slopes.float()[None, :, None, None] * away


def relative_bucket(
    distance: Int[Tensor, "..."],
    *,
    n_buckets: int = 32,
    max_distance: int = 128,
    bidirectional: bool = True,
) -> Int[Tensor, "..."]:
    """T5's bucket for each distance, place of the key minus the query's.

    Near distances have a bucket each, farther ones share buckets that widen
    geometrically up to max_distance. If `bidirectional`, half of the buckets
    are for keys to the right; if not, these fall into bucket 0.

    Raises:
        ValueError: too few buckets, or max_distance within the exact ones.

    Source: Raffel et al. (2020), section 2.1, and their code.
    """
    side = n_buckets // 2 if bidirectional else n_buckets
    exact = side // 2
    if exact < 1 or max_distance <= exact:
        raise ValueError(
            f"relative_bucket: n_buckets={n_buckets} leaves {exact} exact "
            f"distances a side; it must be at least 1 and below "
            f"max_distance={max_distance}."
        )
    start = (distance > 0).long() * side if bidirectional else 0
    away = distance.abs() if bidirectional else (-distance).clamp(min=0)
    # In fp32 and in this order: at the edges of the buckets the rounding
    # decides, and trained weights depend on it.
    octaves = torch.log(away.clamp(min=1).float() / exact)
    octaves = octaves / math.log(max_distance / exact)
    far = exact + (octaves * (side - exact)).long()
    return start + torch.where(away < exact, away, far.clamp(max=side - 1))


class T5Bias(nn.Module):
    """A learned number for each head and bucket of distance.

    forward(t, s) -> (1, H, T, S). It starts at zero: no preference. T5 has
    one such module, shared by all layers of a stack: pass the same object.

    Source: Raffel et al. (2020), section 2.1.
    """

    def __init__(
        self,
        n_heads: int,
        *,
        n_buckets: int = 32,
        max_distance: int = 128,
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.n_buckets, self.max_distance = n_buckets, max_distance
        self.bidirectional = bidirectional
        self.table = nn.Embedding(n_buckets, n_heads)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros: before training every distance counts alike."""
        nn.init.zeros_(self.table.weight)

    def forward(self, t: int, s: int) -> Float[Tensor, "1 H T S"]:
        """The learned numbers for the last t of s positions."""
        bucket = relative_bucket(
            _distances("T5Bias", t, s, self.table.weight.device),
            n_buckets=self.n_buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return rearrange(self.table(bucket), "t s h -> 1 h t s")


class WithBias(nn.Module):
    """An attention function that adds a bias of its own to the scores.

    `bias(t, s)` gives (1, H, T, S). The result has the contract of
    `attention`: hand it to MultiHeadAttention as `attend=`.
    """

    def __init__(
        self,
        bias: Callable[[int, int], Tensor],
        attend: Callable[..., Tensor] = fused_attention,
    ) -> None:
        super().__init__()
        self.bias, self.attend = bias, attend

    def forward(
        self,
        q: Float[Tensor, "B H T Dh"],
        k: Float[Tensor, "B H S Dh"],
        v: Float[Tensor, "B H S Dv"],
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        bias: Float[Tensor, "..."] | None = None,
        dropout_p: float = 0.0,
    ) -> Float[Tensor, "B H T Dv"]:
        """Attend with the own bias, and with `bias` on top of it."""
        own = self.bias(q.shape[2], k.shape[2])
        if own.shape[1] != q.shape[1]:
            raise ValueError(
                f"WithBias: the bias has {own.shape[1]} heads, q has "
                f"{q.shape[1]}. Was it built with another n_heads?"
            )
        if bias is not None and bias.ndim not in (2, 4):
            raise ValueError(
                "WithBias: bias must have rank 2 (T, S) or rank 4 "
                f"(B, H, T, S), got shape {tuple(bias.shape)}."
            )
        both = own if bias is None else own + bias
        options = dict(causal=causal, bias=both, dropout_p=dropout_p)
        return self.attend(q, k, v, mask, **options)
