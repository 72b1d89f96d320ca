# Written in chapters/bert.md; edit it there, then run make export.
"""One vector for a text: pool the vectors of its tokens.

A mask says which tokens are real, as the encoder was told: (B, 1, 1, T), True
where there is a token. A text without any gets zeros.

Axes: B batch, T tokens, D d_model, N texts.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from litformer.data import pad_batch
from litformer.masks import padding_mask
from litformer.shapes import check_shape

__all__ = ["first_pool", "max_pool", "mean_pool", "text_vectors"]


def _real(who: str, hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Which tokens are real, (B, T, 1)."""
    sizes = check_shape(who, "hidden", hidden, "B T D")
    b, t = sizes["B"], sizes["T"]
    if mask is None:
        return torch.ones(b, t, 1, dtype=torch.bool, device=hidden.device)
    if mask.dtype != torch.bool:
        raise TypeError(
            f"{who}: mask must be bool with True = a real token, got "
            f"{mask.dtype}. For a table of ones and zeros use mask.bool()."
        )
    if mask.shape != (b, 1, 1, t):
        raise ValueError(
            f"{who}: mask must have shape (B={b}, 1, 1, T={t}), as "
            f"padding_mask gives it, got {tuple(mask.shape)}. A table (B, T) "
            "becomes mask[:, None, None, :]."
        )
    return rearrange(mask, "b 1 1 t -> b t 1")


def mean_pool(
    hidden: Float[Tensor, "B T D"],
    mask: Bool[Tensor, "B one one T"] | None = None,
) -> Float[Tensor, "B D"]:
    """The mean over the real tokens.

    Source: Reimers and Gurevych (2019), section 3.
    """
    real = _real("mean_pool", hidden, mask)
    total = hidden.masked_fill(~real, 0).sum(1, dtype=torch.float32)
    return (total / real.sum(1).clamp(min=1)).to(hidden.dtype)


def first_pool(
    hidden: Float[Tensor, "B T D"],
    mask: Bool[Tensor, "B one one T"] | None = None,
) -> Float[Tensor, "B D"]:
    """The first real token, which in BERT is [CLS].

    Source: Devlin et al. (2019), section 3.
    """
    real = _real("first_pool", hidden, mask)
    first = real.int().argmax(1, keepdim=True)  # of equals, the first
    picked = hidden.take_along_dim(first, 1)[:, 0]
    return picked.masked_fill(~real.any(1), 0)


def max_pool(
    hidden: Float[Tensor, "B T D"],
    mask: Bool[Tensor, "B one one T"] | None = None,
) -> Float[Tensor, "B D"]:
    """In each component the largest number of any real token."""
    real = _real("max_pool", hidden, mask)
    largest = hidden.masked_fill(~real, -torch.inf).amax(1)
    return largest.masked_fill(~real.any(1), 0)


@torch.no_grad()
def text_vectors(
    model: torch.nn.Module,
    texts: Sequence[Sequence[int]],
    *,
    pool: Callable[..., Tensor] = mean_pool,
    pad_id: int = 0,
    batch_size: int = 32,
) -> Float[Tensor, "N D"]:
    """A vector of length 1 for each text, given as a list of ids.

    `model` maps (B, T) and `mask=` to (B, T, D), and `pool` that to (B, D).
    Texts of like length share a batch, so that little is padded; the order
    of the results is that of the texts.

    Raises:
        ValueError: a model in training mode, a text without a single token,
            no texts at all.
    """
    who = "text_vectors"
    if model.training:
        raise ValueError(
            f"{who}: the model is in training mode, where dropout makes each "
            "vector a matter of chance. Call model.eval() first."
        )
    lengths = torch.tensor([len(text) for text in texts])
    if not len(texts) or lengths.min() == 0:
        what = f"text {lengths.argmin()} has no tokens" if len(texts) else ""
        raise ValueError(
            f"{who}: {what or 'no texts'}. Even an empty text has [CLS] and "
            "[SEP]."
        )
    device = next(model.parameters()).device
    order = lengths.argsort(stable=True)
    found = []
    for rows in order.split(batch_size):
        tokens = pad_batch([texts[i] for i in rows], pad_id=pad_id).to(device)
        mask = padding_mask(lengths[rows].to(device), tokens.shape[1])
        found.append(pool(model(tokens, mask=mask), mask))
    return F.normalize(torch.cat(found), dim=-1)[order.argsort()]
