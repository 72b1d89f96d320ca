# Written in chapters/translation.md; edit it there, then run make export.
"""Sequence to sequence: an encoder reads, a decoder writes.

Axes: B batch, S source tokens, T target tokens, D d_model, V target
vocabulary.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.decoder import Decoder
from litformer.embeddings import TokenEmbedding
from litformer.encoder import Encoder
from litformer.feedforward import FeedForward
from litformer.kv_cache import KVCache
from litformer.norm import LayerNorm
from litformer.positions import SinusoidalPositions

__all__ = ["Memory", "Seq2Seq", "Seq2SeqConfig", "Session"]


@dataclass(frozen=True)
class Seq2SeqConfig:
    """The sizes of a Seq2Seq model, checked when it is made.

    Raises:
        ValueError: sizes that do not fit, or special ids outside of a
            vocabulary.
    """

    source_vocab: int
    target_vocab: int
    d_model: int = 512
    n_heads: int = 8
    d_ff: int = 2048
    n_encoder_layers: int = 6
    n_decoder_layers: int = 6
    dropout: float = 0.1
    max_len: int = 512
    norm_first: bool = False
    activation: Callable[[Tensor], Tensor] = F.relu
    tie_embeddings: bool = True
    pad_id: int = 0
    bos_id: int = 1
    eos_id: int = 2

    def __post_init__(self) -> None:
        sizes = "source_vocab target_vocab d_model n_heads d_ff max_len"
        sizes += " n_encoder_layers n_decoder_layers"
        for name in sizes.split():
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Seq2SeqConfig: {name} must be at least 1, got "
                    f"{getattr(self, name)}."
                )
        if self.d_model % self.n_heads:
            raise ValueError(
                f"Seq2SeqConfig: d_model={self.d_model} is not divisible by "
                f"n_heads={self.n_heads}, and must be."
            )
        if self.d_model % 2:
            raise ValueError(
                f"Seq2SeqConfig: d_model={self.d_model} is odd. Each position "
                "takes pairs of a sine and a cosine."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"Seq2SeqConfig: dropout must lie in [0, 1), got "
                f"{self.dropout}."
            )
        special = self.pad_id, self.bos_id, self.eos_id
        most = min(self.source_vocab, self.target_vocab)
        if len({*special}) < 3 or min(special) < 0 or max(special) >= most:
            raise ValueError(
                "Seq2SeqConfig: pad_id, bos_id and eos_id must be three "
                f"different ids of both vocabularies, 0 to {most - 1}, got "
                f"{special}."
            )

    @classmethod
    def base(cls, source_vocab: int, target_vocab: int, **changes):
        """The base model of Vaswani et al. (2017), table 3."""
        return cls(source_vocab, target_vocab, **changes)

    @classmethod
    def tiny(cls, source_vocab: int, target_vocab: int, **changes):
        """Half a million weights, pre-norm: trains on a laptop's CPU."""
        small = dict(d_model=96, n_heads=4, d_ff=384, max_len=64, dropout=0.0)
        small |= dict(n_encoder_layers=2, n_decoder_layers=2)
        small |= dict(norm_first=True, activation=F.gelu)
        return cls(source_vocab, target_vocab, **(small | changes))


class Memory(NamedTuple):
    """What the encoder leaves to the decoder: vectors, and which are real."""

    states: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B 1 1 S"]

    def repeat(self, times: int) -> "Memory":
        """Each row `times` times, one after another, for a search."""
        return Memory(*(x.repeat_interleave(times, dim=0) for x in self))


def _block(c: Seq2SeqConfig, *, cross: bool = False) -> Block:
    """One block of either stack; those of the decoder read a context."""

    def attention() -> MultiHeadAttention:
        return MultiHeadAttention(c.d_model, c.n_heads, dropout=c.dropout)

    ff = FeedForward(
        c.d_model, c.d_ff, activation=c.activation, dropout=c.dropout
    )
    return Block(
        c.d_model,
        attention(),
        ff,
        cross_attn=attention() if cross else None,
        norm_first=c.norm_first,
        dropout=c.dropout,
    )


def _last_norm(c: Seq2SeqConfig) -> nn.Module | None:
    """Pre-norm leaves the stream as it is; somebody must norm its end."""
    return LayerNorm(c.d_model) if c.norm_first else None


def _check_length(
    c: Seq2SeqConfig, name: str, tokens: Tensor, cached: int = 0
) -> None:
    """As many tokens as there are positions, and no more."""
    new = tokens.shape[-1]
    if cached + new > c.max_len:
        split = f" ({cached} cached + {new} new)" if cached else ""
        raise ValueError(
            f"Seq2Seq: {cached + new} {name} tokens{split} exceed "
            f"max_len={c.max_len}. Shorten the {name}, or build the model "
            "with a larger max_len."
        )


def _check_target(c: Seq2SeqConfig, target: Tensor, cached: int = 0) -> None:
    """A target must begin, and not be too long."""
    if not target.shape[-1]:
        raise ValueError(
            f"Seq2Seq: the target is empty. It starts with bos_id={c.bos_id}, "
            "and each place predicts the token that follows."
        )
    _check_length(c, "target", target, cached)


def _real_tokens(c: Seq2SeqConfig, source: Tensor) -> Tensor:
    """Which tokens of the source are real; each row must have one."""
    _check_length(c, "source", source)
    real = source != c.pad_id
    empty = ~real.any(dim=-1)
    if not torch.compiler.is_compiling() and empty.any():
        raise ValueError(
            f"Seq2Seq: source {int(empty.nonzero()[0])} of {len(source)} is "
            f"empty: it has {source.shape[-1]} places and no token other than "
            f"padding (pad_id={c.pad_id}). There is nothing to read."
        )
    return real


class Seq2Seq(nn.Module):
    """The Transformer of 2017: encoder, decoder, embeddings, one output layer.

    source (B, S), target (B, T) -> logits (B, T, V): row t predicts the token
    after target t. Padding in the source is hidden. Padding in the target
    stands at the end, where the causal mask hides it from all others.

    Raises:
        ValueError: more than max_len tokens, a source without any token, or
            a token out of vocabulary.

    Source: Vaswani et al. (2017).
    """

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = c = config
        self.source_embed = TokenEmbedding(c.source_vocab, c.d_model)
        self.target_embed = TokenEmbedding(c.target_vocab, c.d_model)
        self.positions = SinusoidalPositions(c.d_model, max_len=c.max_len)
        self.encoder = Encoder(
            [_block(c) for _ in range(c.n_encoder_layers)], _last_norm(c)
        )
        self.decoder = Decoder(
            [_block(c, cross=True) for _ in range(c.n_decoder_layers)],
            _last_norm(c),
        )
        self.lm_head = None
        if not c.tie_embeddings:
            self.lm_head = nn.Linear(c.d_model, c.target_vocab, bias=False)
        self.init_weights()

    def init_weights(self) -> None:
        """Set every weight anew.

        | weights                | values                             |
        |------------------------|------------------------------------|
        | embeddings             | normal, standard deviation D**-0.5 |
        | matrices of all layers | Xavier-uniform: variance is kept   |
        | biases                 | 0                                  |
        | norms                  | weight 1, bias 0                   |
        """
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, TokenEmbedding):
                module.reset_parameters()
            elif isinstance(module, LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)

    def encode(self, source: Int[Tensor, "B S"]) -> Memory:
        """Read the source, once."""
        mask = _real_tokens(self.config, source)[:, None, None, :]
        x = self._embed(self.source_embed, source)
        return Memory(self.encoder(x, mask=mask), mask)

    def decode(
        self, target: Int[Tensor, "B T"], memory: Memory
    ) -> Float[Tensor, "B T V"]:
        """Predict, at each place of the target, the token that follows."""
        _check_target(self.config, target)
        x = self._embed(self.target_embed, target)
        states, mask = memory
        return self.logits(self.decoder(x, states, context_mask=mask))

    def forward(
        self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]
    ) -> Float[Tensor, "B T V"]:
        """Read the source, predict the target token by token."""
        return self.decode(target, self.encode(source))

    def logits(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
        """Score every word of the target vocabulary."""
        return (self.lm_head or self.target_embed.logits)(x)

    def session(self, memory: Memory) -> "Session":
        """Write step by step, and compute nothing twice."""
        return Session(self, memory)

    def _embed(
        self, table: TokenEmbedding, tokens: Tensor, start: int = 0
    ) -> Tensor:
        """Words and places, added; dropout as in the paper, section 5.4."""
        at = None
        if start:
            end = start + tokens.shape[1]
            at = torch.arange(start, end, device=tokens.device)
        x = self.positions(table(tokens), at)
        return F.dropout(x, self.config.dropout, self.training)


class Session:
    """A text being written: what the decoder knows already is kept.

    `step` takes the new tokens (B, T) and gives the logits (B, V) of the
    token after the last of them. `reorder` follows a search.
    """

    def __init__(self, model: Seq2Seq, memory: Memory) -> None:
        self.model, self.memory = model, memory
        self.decoder = model.decoder.recall(memory.states)
        self.caches = [KVCache() for _ in self.decoder.blocks]

    def step(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B V"]:
        """Append tokens; score the next one."""
        model, start = self.model, len(self.caches[0])
        _check_target(model.config, tokens, start)
        x = model._embed(model.target_embed, tokens, start)
        states, mask = self.memory
        x = self.decoder(x, states, context_mask=mask, caches=self.caches)
        return model.logits(x[:, -1])

    def reorder(self, rows: Int[Tensor, "B"]) -> None:
        """Keep these rows, in this order.

        A row may only take the place of one that reads the same source, for
        the memory stays where it is.
        """
        for cache in self.caches:
            cache.reorder(rows)
