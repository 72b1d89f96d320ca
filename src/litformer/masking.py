# Written in chapters/bert.md; edit it there, then run make export.
"""Masked language modelling: take tokens out, and keep what they were.

Axes: B batch, T tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from litformer.shapes import check_shape

__all__ = ["MaskedTokens", "mask_tokens"]


class MaskedTokens(NamedTuple):
    """What the model reads, and what it must answer."""

    inputs: Int[Tensor, "B T"]  # with gaps
    targets: Int[Tensor, "B T"]  # the token where one was chosen, else -100


def _ordinary(tokens, vocab_size, mask_id, special, rate):
    """For each id whether it is a word; and what is refused."""
    who = "mask_tokens"
    check_shape(who, "tokens", tokens, "B T")
    if tokens.is_floating_point() or tokens.dtype == torch.bool:
        raise TypeError(f"{who}: tokens must be integers, got {tokens.dtype}.")
    if not 0 < rate <= 1:
        raise ValueError(f"{who}: rate must lie in (0, 1], got {rate}.")
    ids = torch.tensor([mask_id, *special])
    for name, got in (("tokens", tokens), ("mask_id and special", ids)):
        if got.numel() and not 0 <= got.min() <= got.max() < vocab_size:
            raise ValueError(
                f"{who}: {name} must lie in 0 to {vocab_size - 1}, got "
                f"{got.min()} to {got.max()}. Is it another vocabulary?"
            )
    ordinary = torch.ones(vocab_size, dtype=torch.bool)
    ordinary[ids] = False
    if not ordinary.any():
        raise ValueError(f"{who}: all {vocab_size} ids are special.")
    return ordinary.to(tokens.device)


def mask_tokens(
    tokens: Int[Tensor, "B T"],
    *,
    vocab_size: int,
    mask_id: int,
    special: Sequence[int] = (),
    rate: float = 0.15,
    generator: torch.Generator | None = None,
) -> MaskedTokens:
    """Choose tokens: 80 % become [MASK], 10 % a random one, 10 % stay.

    The ids in `special` (padding, marks of start and end) and the mask itself
    are neither chosen nor drawn. A batch in which nothing was chosen has no
    target at all: average over tokens, never over an empty set.

    Raises:
        ValueError: a rate or an id out of range, or no ordinary word.
        TypeError: tokens that are not integers.

    Source: Devlin et al. (2019), section 3.1 and appendix A.
    """
    ordinary = _ordinary(tokens, vocab_size, mask_id, special, rate)
    known = dict(generator=generator, device=tokens.device)
    chosen = torch.rand(tokens.shape, **known) < rate
    chosen &= ordinary[tokens]
    lot = torch.rand(tokens.shape, **known)  # one lot decides of the three
    words = ordinary.nonzero().flatten()
    drawn = words[torch.randint(len(words), tokens.shape, **known)]
    inputs = tokens.masked_fill(chosen & (lot < 0.8), mask_id)
    inputs = torch.where(chosen & (lot >= 0.9), drawn, inputs)
    return MaskedTokens(inputs, tokens.masked_fill(~chosen, -100))
