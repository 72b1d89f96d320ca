# Written in chapters/moe.md; edit it there, then run make export.
"""Texts from several Markov chains: much to know, and all of it known.

Axes: B texts, T tokens, K domains (chains), S symbols, R successors.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["MarkovMixture", "Texts"]


class Texts(NamedTuple):
    """Tokens, the -ln p of each given those before it, and the chain."""

    tokens: Int[Tensor, "B T"]
    surprise: Float[Tensor, "B T"]
    domain: Int[Tensor, "B"]


class MarkovMixture:
    """Chains over S symbols; a text begins with the tag of its chain.

    Tokens 0 to S - 1 are symbols, S to S + K - 1 are tags. In each chain a
    symbol has `n_branches` successors with probabilities of their own, drawn
    once from `seed`.

    Raises:
        ValueError: sizes below one, or more successors than symbols.
    """

    def __init__(
        self,
        n_domains: int = 8,
        n_symbols: int = 48,
        n_branches: int = 3,
        *,
        seed: int = 0,
    ) -> None:
        if min(n_domains, n_symbols, n_branches) < 1 or n_branches > n_symbols:
            raise ValueError(
                "MarkovMixture: needs sizes of at least 1 and no more "
                f"branches than symbols, got n_domains={n_domains}, "
                f"n_symbols={n_symbols}, n_branches={n_branches}."
            )
        make = torch.Generator().manual_seed(seed)
        table = n_domains, n_symbols, n_symbols
        order = torch.rand(table, generator=make).argsort(-1)
        self.successors = order[..., :n_branches]  # (K, S, R)
        weights = torch.rand(self.successors.shape, generator=make) + 0.2
        self.probabilities = weights / weights.sum(-1, keepdim=True)
        self.n_domains, self.n_symbols = n_domains, n_symbols
        self.vocab_size = n_symbols + n_domains

    def sample(
        self, n: int, length: int, *, generator: torch.Generator | None = None
    ) -> Texts:
        """Draw n texts of this length: a tag, any symbol, its successors."""
        if length < 2:
            raise ValueError(
                "MarkovMixture: a text is a tag and at least one symbol, got "
                f"length={length}."
            )
        domain = torch.randint(self.n_domains, (n,), generator=generator)
        now = torch.randint(self.n_symbols, (n,), generator=generator)
        tokens = [domain + self.n_symbols, now]
        sizes = self.n_domains, self.n_symbols
        surprise = [torch.full((n,), math.log(size)) for size in sizes]
        for _ in range(length - 2):
            p = self.probabilities[domain, now]  # (n, R)
            branch = torch.multinomial(p, 1, generator=generator)
            surprise.append(-p.gather(1, branch)[:, 0].log())
            now = self.successors[domain, now].gather(1, branch)[:, 0]
            tokens.append(now)
        return Texts(torch.stack(tokens, 1), torch.stack(surprise, 1), domain)

    def floor(self, length: int) -> float:
        """The exact mean surprise, in nats, of all tokens but the tag."""
        p = self.probabilities.double()
        entropy = -(p * p.log()).sum(-1)  # (K, S)
        at = torch.full_like(entropy, 1 / self.n_symbols)
        total = math.log(self.n_symbols)
        for _ in range(length - 2):
            total += (at * entropy).sum(1).mean().item()
            flow = (at[..., None] * p).flatten(1)
            at = torch.zeros_like(at).scatter_add(
                1, self.successors.flatten(1), flow
            )
        return total / (length - 1)
