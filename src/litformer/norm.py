# Written in chapters/block.md; edit it there, then run make export.
"""Norms: every token brought to one size, by its own numbers alone.

`layer_norm` and `rms_norm` are the formulas, to be read. `LayerNorm` and
`RMSNorm` are the layers, on PyTorch's fused kernels, which give the same.

Axes: D d_model, always the last one; any number of axes before it.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from litformer.shapes import check_shape

__all__ = ["LayerNorm", "RMSNorm", "layer_norm", "rms_norm"]


def _wide(x: Tensor) -> Tensor:
    """At least fp32: squares of fp16 numbers overflow beyond 255."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_input(who: str, x: Tensor, d_model: int) -> None:
    """The width that the layer was built for, in floating point."""
    hint = f"This layer was built with d_model={d_model}."
    check_shape(who, "x", x, "... D", D=d_model, hint=hint)
    if not x.is_floating_point():
        raise TypeError(
            f"{who}: x must be floating point, got {x.dtype}. Embed the "
            "tokens first."
        )


def _check_norm(who: str, d_model: int, eps: float) -> None:
    """Said when the layer is built."""
    if d_model < 1:
        raise ValueError(f"{who}: d_model must be at least 1, got {d_model}.")
    if not eps > 0:
        raise ValueError(
            f"{who}: eps must be positive, got {eps}. It keeps a token whose "
            "numbers are all equal from a division by zero."
        )


def layer_norm(
    x: Float[Tensor, "*N D"],
    weight: Float[Tensor, "D"],
    bias: Float[Tensor, "D"] | None = None,
    *,
    eps: float = 1e-5,
) -> Float[Tensor, "*N D"]:
    """Shift each token to mean 0, scale it to variance 1; then w * y + b.

    The variance divides by D, and eps is added to it under the root. The
    statistics are computed in fp32 at least.

    Source: Ba, Kiros and Hinton (2016).
    """
    wide = _wide(x)
    centred = wide - wide.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    y = centred * torch.rsqrt(variance + eps) * weight
    return (y if bias is None else y + bias).to(x.dtype)


class LayerNorm(nn.Module):
    """`layer_norm` with a learned weight and bias, on the fused kernel.

    Raises:
        ValueError: another width than d_model.
        TypeError: x is not floating point.

    Source: Ba, Kiros and Hinton (2016).
    """

    def __init__(
        self, d_model: int, *, eps: float = 1e-5, bias: bool = True
    ) -> None:
        super().__init__()
        _check_norm("LayerNorm", d_model, eps)
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.empty(d_model))
        self.bias = nn.Parameter(torch.empty(d_model)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one, bias zero: at first nothing but the norm."""
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Norm each token, over its last axis."""
        _check_input("LayerNorm", x, self.d_model)
        width = (self.d_model,)
        return F.layer_norm(x, width, self.weight, self.bias, self.eps)


def rms_norm(
    x: Float[Tensor, "*N D"],
    weight: Float[Tensor, "D"],
    *,
    eps: float = 1e-6,
) -> Float[Tensor, "*N D"]:
    """Scale each token to root mean square 1, then by w. No mean, no bias.

    Source: Zhang and Sennrich (2019).
    """
    wide = _wide(x)
    square = wide.square().mean(dim=-1, keepdim=True)
    return (wide * torch.rsqrt(square + eps) * weight).to(x.dtype)


class RMSNorm(nn.Module):
    """`rms_norm` with a learned weight, on the fused kernel.

    Raises:
        ValueError: another width than d_model.
        TypeError: x is not floating point.

    Source: Zhang and Sennrich (2019).
    """

    def __init__(self, d_model: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        _check_norm("RMSNorm", d_model, eps)
        self.d_model, self.eps = d_model, eps
        self.weight = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight one: at first nothing but the norm."""
        nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Norm each token, over its last axis."""
        _check_input("RMSNorm", x, self.d_model)
        return F.rms_norm(x, (self.d_model,), self.weight, self.eps)
