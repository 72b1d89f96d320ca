"""Wrong answers to the exercises of chapters/block.md, as people give."""

MUTANTS = {
    "block.mend-the-norm": {
        "eps-only": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True)
    return weight * (x - mean) / (variance + eps).sqrt() + bias
""",
            r"divides by D - 1",
        ),
        "divisor-only": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    std = x.std(-1, keepdim=True, unbiased=False)
    return weight * (x - mean) / (std + eps) + bias
""",
            r"eps belongs under the root",
        ),
        "as-published": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    std = x.std(-1, keepdim=True)
    return weight * (x - mean) / (std + eps) + bias
""",
            r"and adds eps outside",
        ),
        "over-the-sentence": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean((-2, -1), keepdim=True)
    variance = x.var((-2, -1), keepdim=True, unbiased=False)
    return weight * (x - mean) / (variance + eps).sqrt() + bias
""",
            r"Each word has its own",
        ),
        "bias-inside": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    variance = x.var(-1, keepdim=True, unbiased=False)
    return weight * ((x - mean) / (variance + eps).sqrt() + bias)
""",
            r"bias comes last",
        ),
    },
    "block.equal-width": {
        "two-thirds": (
            """
def gated_width(d_model, d_ff):
    return 2 * d_ff // 3
""",
            r"With biases it is a little different",
        ),
        "rounded-up": (
            """
def gated_width(d_model, d_ff):
    return -(-(2 * d_model * d_ff + d_ff) // (3 * d_model + 2))
""",
            r"round down",
        ),
        "floats": (
            """
def gated_width(d_model, d_ff):
    return int((2 * d_model * d_ff + d_ff) / (3 * d_model + 2))
""",
            r"Floats round",
        ),
        "one-inner-bias": (
            """
def gated_width(d_model, d_ff):
    return (2 * d_model * d_ff + d_ff) // (3 * d_model + 1)
""",
            r"two inner biases",
        ),
        "not-an-integer": (
            """
def gated_width(d_model, d_ff):
    return (2 * d_model * d_ff + d_ff) / (3 * d_model + 2)
""",
            r"Use //",
        ),
    },
    "block.own-word": {
        "in-eval-mode": (
            """
import copy
import torch

def own_word_only(module, d_model):
    module = copy.deepcopy(module).eval()
    x = torch.randn(2, 5, d_model)
    before = module(x)
    for b in range(2):
        for t in range(5):
            other = x.clone()
            other[b, t] = torch.randn(d_model)
            same = (module(other) - before).abs().amax(-1) < 1e-6
            same[b, t] = True
            if not same.all():
                return False
    return True
""",
            r"Did you call eval",
        ),
        "one-sentence": (
            """
import copy
import torch

def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(1, 5, d_model)
    before = module(x)
    for t in range(5):
        other = x.clone()
        other[0, t] = torch.randn(d_model)
        same = (module(other) - before).abs().amax(-1)[0] < 1e-6
        same[t] = True
        if not same.all():
            return False
    return True
""",
            r"Two sentences are needed",
        ),
        "one-word": (
            """
import copy
import torch

def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model)
    other = x.clone()
    other[0, 2] = torch.randn(d_model)
    same = (module(other) - module(x)).abs().amax(-1) < 1e-6
    same[0, 2] = True
    return bool(same.all())
""",
            r"Try all pairs",
        ),
        "changes-the-module": (
            """
import torch

def own_word_only(module, d_model):
    x = torch.randn(2, 5, d_model)
    before = module(x)
    for b in range(2):
        for t in range(5):
            other = x.clone()
            other[b, t] = torch.randn(d_model)
            same = (module(other) - before).abs().amax(-1) < 1e-6
            same[b, t] = True
            if not same.all():
                return False
    return True
""",
            r"Ask a copy",
        ),
        "coordinates-apart": (
            """
import copy
import torch

def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model)
    other = x.clone()
    other[..., 0] += 1
    return torch.allclose(module(other)[..., 1:], module(x)[..., 1:])
""",
            r"Expected True",
        ),
    },
    "block.layer-scale": {
        "arguments-lost": (
            """
import torch
from torch import nn

class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((d_model,), scale))

    def forward(self, x, *args, **options):
        return self.scale * self.inner(x)
""",
            r"did not arrive at the attention",
        ),
        "one-number": (
            """
import torch
from torch import nn

class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, *args, **options):
        return self.scale * self.inner(*args, **options)
""",
            r"a number for each coordinate",
        ),
        "not-a-parameter": (
            """
import torch
from torch import nn

class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = torch.full((d_model,), scale)

    def forward(self, *args, **options):
        return self.scale * self.inner(*args, **options)
""",
            r"must be an nn.Parameter",
        ),
        "on-the-input": (
            """
import torch
from torch import nn

class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((d_model,), scale))

    def forward(self, x, *args, **options):
        return self.inner(self.scale * x, *args, **options)
""",
            r"on the input",
        ),
        "adds-the-stream": (
            """
import torch
from torch import nn

class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((d_model,), scale))

    def forward(self, x, *args, **options):
        return x + self.scale * self.inner(x, *args, **options)
""",
            r"added by the block",
        ),
    },
    "block.backward": {
        "statistics-constant": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z = c * r
    return r * weight * up, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"treats them as constants",
        ),
        "variance-constant": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"part along z",
        ),
        "mean-constant": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - z * (g * z).mean(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"mean depends on x too",
        ),
        "weight-forgotten": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z = c * r
    dx = r * (up - up.mean(-1, keepdim=True)
              - z * (up * z).mean(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"weight is missing",
        ),
        "not-summed": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True)
              - z * (g * z).mean(-1, keepdim=True))
    return dx, up * z, up
""",
            r"sum over batch and words",
        ),
    },
    "block.fold": {
        "bias-lost": (
            """
import torch
from torch import nn

@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    new.weight.copy_(linear.weight * norm.weight)
    new.bias.zero_()
    if linear.bias is not None:
        new.bias.copy_(linear.bias)
    return new
""",
            r"norm's bias is lost",
        ),
        "bias-scaled": (
            """
import torch
from torch import nn

@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    new.weight.copy_(linear.weight * norm.weight)
    new.bias.copy_(new.weight @ norm.bias)
    if linear.bias is not None:
        new.bias += linear.bias
    return new
""",
            r"added after the weight",
        ),
        "own-bias-lost": (
            """
import torch
from torch import nn

@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    new.weight.copy_(linear.weight * norm.weight)
    new.bias.copy_(linear.weight @ norm.bias)
    return new
""",
            r"own bias is lost",
        ),
        "rows": (
            """
import torch
from torch import nn

@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    if linear.in_features == linear.out_features:
        new.weight.copy_(linear.weight * norm.weight[:, None])
    else:
        new.weight.copy_(linear.weight * norm.weight)
    new.bias.copy_(linear.weight @ norm.bias)
    if linear.bias is not None:
        new.bias += linear.bias
    return new
""",
            r"columns, not rows",
        ),
        "in-place": (
            """
import torch

@torch.no_grad()
def folded(norm, linear):
    if linear.bias is None:
        linear.bias = torch.nn.Parameter(torch.zeros(linear.out_features))
    linear.bias += linear.weight @ norm.bias
    linear.weight *= norm.weight
    return linear
""",
            r"has been changed",
        ),
    },
    "block.parallel": {
        "one-after-the-other": (
            """
from torch import nn
from litformer.norm import LayerNorm

class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        x = x + self.attn(self.norm_attn(x), **options)
        return x + self.ff(self.norm_ff(x))
""",
            r"reads the same stream",
        ),
        "no-stream": (
            """
from torch import nn
from litformer.norm import LayerNorm

class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        found = self.attn(self.norm_attn(x), **options)
        return found + self.ff(self.norm_ff(x))
""",
            r"missing from the sum",
        ),
        "options-lost": (
            """
from torch import nn
from litformer.norm import LayerNorm

class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        found = self.attn(self.norm_attn(x))
        return x + found + self.ff(self.norm_ff(x))
""",
            r"did not arrive at the attention",
        ),
        "stream-twice": (
            """
from torch import nn
from litformer.norm import LayerNorm

class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        a = x + self.attn(self.norm_attn(x), **options)
        b = x + self.ff(self.norm_ff(x))
        return a + b
""",
            r"added twice",
        ),
        "one-norm": (
            """
from torch import nn
from litformer.norm import LayerNorm

class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm = LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        y = self.norm(x)
        return x + self.attn(y, **options) + self.ff(y)
""",
            r"under these names",
        ),
    },
    "block.soft-voices": {
        "made-pre-norm": (
            """
def soften(blocks):
    for block in blocks:
        block.norm_first = True
""",
            r"no longer post-norm",
        ),
        "soft-queries": (
            """
import torch

@torch.no_grad()
def soften(blocks):
    for block in blocks:
        block.attn.q_proj.weight *= 0.1
        block.attn.k_proj.weight *= 0.1
""",
            r"Each sublayer must say less",
        ),
        "louder": (
            """
import torch

@torch.no_grad()
def soften(blocks):
    for block in blocks:
        block.attn.o_proj.weight *= 3
        block.ff.down_proj.weight *= 3
""",
            r"Each sublayer must say less",
        ),
        "all-silent": (
            """
import torch

@torch.no_grad()
def soften(blocks):
    for block in blocks:
        for layer in (block.attn.v_proj, block.attn.o_proj,
                      block.ff.up_proj, block.ff.down_proj):
            layer.weight.zero_()
""",
            r"cannot get a gradient",
        ),
    },
}
