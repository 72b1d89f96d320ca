# Written in chapters/block.md; edit it there, then run make export.
"""Feed-forward layers: what each token computes by itself.

Axes: D d_model, always the last one; F d_ff, the width inside.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from litformer.shapes import check_shape

__all__ = ["FeedForward", "GatedFeedForward", "gelu", "swiglu_width"]


def _check_widths(who: str, d_model: int, d_ff: int, dropout: float) -> None:
    """Said when the layer is built, and not at its first step."""
    if min(d_model, d_ff) < 1:
        raise ValueError(
            f"{who}: sizes must be at least 1, got d_model={d_model}, "
            f"d_ff={d_ff}."
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"{who}: dropout must lie in [0, 1), got {dropout}.")


def _reset(*layers: nn.Linear) -> None:
    """Xavier-uniform weights, variance 2 / (D + F); zero biases."""
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def gelu(x: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """x times the chance that a standard normal number is below x.

    The exact form; PyTorch's `F.gelu` is the same in one kernel.

    Source: Hendrycks and Gimpel (2016).
    """
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


class FeedForward(nn.Module):
    """Widen each token, bend, and narrow it again: down(activation(up(x))).

    `activation` is any function from a tensor to one of its shape. Dropout
    acts on the wide vector, in training only.

    Raises:
        ValueError: sizes that do not fit.

    Source: Vaswani et al. (2017), section 3.3.
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.gelu,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_widths("FeedForward", d_model, d_ff, dropout)
        self.d_model, self.d_ff = d_model, d_ff
        self.activation, self.dropout = activation, dropout
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, which keep variance; zero biases."""
        _reset(self.up_proj, self.down_proj)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """The same small network for every token."""
        hint = f"This layer was built with d_model={self.d_model}."
        check_shape("FeedForward", "x", x, "... D", D=self.d_model, hint=hint)
        h = self.activation(self.up_proj(x))
        return self.down_proj(F.dropout(h, self.dropout, self.training))


class GatedFeedForward(nn.Module):
    """One projection opens the gates of another: down(act(gate(x)) * up(x)).

    With `F.silu` this is SwiGLU, with `F.gelu` GEGLU, with `torch.sigmoid`
    GLU. Three matrices instead of two: see `swiglu_width`.

    Raises:
        ValueError: sizes that do not fit.

    Source: Shazeer (2020).
    """

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        activation: Callable[[Tensor], Tensor] = F.silu,
        dropout: float = 0.0,
        bias: bool = True,
    ) -> None:
        super().__init__()
        _check_widths("GatedFeedForward", d_model, d_ff, dropout)
        self.d_model, self.d_ff = d_model, d_ff
        self.activation, self.dropout = activation, dropout
        self.gate_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.up_proj = nn.Linear(d_model, d_ff, bias=bias)
        self.down_proj = nn.Linear(d_ff, d_model, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier-uniform weights, which keep variance; zero biases."""
        _reset(self.gate_proj, self.up_proj, self.down_proj)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """The same small network for every token."""
        hint = f"This layer was built with d_model={self.d_model}."
        who = "GatedFeedForward"
        check_shape(who, "x", x, "... D", D=self.d_model, hint=hint)
        h = self.activation(self.gate_proj(x)) * self.up_proj(x)
        return self.down_proj(F.dropout(h, self.dropout, self.training))


def swiglu_width(
    d_model: int, *, expansion: float = 4.0, multiple_of: int = 1
) -> int:
    """The d_ff of a gated layer as large as a plain one of expansion * D.

    Two thirds of it, rounded up to a multiple that suits the hardware.

    Raises:
        ValueError: sizes that are not positive.

    Source: Shazeer (2020), section 3; Touvron et al. (2023) for the rounding.
    """
    if d_model < 1 or multiple_of < 1 or not expansion > 0:
        raise ValueError(
            f"swiglu_width: needs positive sizes, got d_model={d_model}, "
            f"expansion={expansion}, multiple_of={multiple_of}."
        )
    exact = 2 * expansion * d_model / 3
    return multiple_of * math.ceil(round(exact / multiple_of, 6))
