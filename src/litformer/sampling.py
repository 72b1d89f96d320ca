# Written in chapters/gpt.md; edit it there, then run make export.
"""From logits to the distribution that the next token is drawn from.

Axes: V vocab_size, always the last one.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

__all__ = ["keep_top_k", "keep_top_p", "next_token_probabilities"]


def keep_top_k(
    logits: Float[Tensor, "... V"], k: int
) -> Float[Tensor, "... V"]:
    """Logits of the k most probable tokens; -inf for the others.

    Tokens that tie with the last one kept are kept too.

    Raises:
        ValueError: k below 1.

    Source: Fan et al. (2018).
    """
    if k < 1:
        raise ValueError(f"keep_top_k: k must be at least 1, got {k}.")
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(
    logits: Float[Tensor, "... V"], p: float
) -> Float[Tensor, "... V"]:
    """Logits of the fewest most probable tokens whose mass is at least p.

    The token that reaches p is kept, so that there always is one. The other
    logits become -inf.

    Raises:
        ValueError: p not in (0, 1].

    Source: Holtzman et al. (2020).
    """
    if not 0 < p <= 1:
        raise ValueError(f"keep_top_p: p must lie in (0, 1], got {p}.")
    ordered, order = logits.sort(descending=True, stable=True)
    probs = ordered.softmax(-1)
    before = probs.cumsum(-1) - probs  # the mass of the more probable ones
    kept = ordered.masked_fill((before >= p) & (p < 1), -math.inf)
    return kept.gather(-1, order.argsort(-1))


def next_token_probabilities(
    logits: Float[Tensor, "... V"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Float[Tensor, "... V"]:
    """From logits to the distribution that is sampled from.

    The logits are divided by `temperature` (0: all mass on the most probable
    token), then cut by `top_k`, then by `top_p`. In fp32 at least.

    Raises:
        ValueError: temperature below 0 or infinite, top_k below 1, top_p not
            in (0, 1].
    """
    if not 0 <= temperature < math.inf:
        raise ValueError(
            "next_token_probabilities: temperature must be at least 0 and "
            f"finite, got {temperature}. 0 takes the most probable token."
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if temperature == 0:
        best = F.one_hot(logits.argmax(-1), logits.shape[-1])
        return best.to(logits.dtype)
    # the largest becomes 0, so that a tiny temperature cannot overflow
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return logits.softmax(-1)
