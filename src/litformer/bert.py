# Written in chapters/bert.md; edit it there, then run make export.
"""BERT: an encoder that reads both sides, and a head that fills gaps.

Axes: B batch, T tokens, D d_model, V vocab_size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from litformer.attention import MultiHeadAttention, fused_attention
from litformer.blocks import Block
from litformer.embeddings import TokenEmbedding
from litformer.encoder import Encoder
from litformer.feedforward import FeedForward
from litformer.norm import LayerNorm
from litformer.positions import LearnedPositions
from litformer.shapes import check_shape

__all__ = ["Bert", "BertConfig", "MaskedLM", "bert_names"]


@dataclass(frozen=True)
class BertConfig:
    """What distinguishes one BERT from another.

    `d_ff` is 4 d_model unless it is said.

    Raises:
        ValueError: a size that is not positive, a dropout not in [0, 1).
    """

    vocab_size: int
    max_len: int
    d_model: int
    n_layers: int
    n_heads: int
    d_ff: int | None = None
    n_segments: int = 2
    dropout: float = 0.1
    eps: float = 1e-12
    init_std: float = 0.02
    attend: Callable[..., Tensor] = fused_attention

    def __post_init__(self) -> None:
        sizes = "vocab_size max_len d_model n_layers n_heads d_ff n_segments"
        for name in [*sizes.split(), "eps", "init_std"]:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"BertConfig: {name} must be > 0: {value}.")
        if not 0 <= self.dropout < 1:
            raise ValueError(
                f"BertConfig: dropout must lie in [0, 1), got {self.dropout}."
            )

    @classmethod
    def nano(cls, vocab_size: int, max_len: int, **changes) -> "BertConfig":
        """Two layers of width 64: learns on one core in ten seconds."""
        sizes = dict(d_model=64, n_layers=2, n_heads=4, dropout=0.0)
        return cls(vocab_size, max_len, **sizes | changes)

    @classmethod
    def base(cls, **changes) -> "BertConfig":
        """BERT-base, uncased (Devlin et al. 2019)."""
        sizes = dict(vocab_size=30_522, max_len=512, d_model=768)
        return cls(**sizes | dict(n_layers=12, n_heads=12) | changes)

    @classmethod
    def minilm(cls, **changes) -> "BertConfig":
        """all-MiniLM-L6-v2: six layers of half the width."""
        return cls.base(**dict(d_model=384, n_layers=6) | changes)


def _check_texts(
    tokens: Tensor, segments: Tensor | None, config: BertConfig
) -> None:
    """Two axes, not too long, and segments that there are."""
    sizes = check_shape("Bert", "tokens", tokens, "B T")
    t, longest = sizes["T"], config.max_len
    if t > longest:
        raise ValueError(
            f"Bert: {t} tokens exceed max_len={longest}. Cut the text, or "
            "read it in overlapping pieces."
        )
    if t == 0:
        raise ValueError(
            "Bert: no tokens. Even an empty text has [CLS] and [SEP]."
        )
    if segments is None:
        return
    check_shape("Bert", "segments", segments, "B T", **sizes)
    known = config.n_segments
    if not 0 <= segments.min() <= segments.max() < known:
        raise ValueError(
            f"Bert: segments must lie in 0 to {known - 1}, got "
            f"{segments.min()} to {segments.max()}."
        )


class Bert(nn.Module):
    """Token, place and segment, added and normed; then post-norm blocks.

    Raises:
        ValueError: too many tokens, none, or one that is not in the
            vocabulary; segments that there are not.

    Source: Devlin et al. (2019), section 3.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.config = config
        d, norm = config.d_model, partial(LayerNorm, eps=config.eps)
        self.embed = TokenEmbedding(config.vocab_size, d, scale=False)
        self.positions = LearnedPositions(config.max_len, d)
        self.segments = nn.Embedding(config.n_segments, d)
        self.norm = norm(d)
        blocks = []
        for _ in range(config.n_layers):
            options = dict(dropout=config.dropout, attend=config.attend)
            attn = MultiHeadAttention(d, config.n_heads, **options)
            ff = FeedForward(d, config.d_ff or 4 * d)
            options = dict(norm=norm, dropout=config.dropout)
            blocks.append(Block(d, attn, ff, norm_first=False, **options))
        self.encoder = Encoder(blocks)
        self.init_weights()

    def init_weights(self) -> None:
        """How it begins.

        three tables, linear layers   normal, init_std
        biases                        0
        norms                         weight 1, bias 0
        """
        for module in self.modules():
            if isinstance(module, nn.Embedding | nn.Linear):
                nn.init.normal_(module.weight, std=self.config.init_std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        segments: Int[Tensor, "B T"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """A vector for each token, from all the tokens that `mask` allows."""
        _check_texts(tokens, segments, self.config)
        x = self.positions(self.embed(tokens))
        first = self.segments.weight[0]  # one text: all belong to the first
        x = x + (first if segments is None else self.segments(segments))
        x = F.dropout(self.norm(x), self.config.dropout, self.training)
        return self.encoder(x, mask=mask)


class MaskedLM(nn.Module):
    """BERT and its head: which word belongs into a gap.

    The last matrix is the embedding table itself. `predict` scores any
    vectors: those in the gaps alone, say, since the product with V words is
    the dearest one in a small model.

    Source: Devlin et al. (2019), section 3.1; Press and Wolf (2017).
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        d = config.d_model
        self.bert = Bert(config)
        self.dense = nn.Linear(d, d)
        self.norm = LayerNorm(d, eps=config.eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        nn.init.normal_(self.dense.weight, std=config.init_std)
        nn.init.zeros_(self.dense.bias)

    def predict(self, hidden: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """The logit of every word, for each vector."""
        x = self.norm(F.gelu(self.dense(hidden)))
        return self.bert.embed.logits(x) + self.bias

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        segments: Int[Tensor, "B T"] | None = None,
        mask: Bool[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "B T V"]:
        """The logit of every word at every place."""
        return self.predict(self.bert(tokens, segments=segments, mask=mask))


def bert_names() -> dict[str, str | None]:
    """What Hugging Face's BertModel calls our weights, for `load_named`."""
    names = {
        "attention.self.query": "attn.q_proj",
        "attention.self.key": "attn.k_proj",
        "attention.self.value": "attn.v_proj",
        "attention.output.dense": "attn.o_proj",
        "attention.output.LayerNorm": "norm_attn",
        "intermediate.dense": "ff.up_proj",
        "output.dense": "ff.down_proj",
        "output.LayerNorm": "norm_ff",
    }
    table: dict[str, str | None] = {
        f"encoder.layer.*.{theirs}.{part}": f"encoder.blocks.*.{ours}.{part}"
        for theirs, ours in names.items()
        for part in ("weight", "bias")
    }
    tables = {"word": "embed", "position": "positions.table"}
    tables["token_type"] = "segments"
    for theirs, ours in tables.items():
        table[f"embeddings.{theirs}_embeddings.weight"] = f"{ours}.weight"
    table["embeddings.position_ids"] = None  # 0, 1, 2, ...
    for part in ("weight", "bias"):
        table[f"embeddings.LayerNorm.{part}"] = f"norm.{part}"
        table[f"pooler.dense.{part}"] = None  # for guessing the next text
    return table
