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
        "uses-layernorm": (
            """
import torch.nn.functional as F


def mended(x, weight, bias, eps=1e-5):
    return F.layer_norm(x, weight.shape, weight, bias, eps)
""",
            r"calls `layer_norm`",
        ),
        "uses-book": (
            """
from litformer.norm import layer_norm


def mended(x, weight, bias, eps=1e-5):
    return layer_norm(x, weight, bias, eps=eps)
""",
            r"rules out",
        ),
        "eps-fixed": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    return (
        weight
        * (x - mean)
        / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        + bias
    )
""",
            r"eps is not used",
        ),
        "no-sqrt": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    return (
        weight * (x - mean) / (x.var(-1, keepdim=True, unbiased=False) + eps)
        + bias
    )
""",
            r"root is missing",
        ),
        "no-weight": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (
        x.var(-1, keepdim=True, unbiased=False) + eps
    ).sqrt() + bias
""",
            r"weight is missing",
        ),
        "float32-out": (
            """
def mended(x, weight, bias, eps=1e-5):
    x = x.double()
    mean = x.mean(-1, keepdim=True)
    return (
        weight
        * (x - mean)
        / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        + bias
    )
""",
            r"dtype float32, got float64",
        ),
        "rank3-only": (
            """
def mended(x, weight, bias, eps=1e-5):
    mean = x.mean(2, keepdim=True)
    return (
        weight
        * (x - mean)
        / (x.var(2, keepdim=True, unbiased=False) + eps).sqrt()
        + bias
    )
""",
            r"Dimension out of range",
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
        "round": (
            """
def gated_width(d_model, d_ff):
    return round((2 * d_model * d_ff + d_ff) / (3 * d_model + 2))
""",
            r"rounds to the nearest",
        ),
        "builds": (
            """
from litformer.feedforward import FeedForward, GatedFeedForward


def gated_width(d_model, d_ff):
    count = lambda m: sum(p.numel() for p in m.parameters())
    most = count(FeedForward(d_model, d_ff))
    w = d_ff
    while count(GatedFeedForward(d_model, w)) > most:
        w -= 1
    return w
""",
            r"use a formula",
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
        "gradient-first-output-only": (
            """
import copy, torch


def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model, requires_grad=True)
    y = module(x)
    for b in range(2):
        for t in range(5):
            (g,) = torch.autograd.grad(y[b, t].sum(), x, retain_graph=True)
            g = g.abs().amax(-1) > 1e-6
            g[b, t] = False
            if g.any():
                return False
    return True
""",
            r"gradient of their sum is zero",
        ),
        "zeros": (
            """
import copy, torch


def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.zeros(2, 5, d_model)
    y = module(x)
    for b in range(2):
        for t in range(5):
            o = x.clone()
            o[b, t] += 1.0
            same = (module(o) - y).abs().amax(-1) < 1e-6
            same[b, t] = True
            if not same.all():
                return False
    return True
""",
            r"no product changes",
        ),
        "scale-change": (
            """
import copy, torch


def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model)
    y = module(x)
    for b in range(2):
        for t in range(5):
            o = x.clone()
            o[b, t] *= 2
            same = (module(o) - y).abs().amax(-1) < 1e-6
            same[b, t] = True
            if not same.all():
                return False
    return True
""",
            r"exchange it for another",
        ),
        "only-later-words": (
            """
import copy, torch


def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model)
    y = module(x)
    for t in range(5):
        o = x.clone()
        o[0, t] = torch.randn(d_model)
        same = (module(o) - y).abs().amax(-1) < 1e-6
        if not (same[0, t + 1 :].all() and same[1].all()):
            return False
    return True
""",
            r"one \*before\* it",
        ),
        "compares-all": (
            """
import copy, torch


def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model)
    y = module(x)
    o = x.clone()
    o[0, 0] = torch.randn(d_model)
    return torch.allclose(module(o), y)
""",
            r"Expected True",
        ),
        "leaves-in-eval": (
            """
import copy, torch


def own_word_only(module, d_model):
    twin = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model)
    y = twin(x)
    module.eval()
    for b in range(2):
        for t in range(5):
            o = x.clone()
            o[b, t] = torch.randn(d_model)
            same = (twin(o) - y).abs().amax(-1) < 1e-6
            same[b, t] = True
            if not same.all():
                return False
    return True
""",
            r"leave its mode alone",
        ),
        "first-coordinate": (
            """
import copy

import torch


def own_word_only(module, d_model):
    module = copy.deepcopy(module)
    x = torch.randn(2, 5, d_model, requires_grad=True)
    y = module(x)
    for b in range(2):
        for t in range(5):
            (g,) = torch.autograd.grad(y[b, t, 0], x, retain_graph=True)
            reached = g.abs().amax(-1) > 1e-6
            reached[b, t] = False
            if reached.any():
                return False
    return True
""",
            r"All coordinates",
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
        "ignores-scale": (
            """
import torch
from torch import nn


class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((d_model,), 1e-4))

    def forward(self, *args, **options):
        return self.scale * self.inner(*args, **options)
""",
            r"with which number it starts",
        ),
        "detached-scale": (
            """
import torch
from torch import nn


class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((d_model,), scale))

    def forward(self, *args, **options):
        return self.scale.data * self.inner(*args, **options)
""",
            r"gets no gradient",
        ),
        "inner-not-registered": (
            """
import torch
from torch import nn


class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = [inner]
        self.scale = nn.Parameter(torch.full((d_model,), scale))

    def forward(self, *args, **options):
        return self.scale * self.inner[0](*args, **options)
""",
            r"keep the layer itself",
        ),
        "args-no-options": (
            """
import torch
from torch import nn


class LayerScale(nn.Module):
    def __init__(self, inner, d_model, scale=1e-4):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((d_model,), scale))

    def forward(self, *args):
        return self.scale * self.inner(*args)
""",
            r"your layer refuses it",
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
        "autograd": (
            """
import torch
import torch.nn.functional as F


def layer_norm_backward(up, x, weight, eps=1e-5):
    with torch.enable_grad():
        x = x.clone().requires_grad_()
        w = weight.clone().requires_grad_()
        b = torch.zeros_like(w).requires_grad_()
        y = F.layer_norm(x, w.shape, w, b, eps)
        return torch.autograd.grad(y, (x, w, b), up)
""",
            r"calls `(grad|requires_grad_)`",
        ),
        "swapped": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True))
    return dx, up.sum((0, 1)), (up * z).sum((0, 1))
""",
            r"order is x, weight, bias",
        ),
        "unbiased": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (x.var(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"by D, not by D - 1",
        ),
        "eps-fixed": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"eps is not used",
        ),
        "sum-instead-of-mean": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True) - z * (g * z).sum(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"mean over the word, not a sum",
        ),
        "weight-squared": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True))
    return dx, (g * z).sum((0, 1)), up.sum((0, 1))
""",
            r"no part in its own gradient",
        ),
        "float32": (
            """
def layer_norm_backward(up, x, weight, eps=1e-5):
    up, x, weight = up.float(), x.float(), weight.float()
    c = x - x.mean(-1, keepdim=True)
    r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
    z, g = c * r, weight * up
    dx = r * (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True))
    return dx, (up * z).sum((0, 1)), up.sum((0, 1))
""",
            r"type of the inputs",
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
        "shares-parameters": (
            """
import torch
from torch import nn


@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    new.weight = linear.weight
    new.weight.data = linear.weight * norm.weight
    new.bias.copy_(linear.weight @ norm.bias)
    if linear.bias is not None:
        new.bias += linear.bias
    return new
""",
            r"has been changed",
        ),
        "zeroes-the-norm": (
            """
import torch
from torch import nn


@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.in_features, linear.out_features)
    new.weight.copy_(linear.weight * norm.weight)
    new.bias.copy_(linear.weight @ norm.bias)
    if linear.bias is not None:
        new.bias += linear.bias
    norm.weight.fill_(1)
    norm.bias.zero_()
    return new
""",
            r"has been changed",
        ),
        "transposed-build": (
            """
import torch
from torch import nn


@torch.no_grad()
def folded(norm, linear):
    new = nn.Linear(linear.out_features, linear.in_features)
    new.weight.copy_((linear.weight * norm.weight).T)
    return new
""",
            r"\(out, in\)",
        ),
        "sequential": (
            """
from torch import nn


def folded(norm, linear):
    return nn.Sequential(norm, linear)
""",
            r"nn.Linear, got Sequential",
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
        "in-place": (
            """
from torch import nn
from litformer.norm import LayerNorm


class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        a, b = self.attn(self.norm_attn(x), **options), self.ff(self.norm_ff(x))
        x += a + b
        return x
""",
            r"changed its input",
        ),
        "causal-always": (
            """
from torch import nn
from litformer.norm import LayerNorm


class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, causal=False, **options):
        return (
            x
            + self.attn(self.norm_attn(x), causal=causal)
            + self.ff(self.norm_ff(x))
        )
""",
            r"options did not arrive",
        ),
        "rmsnorm": (
            """
from torch import nn
from litformer.norm import RMSNorm


class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = RMSNorm(d_model), RMSNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        return (
            x
            + self.attn(self.norm_attn(x), **options)
            + self.ff(self.norm_ff(x))
        )
""",
            r"Both norms are LayerNorms",
        ),
        "post-norm": (
            """
from torch import nn
from litformer.norm import LayerNorm


class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn, self.norm_ff = LayerNorm(d_model), LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        return (
            x
            + self.norm_attn(self.attn(x, **options))
            + self.norm_ff(self.ff(x))
        )
""",
            r"norm of the answer",
        ),
        "shared-norm-named": (
            """
from torch import nn
from litformer.norm import LayerNorm


class ParallelBlock(nn.Module):
    def __init__(self, d_model, attn, ff):
        super().__init__()
        self.norm_attn = LayerNorm(d_model)
        self.norm_ff = LayerNorm(d_model)
        self.attn, self.ff = attn, ff

    def forward(self, x, **options):
        y = self.norm_attn(x)
        return x + self.attn(y, **options) + self.ff(y)
""",
            r"Each has its own",
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
        "replaces-ff": (
            """
from torch import nn


class Zero(nn.Module):
    def __init__(s, f):
        super().__init__()
        s.f = f

    def forward(s, x):
        return 0.05 * s.f(x)


def soften(blocks):
    for b in blocks:
        b.ff = Zero(b.ff)
        b.attn.o_proj.weight.data *= 0.1
""",
            r"have other parts",
        ),
        "patch-add": (
            """
import types


def soften(blocks):
    for b in blocks:

        def _add(self, x, norm, sublayer, *args, **options):
            return x + sublayer(norm(x), *args, **options)

        b._add = types.MethodType(_add, b)
""",
            r"more than the weights",
        ),
        "grad-error": (
            """
def soften(blocks):
    for block in blocks:
        block.attn.o_proj.weight *= 0.1
""",
            r"torch.no_grad",
        ),
        "nothing": (
            """
def soften(blocks):
    pass
""",
            r"must say less",
        ),
    },
}
