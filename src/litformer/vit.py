# Written in chapters/vit.md; edit it there, then run make export.
"""The Vision Transformer: an image is a sequence of patches.

Axes: B images, C channels, H and W pixels, P patches, T = 1 + P tokens with
the class token first, D d_model, K classes.
"""

from dataclasses import dataclass
from functools import partial

import torch
from einops import repeat
from jaxtyping import Float
from torch import Tensor, nn

from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.feedforward import FeedForward
from litformer.norm import LayerNorm
from litformer.patches import (
    PatchEmbedding,
    interpolate_positions,
    patch_grid,
)

__all__ = ["ImageClassifier", "LayerScale", "ViT", "ViTConfig"]


@dataclass(frozen=True)
class ViTConfig:
    """The sizes of a Vision Transformer; the defaults are ViT-S/16.

    `layer_scale` is the first value of LayerScale's factors, None to have
    none. `position_std` is the spread of positions and class token at first.

    Raises:
        ValueError: sizes that do not fit together.
    """

    image_size: tuple[int, int] = (224, 224)  # of training: rows, columns
    patch_size: int = 16
    channels: int = 3
    d_model: int = 384
    n_layers: int = 12
    n_heads: int = 6
    d_ff: int = 1536
    dropout: float = 0.0
    layer_scale: float | None = None
    eps: float = 1e-6
    position_std: float = 0.02

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        patch_grid("ViTConfig", *self.image_size, self.patch_size)
        if self.n_layers < 1:
            raise ValueError(
                f"ViTConfig: n_layers must be at least 1, got {self.n_layers}."
            )
        if not self.position_std > 0:
            raise ValueError(
                "ViTConfig: position_std must be positive, got "
                f"{self.position_std}: equal positions never come apart."
            )

    @classmethod
    def base(cls) -> "ViTConfig":
        """ViT-B/16, 86 million parameters (Dosovitskiy et al. 2021)."""
        return cls(d_model=768, n_heads=12, d_ff=3072)

    @classmethod
    def dinov2_small(cls) -> "ViTConfig":
        """DINOv2 ViT-S/14, trained to 518 pixels (Oquab et al. 2024)."""
        return cls(image_size=(518, 518), patch_size=14, layer_scale=1.0)

    @classmethod
    def digits(cls) -> "ViTConfig":
        """For digits of 8 x 8 pixels; 67 thousand parameters."""
        sizes = dict(d_model=64, n_layers=2, n_heads=4, d_ff=128)
        return cls((8, 8), 4, channels=1, position_std=0.5, **sizes)


class LayerScale(nn.Module):
    """A sublayer whose output is multiplied by a learned factor a dimension.

    Source: Touvron et al. (2021), Going deeper with image Transformers.
    """

    def __init__(
        self, sublayer: nn.Module, d_model: int, *, initial: float = 1e-5
    ) -> None:
        super().__init__()
        self.sublayer, self.initial = sublayer, initial
        self.scale = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """All factors equal."""
        nn.init.constant_(self.scale, self.initial)

    def forward(
        self, x: Float[Tensor, "B T D"], **options: object
    ) -> Float[Tensor, "B T D"]:
        """What the sublayer says of x, scaled."""
        return self.sublayer(x, **options) * self.scale


def _vision_block(c: ViTConfig) -> Block:
    """Pre-norm attention and feed-forward, scaled if the config says so."""
    parts = (
        MultiHeadAttention(c.d_model, c.n_heads, dropout=c.dropout),
        FeedForward(c.d_model, c.d_ff, dropout=c.dropout),
    )
    if c.layer_scale is not None:
        parts = (
            LayerScale(part, c.d_model, initial=c.layer_scale) for part in parts
        )
    norm = partial(LayerNorm, eps=c.eps)
    return Block(c.d_model, *parts, norm=norm, dropout=c.dropout)


class ViT(nn.Module):
    """Images (B, C, H, W) to tokens (B, 1 + P, D), the class token first.

    H and W may differ from those of training, if the patch divides them: the
    positions are interpolated.

    Raises:
        ValueError: other channels, or sides that the patch does not divide.
        TypeError: pixels that are whole numbers.

    Source: Dosovitskiy et al. (2021).
    """

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        c = self.config = config
        self.grid = patch_grid("ViT", *c.image_size, c.patch_size)
        places = 1 + self.grid[0] * self.grid[1]
        self.patches = PatchEmbedding(
            c.patch_size, c.d_model, channels=c.channels
        )
        self.class_token = nn.Parameter(torch.empty(c.d_model))
        self.positions = nn.Parameter(torch.empty(places, c.d_model))
        self.blocks = nn.ModuleList(_vision_block(c) for _ in range(c.n_layers))
        self.norm = LayerNorm(c.d_model, eps=c.eps)
        self.init_weights()

    def init_weights(self) -> None:
        """Draw every parameter anew.

        class token, positions      normal, position_std
        matrices, patches included  Xavier-uniform: sqrt(2 / (in + out))
        norms                       weight one, bias zero
        LayerScale                  layer_scale
        other biases                zero
        """
        nn.init.normal_(self.class_token, std=self.config.position_std)
        nn.init.normal_(self.positions, std=self.config.position_std)
        for module in self.modules():
            if hasattr(module, "reset_parameters"):
                if not isinstance(module, nn.Linear):  # its owner draws it
                    module.reset_parameters()

    def forward(
        self, images: Float[Tensor, "B C H W"]
    ) -> Float[Tensor, "B T D"]:
        """Read the patches; return all tokens after the last norm."""
        x = self.patches(images)
        new = patch_grid("ViT", *images.shape[2:], self.config.patch_size)
        first = repeat(self.class_token, "d -> b 1 d", b=len(x))
        x = torch.cat([first, x], dim=1)
        x = x + interpolate_positions(self.positions, self.grid, new)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class ImageClassifier(nn.Module):
    """A linear head on the tokens of an encoder: images to logits (B, K).

    `pool` is "class" for the class token, "mean" for the mean of the patches.

    Raises:
        ValueError: no classes, or another pool.

    Source: Dosovitskiy et al. (2021), sections 3.1 and D.3.
    """

    def __init__(
        self, encoder: ViT, n_classes: int, *, pool: str = "class"
    ) -> None:
        super().__init__()
        if n_classes < 1 or pool not in ("class", "mean"):
            raise ValueError(
                'ImageClassifier: needs n_classes >= 1 and pool "class" or '
                f'"mean", got {n_classes} and {pool!r}.'
            )
        self.encoder, self.pool = encoder, pool
        self.head = nn.Linear(encoder.config.d_model, n_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros: at first every class is as likely as any other."""
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """One logit for each class."""
        x = self.encoder(images)
        pooled = x[:, 0] if self.pool == "class" else x[:, 1:].mean(dim=1)
        return self.head(pooled)
