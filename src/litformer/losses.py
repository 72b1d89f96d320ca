# Written in chapters/training.md; edit it there, then run make export.
"""Losses for tokens: how surprised a model is, and how honest.

Logits are (B, T, V), targets (B, T). A target of `ignore_index` is padding:
it adds nothing to a sum and is not counted in a mean.

Axes: B batch, T tokens, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Calibration", "calibration", "calibration_error", "cross_entropy"]


def _one_target_each(who: str, logits: Tensor, targets: Tensor) -> None:
    """There must be a target for each row of logits."""
    want, got = tuple(logits.shape[:-1]), tuple(targets.shape)
    if got != want:
        raise ValueError(
            f"{who}: targets must have the shape of logits without its last "
            f"axis, {want}, got {got}."
        )


def cross_entropy(
    logits: Float[Tensor, "... V"],
    targets: Int[Tensor, "..."],
    *,
    ignore_index: int = -100,
    smoothing: float = 0.0,
    reduction: str = "mean",
) -> Float[Tensor, "..."]:
    """Nats of surprise at the targets; padding neither adds nor counts.

    With `smoothing` the target is a blend: 1 - smoothing on the right class,
    and `smoothing` spread evenly over all V. `reduction` is "mean" (over the
    targets that count), "sum" or "none" (zeros at padding). Computed in fp32
    at least.

    Raises:
        ValueError: shapes that do not fit, or a target that is no class.

    Source: Szegedy et al. (2016), section 7, for the smoothing.
    """
    who = "cross_entropy"
    if not 0 <= smoothing < 1:
        raise ValueError(f"{who}: smoothing must be in [0, 1): {smoothing}.")
    _one_target_each(who, logits, targets)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    try:
        loss = F.cross_entropy(
            wide.flatten(0, -2),
            targets.flatten().long(),
            ignore_index=ignore_index,
            label_smoothing=smoothing,
            reduction=reduction,
        )
    except IndexError as error:
        raise ValueError(
            f"{who}: {error} Classes are 0 to V - 1 = {logits.shape[-1] - 1}; "
            f"padding must be ignore_index={ignore_index}."
        ) from None
    return loss.view(targets.shape) if reduction == "none" else loss


class Calibration(NamedTuple):
    """What a model claims and what is true, bin by bin of confidence."""

    confidence: Float[Tensor, " bins"]  # mean probability of the choice
    accuracy: Float[Tensor, " bins"]  # share of right choices
    count: Float[Tensor, " bins"]  # choices in this bin

    @property
    def error(self) -> float:
        """The mean distance of claim and truth, weighted by the counts."""
        gap = (self.confidence - self.accuracy).abs() * self.count
        return (gap.sum() / self.count.sum()).item()


def calibration(
    logits: Float[Tensor, "... V"],
    targets: Int[Tensor, "..."],
    *,
    bins: int = 10,
    ignore_index: int = -100,
) -> Calibration:
    """Sort the choices by confidence into equal bins; compare with the truth.

    Bin b holds confidences in (b/bins, (b+1)/bins]. Empty bins are zero.

    Source: Guo et al. (2017), section 2.
    """
    if bins < 1:
        raise ValueError(f"calibration: needs bins >= 1, got {bins}.")
    _one_target_each("calibration", logits, targets)
    counted = targets != ignore_index
    if not counted.any():
        raise ValueError("calibration: every target is padding.")
    sure, choice = logits[counted].float().softmax(-1).max(-1)
    right = (choice == targets[counted]).float()
    place = (sure * bins).ceil().long().clamp(1, bins) - 1
    count = torch.bincount(place, minlength=bins).float()
    total = torch.zeros(2, bins, device=sure.device)
    total.index_add_(1, place, torch.stack([sure, right]))
    confidence, accuracy = total / count.clamp(min=1)
    return Calibration(confidence, accuracy, count)


def calibration_error(
    logits: Float[Tensor, "... V"],
    targets: Int[Tensor, "..."],
    *,
    bins: int = 10,
    ignore_index: int = -100,
) -> float:
    """Expected calibration error: 0 is honest, 1 is sure and wrong."""
    found = calibration(logits, targets, bins=bins, ignore_index=ignore_index)
    return found.error
