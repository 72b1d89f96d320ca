# Written in chapters/gpt.md; edit it there, then run make export.
"""GPT: a stack of causal blocks that predicts the next token everywhere.

One class for a family: GPT-2 and Llama differ in the parts that their
configurations name, not in their code.

Axes: B batch, T tokens, S cached and new tokens, D d_model, V vocab_size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from litformer.attention import MultiHeadAttention, fused_attention
from litformer.blocks import Block
from litformer.embeddings import TokenEmbedding
from litformer.feedforward import FeedForward, GatedFeedForward
from litformer.kv_cache import KVCache
from litformer.losses import cross_entropy
from litformer.norm import LayerNorm, RMSNorm
from litformer.positions import LearnedPositions, RotaryEmbedding
from litformer.shapes import check_shape

__all__ = ["GPT", "GPTConfig", "next_token_loss"]


@dataclass(frozen=True)
class GPTConfig:
    """What distinguishes one GPT from another.

    `norm(d_model)` makes a norm. `feedforward(d_model, d_ff, bias=...)` makes
    a layer from (B, T, D) to (B, T, D): any callable will do. With
    `rope_base`, queries and keys are rotated; without it, a learned vector
    for its place is added to each token. `d_ff` is 4 d_model unless it is
    said. `init_std` is explained at `GPT.init_weights`.

    Raises:
        ValueError: a size that is not positive, a dropout not in [0, 1).
    """

    vocab_size: int
    max_len: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int | None = None
    d_ff: int | None = None
    dropout: float = 0.0
    bias: bool = True
    norm: Callable[[int], nn.Module] = LayerNorm
    feedforward: Callable[..., nn.Module] = FeedForward
    rope_base: float | None = None
    tie_embeddings: bool = True
    init_std: float = 0.02
    attend: Callable[..., Tensor] = fused_attention

    def __post_init__(self) -> None:
        sizes = "vocab_size max_len d_model n_layers n_heads n_kv_heads d_ff"
        for name in [*sizes.split(), "rope_base", "init_std"]:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"GPTConfig: {name} must be > 0: {value}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"GPTConfig: dropout must lie in [0, 1), got {self.dropout}."
            )

    @classmethod
    def nano(cls, vocab_size: int, max_len: int, **changes) -> "GPTConfig":
        """Two layers of width 64: learns on one core in half a minute."""
        sizes = dict(d_model=64, n_layers=2, n_heads=4, init_std=0.1)
        return cls(vocab_size, max_len, **sizes | changes)

    @classmethod
    def gpt2(cls, **changes) -> "GPTConfig":
        """The smallest GPT-2 (Radford et al. 2019)."""
        sizes = dict(vocab_size=50_257, max_len=1024, d_model=768)
        sizes |= dict(n_layers=12, n_heads=12, dropout=0.1)
        gelu = partial(F.gelu, approximate="tanh")  # as it was trained
        feedforward = partial(FeedForward, activation=gelu)
        return cls(**sizes | dict(feedforward=feedforward) | changes)

    @classmethod
    def llama(
        cls,
        vocab_size: int,
        max_len: int,
        *,
        eps: float = 1e-5,
        rope_base: float = 10_000.0,
        **changes,
    ) -> "GPTConfig":
        """The parts of Llama (Touvron et al. 2023); the sizes are yours."""
        parts = dict(bias=False, norm=partial(RMSNorm, eps=eps))
        parts |= dict(feedforward=GatedFeedForward, rope_base=rope_base)
        return cls(vocab_size, max_len, **parts | changes)

    @classmethod
    def smollm2(cls, **changes) -> "GPTConfig":
        """SmolLM2-135M (Ben Allal et al. 2025)."""
        sizes = dict(d_model=576, n_layers=30, d_ff=1536, init_std=0.04)
        sizes |= dict(n_heads=9, n_kv_heads=3, rope_base=100_000.0)
        return cls.llama(49_152, 8192, **sizes | changes)


def _make_block(c: GPTConfig, rotary: nn.Module | None) -> Block:
    """One block of the stack."""
    attn = MultiHeadAttention(
        c.d_model,
        c.n_heads,
        n_kv_heads=c.n_kv_heads,
        dropout=c.dropout,
        bias=c.bias,
        rotary=rotary,
        attend=c.attend,
    )
    ff = c.feedforward(c.d_model, c.d_ff or 4 * c.d_model, bias=c.bias)
    return Block(c.d_model, attn, ff, norm=c.norm, dropout=c.dropout)


def _first_place(
    n_blocks: int, max_len: int, ids: Tensor, caches: Sequence[KVCache] | None
) -> int:
    """How many tokens are cached, if the new ones have places too."""
    check_shape("GPT", "ids", ids, "B T", hint="For one text pass ids[None].")
    if caches is not None and len(caches) != n_blocks:
        raise ValueError(
            f"GPT: needs one cache for each of its {n_blocks} blocks, got "
            f"{len(caches)}. Make them with new_caches()."
        )
    start = 0 if caches is None else len(caches[0])
    new = ids.shape[1]
    if start + new > max_len:
        raise ValueError(
            f"GPT: {start + new} tokens ({start} cached + {new} new) exceed "
            f"max_len={max_len}."
        )
    return start


class GPT(nn.Module):
    """A decoder-only Transformer: (B, T) token ids -> (B, T, V) logits.

    The logits at place t say what the model expects at t + 1; they depend on
    the tokens up to t only.

    Source: Radford et al. (2019); for its parts see `GPTConfig`.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config, c = config, config
        self.embed = TokenEmbedding(c.vocab_size, c.d_model, scale=False)
        self.positions, self.rotary = None, None
        if c.rope_base is None:
            self.positions = LearnedPositions(c.max_len, c.d_model)
        else:  # one for all blocks, which turn alike
            width = c.d_model // c.n_heads
            self.rotary = RotaryEmbedding(width, base=c.rope_base)
        blocks = (_make_block(c, self.rotary) for _ in range(c.n_layers))
        self.blocks = nn.ModuleList(blocks)
        self.norm = c.norm(c.d_model)
        self.lm_head = nn.Linear(c.d_model, c.vocab_size, bias=False)
        if c.tie_embeddings:
            self.lm_head.weight = self.embed.weight
        self.init_weights()

    def init_weights(self) -> None:
        """Fill the weights at random.

        | parameter                           | distribution                |
        |-------------------------------------|-----------------------------|
        | `o_proj` and `down_proj` weights    | N(0, init_std² / (2 L))     |
        | every other matrix and table        | N(0, init_std²)             |
        | biases                              | 0                           |
        | gains of the norms                  | 1                           |
        | what else a feed-forward layer has  | as it made it itself        |

        The first row ends a sublayer: 2 L of them are added to the stream,
        whose variance should not grow with the depth (Radford et al. 2019,
        section 2.3).
        """
        for name, layer in self.named_modules():
            std = self.config.init_std
            if name.endswith(("o_proj", "down_proj")):
                std /= math.sqrt(2 * len(self.blocks))
            if isinstance(layer, nn.Linear | nn.Embedding):
                nn.init.normal_(layer.weight, std=std)
                if getattr(layer, "bias", None) is not None:
                    nn.init.zeros_(layer.bias)

    def new_caches(self) -> list[KVCache]:
        """An empty cache for each block: for one text, or one batch."""
        return [KVCache() for _ in self.blocks]

    def features(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "..."] | None = None,
        caches: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """What the head reads. `mask` only takes away from what causal allows.

        With `caches`, `ids` go on from the tokens that are cached.

        Raises:
            ValueError: more tokens than max_len, cached ones included; a
                number of caches that is not the number of blocks.
        """
        n, limit = len(self.blocks), self.config.max_len
        start = _first_place(n, limit, ids, caches)
        x, turns = self.embed(ids), None
        places = torch.arange(start, start + ids.shape[1], device=x.device)
        if self.rotary is None:
            x = self.positions(x, places)
        else:
            turns = self.rotary.turns(places, dtype=x.dtype)
        x = F.dropout(x, self.config.dropout, self.training)
        for block, cache in zip(self.blocks, caches or [None] * n, strict=True):
            x = block(x, mask=mask, causal=True, positions=turns, cache=cache)
        return self.norm(x)

    def forward(
        self,
        ids: Int[Tensor, "B T"],
        *,
        mask: Bool[Tensor, "..."] | None = None,
        caches: Sequence[KVCache] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """Logits of the next token at every place; see `features`."""
        return self.lm_head(self.features(ids, mask=mask, caches=caches))


def next_token_loss(model: nn.Module, batch: Sequence) -> tuple[Tensor, Tensor]:
    """Summed nats at the targets, and how many targets count.

    `batch` begins with inputs and targets, both (B, T); a target of -100 is
    padding. `model` is any module from ids to logits.
    """
    inputs, targets = batch[:2]
    total = cross_entropy(model(inputs), targets, reduction="sum")
    return total, (targets >= 0).sum()
