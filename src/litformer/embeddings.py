# Written in chapters/translation.md; edit it there, then run make export.
"""Token embeddings: one table, read on the way in and on the way out.

Axes: B batch, T tokens, D d_model, V vocab_size.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from litformer.shapes import check_shape

__all__ = ["TokenEmbedding"]


def _check_tokens(who: str, tokens: Tensor, vocab_size: int) -> None:
    """Ids that have a row in the table, or the first one that has not."""
    hint = "For one sequence pass tokens[None]."
    check_shape(who, "tokens", tokens, "B T", hint=hint)
    if tokens.dtype not in (torch.int64, torch.int32):
        raise TypeError(
            f"{who}: tokens must be int64 or int32, got {tokens.dtype}. They "
            "are numbers of rows."
        )
    if torch.compiler.is_compiling() or not tokens.numel():
        return
    low, high = tokens.aminmax()  # one look at the data, the common case
    if low < 0 or high >= vocab_size:
        wrong = ((tokens < 0) | (tokens >= vocab_size)).nonzero()[0].tolist()
        b, t = wrong
        raise ValueError(
            f"{who}: token {int(tokens[b, t])} at row {b}, place {t} is not "
            f"in the vocabulary, whose ids are 0 to {vocab_size - 1}. Was the "
            "text encoded with another vocabulary?"
        )


class TokenEmbedding(nn.Embedding):
    """A learned vector for each token, and the same vectors as a classifier.

    tokens (B, T) -> (B, T, D), times sqrt(D) if `scale`. `logits` compares a
    vector with every row of the table: (..., D) -> (..., V).

    Raises:
        TypeError: tokens that are not integers.
        ValueError: a token outside of the vocabulary.

    Source: Vaswani et al. (2017), section 3.4; Press and Wolf (2017).
    """

    def __init__(
        self, vocab_size: int, d_model: int, *, scale: bool = True
    ) -> None:
        if min(vocab_size, d_model) < 1:
            raise ValueError(
                f"TokenEmbedding: sizes must be at least 1, got vocab_size="
                f"{vocab_size}, d_model={d_model}."
            )
        super().__init__(vocab_size, d_model)
        self.vocab_size, self.d_model, self.scale = vocab_size, d_model, scale

    def reset_parameters(self) -> None:
        """Normal with standard deviation D**-0.5: rows of length about 1."""
        nn.init.normal_(self.weight, std=self.embedding_dim**-0.5)

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Look the tokens up."""
        _check_tokens("TokenEmbedding", tokens, self.vocab_size)
        x = F.embedding(tokens, self.weight)
        return x * math.sqrt(self.d_model) if self.scale else x

    def logits(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Compare with every row: the tied output layer."""
        return F.linear(x, self.weight)
