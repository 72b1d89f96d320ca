"""Checks for the exercises of chapters/block.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_dtype,
    expect_equal,
    expect_shape,
    without,
)
from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.feedforward import FeedForward
from litformer.kv_cache import KVCache
from litformer.norm import LayerNorm


def _normal(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def _filled(module, *, seed=0):
    """The module with random parameters, the same in every session."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=make) * p.shape[-1] ** -0.5
            is_norm = "norm" in name and "weight" in name
            p.copy_(1 + noise if is_norm else noise)
    return module


def _alike(got, wrong) -> bool:
    """Is this the answer that a known mistake gives?"""
    return (
        isinstance(got, torch.Tensor)
        and got.shape == wrong.shape
        and torch.allclose(got.to(wrong.dtype), wrong, atol=1e-5, rtol=1e-4)
    )


def _recognise(got, expected, mistakes, *, on, atol=1e-5) -> None:
    """`expect_close`, with the mistake that gives exactly this answer."""
    hint = next((t for t, w in mistakes.items() if _alike(got, w)), "")
    expect_close(got, expected, on=on, hint=hint, atol=atol)


def _normed(x, w, b, eps, *, minus=0, outside=False, axes=(-1,)):
    """LayerNorm and its relatives."""
    centred = x - x.mean(axes, keepdim=True)
    n = centred[0, 0].numel() if axes == (-1,) else x.shape[-1] * x.shape[-2]
    variance = centred.square().sum(axes, keepdim=True) / (n - minus)
    if outside:
        return w * centred / (variance.sqrt() + eps) + b
    return w * centred / (variance + eps).sqrt() + b


@exercise("block.mend-the-norm")
def mend_the_norm(mended):
    """Narrow and wide words, tiny and large numbers, several axes."""
    mended = without(
        mended,
        *("layer_norm", "native_layer_norm", "batch_norm", "rms_norm"),
        *("group_norm", "instance_norm"),
        module="litformer.norm",
    )
    for width in (3, 64):
        w, b = _normal(width, seed=1), _normal(width, seed=2)
        for size in (1.0, 1e-3, 100.0):
            for eps in (0.1, 1e-5):  # a large one tells mistakes apart
                x = size * (_normal(2, 5, width) + 1)
                right = F.layer_norm(x, (width,), w, b, eps)
                options = dict(eps=eps)
                mistakes = {
                    "This divides by D - 1: ask for the biased variance, "
                    "unbiased=False.": _normed(x, w, b, **options, minus=1),
                    "eps belongs under the root, to the variance.": _normed(
                        x, w, b, **options, outside=True
                    ),
                    "This divides by D - 1 (ask for unbiased=False), and adds "
                    "eps outside of the root.": _normed(
                        x, w, b, **options, minus=1, outside=True
                    ),
                    "Mean and variance are taken over all words of a "
                    "sentence. Each word has its own.": _normed(
                        x, w, b, **options, axes=(-2, -1)
                    ),
                    "The bias comes last: it is not scaled by the weight.": w
                    * (_normed(x, 1, 0, **options) + b),
                    "The argument eps is not used.": _normed(x, w, b, 1e-5),
                    "The root is missing: divide by the deviation, not by the "
                    "variance.": w
                    * (x - x.mean(-1, keepdim=True))
                    / (x.var(-1, unbiased=False, keepdim=True) + eps)
                    + b,
                    "The weight is missing.": _normed(x, 1, b, **options),
                    "The bias is missing.": _normed(x, w, 0, **options),
                    "The mean is not taken off.": w
                    * x
                    / (x.var(-1, unbiased=False, keepdim=True) + eps).sqrt()
                    + b,
                }
                on = f"width {width}, numbers near {size:g}, eps={eps}"
                got = mended(x, w, b, eps)
                _recognise(got, right, mistakes, on=on, atol=1e-4)
                expect_dtype(got, x.dtype, on=on, hint="That of the input.")
    x, w, b = _normal(7, 5), torch.ones(5), torch.zeros(5)
    expect_close(
        mended(x, w, b),
        F.layer_norm(x, (5,)),
        on="two axes, and eps left out",
        hint="Work on the last axis, however many are before it.",
    )
    return "Now weights that were trained elsewhere fit."


def _wrong_widths(d, f) -> dict[str, int]:
    """What the likely mistakes make of these sizes."""
    plain = 2 * d * f + f  # without the bias that both layers have
    return {
        "The gated layer is larger than the plain one now: round down.": -(
            -plain // (3 * d + 2)
        ),
        "This rounds to the nearest number, and then the gated layer may be "
        "larger: round down.": round(plain / (3 * d + 2)),
        "This is two thirds of the width. With biases it is a little "
        "different.": 2 * f // 3,
        "The gated layer has three matrices.": plain // (2 * d + 2),
        "The bias of down_proj is there on both sides.": (plain + d)
        // (3 * d + 2),
        "The gated layer has two inner biases, those of gate and up.": plain
        // (3 * d + 1),
    }


@exercise("block.equal-width")
def equal_width(gated_width):
    """The largest width, by trying all, and for one huge model."""
    cases = [(8, 32), (3, 7), (64, 256), (2, 97), (5, 1000), (9, 2000)]
    got = [gated_width(d, f) for d, f in cases]
    wrong = [_wrong_widths(d, f) for d, f in cases]
    alike = [t for t in wrong[0] if got == [w[t] for w in wrong]]
    hint = alike[0] if alike else ""
    for (d, f), width in zip(cases, got, strict=True):
        most = 2 * d * f + f + d
        right = max(w for w in range(f + 1) if 3 * d * w + 2 * w + d <= most)
        if isinstance(width, float):
            raise Wrong(
                f"Expected the integer {right}, got the float {width}. Use "
                "// instead of /.",
                on=f"d_model={d}, d_ff={f}",
            )
        expect_equal(width, right, on=f"d_model={d}, d_ff={f}", hint=hint)
    d, f = 10**20 + 39, 4 * 10**20 + 7
    expect_equal(
        gated_width(d, f),
        (2 * d * f + f) // (3 * d + 2),
        on=f"d_model={d}, d_ff={f}",
        hint="Floats round at such sizes. Stay with integers.",
    )
    return "With biases it is a trifle more than two thirds."


class _Shift(nn.Module):
    """Each word is given the word before it."""

    def forward(self, x):
        return x + torch.roll(x, 1, dims=1)


class _Behind(nn.Module):
    """Each word is given the word behind it; the last one has none."""

    def forward(self, x):
        return x + F.pad(x[:, 1:], (0, 0, 0, 1))


class _Product(nn.Module):
    """Each word is multiplied with the word before."""

    def forward(self, x):
        return x * torch.roll(x, 1, dims=1)


class _LastCoordinate(nn.Module):
    """Only in its last coordinate a word hears of the word before."""

    def forward(self, x):
        shifted = torch.roll(x[..., -1:], 1, dims=1)
        return torch.cat([x[..., :-1], x[..., -1:] + shifted], dim=-1)


class _Strangers(nn.Module):
    """Words at one place, in all sentences, share their mean."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class _Last(nn.Module):
    """Only the last word looks, and at the first one."""

    def forward(self, x):
        out = x.clone()
        out[:, -1] = out[:, -1] + x[:, 0]
        return out


class _Coordinates(nn.Module):
    """Coordinates of a word change places; no other word is asked."""

    def forward(self, x):
        return x.flip(-1) * x.mean(-1, keepdim=True)


class _BatchNorm(nn.BatchNorm1d):
    def forward(self, x):
        return super().forward(x.flatten(0, 1)).view_as(x)


@exercise("block.own-word")
def own_word(own_word_only):
    """Layers that keep to themselves, and layers that do not."""
    d = 6
    cases = {
        "LayerNorm": (LayerNorm(d), True, ""),
        "a feed-forward layer": (FeedForward(d, 12), True, ""),
        "a module that mixes coordinates within each word": (
            _Coordinates(),
            True,
            "Within its own word an output may look at anything.",
        ),
        "attention": (
            MultiHeadAttention(d, 2),
            False,
            "Attention looks at other words of the sentence.",
        ),
        "BatchNorm": (
            _BatchNorm(d),
            False,
            "In training, BatchNorm looks at all words of the batch. Did you "
            "call eval()? It came in training mode.",
        ),
        "a module that adds the word before": (
            _Shift(),
            False,
            "A change of one word shows in the next one.",
        ),
        "a module that adds the word behind": (
            _Behind(),
            False,
            "A change of one word shows in the one *before* it.",
        ),
        "a module that multiplies with the word before": (
            _Product(),
            False,
            "Where all other words are zero, no product changes. Take random "
            "inputs, and change a word into another random one.",
        ),
        "a module whose last coordinate looks at the word before": (
            _LastCoordinate(),
            False,
            "All coordinates of an output count, not only the first.",
        ),
        "a module that adds the word before, and a LayerNorm behind it": (
            nn.Sequential(_Shift(), LayerNorm(d)),
            False,
            "The numbers of a normed word sum to zero, whatever they are, so "
            "the gradient of their sum is zero. Ask for a random combination.",
        ),
        "a LayerNorm, and behind it a module that adds the word before": (
            nn.Sequential(LayerNorm(d, eps=1e-12), _Shift()),
            False,
            "LayerNorm forgets length and mean. A word that was only made "
            "longer, or shifted by a constant, looks the same behind it: "
            "exchange it for another.",
        ),
        "a module that takes off the mean over sentences": (
            _Strangers(),
            False,
            "It looks at other *sentences*, at the same place. Two sentences "
            "are needed to see that.",
        ),
        "a module whose last word looks at the first": (
            _Last(),
            False,
            "Only the last word looks, and only at the first one. Try all "
            "pairs.",
        ),
    }
    torch.manual_seed(0)
    for name, (module, right, hint) in cases.items():
        module.train()
        before = copy.deepcopy(module.state_dict())
        got = own_word_only(module, d)
        expect_equal(bool(got), right, on=name, hint=hint)
        after = module.state_dict()
        same = all(torch.equal(before[n], after[n]) for n in before)
        if not (same and module.training):
            raise Wrong(
                f"The answer for {name} is right, but the module is not as it "
                "was: BatchNorm keeps running averages of what it sees. Ask a "
                "copy, copy.deepcopy(module), and leave its mode alone.",
                on=name,
            )
    return "This is the promise that lets a norm stand behind any mask."


@exercise("block.layer-scale")
def layer_scale(LayerScale):
    """Start, learning, masks, caches and contexts, inside of a block."""
    d = 12
    layer = LayerScale(FeedForward(d, 24), d)
    expect_equal(
        [tuple(p.shape) for n, p in layer.named_parameters() if n == "scale"],
        [(d,)],
        on="the parameter `scale` of LayerScale(ff, 12)",
        hint="`scale` must be an nn.Parameter with a number for each "
        "coordinate, or no optimiser will find it.",
    )
    expect_close(
        layer.scale,
        torch.full((d,), 1e-4),
        on="LayerScale(ff, 12).scale",
        hint="It starts at `scale`, 1e-4 if nothing is said.",
    )
    expect_close(
        LayerScale(FeedForward(d, 24), d, scale=0.5).scale,
        torch.full((d,), 0.5),
        on="LayerScale(ff, 12, scale=0.5).scale",
        hint="The argument `scale` says with which number it starts.",
    )
    expect_equal(
        sum(p.numel() for p in layer.parameters()),
        d + 2 * d * 24 + 24 + d,
        on="the number of parameters of LayerScale(ff, 12)",
        hint="Those of the inner layer belong to it too: keep the layer "
        "itself as an attribute, not within a list or a function.",
    )
    x, context = _normal(2, 5, d), _normal(2, 7, d, seed=1)
    inner = _filled(FeedForward(d, 24))
    layer = LayerScale(inner, d, scale=0.5)
    knobs = torch.arange(1.0, d + 1)
    with torch.no_grad():
        layer.scale.copy_(knobs)
    _recognise(
        layer(x),
        knobs * inner(x),
        {
            "The volume is on the input. It belongs on the output.": inner(
                knobs * x
            ),
            "The stream is added by the block; a layer only says its word.": x
            + knobs * inner(x),
            "The volume is added instead of multiplied.": knobs + inner(x),
            "The volume does nothing.": inner(x),
        },
        on="a feed-forward layer with volumes 1 to 12",
    )
    layer.zero_grad()
    layer(x).square().sum().backward()
    if not all(p.grad is not None and p.grad.any() for p in layer.parameters()):
        raise Wrong(
            "The output is right, and some parameter gets no gradient.",
            on="a feed-forward layer with volumes 1 to 12",
            hint="Is the scale learned? Multiply by the parameter itself, not "
            "by its .data, and leave requires_grad as it is.",
        )
    parts = [_filled(MultiHeadAttention(d, 3), seed=s) for s in (1, 2)]
    block = Block(
        d,
        LayerScale(parts[0], d, scale=1.0),
        LayerScale(inner, d, scale=1.0),
        cross_attn=LayerScale(parts[1], d, scale=1.0),
    ).eval()
    plain = Block(d, parts[0], inner, cross_attn=parts[1]).eval()
    mask = torch.tensor([1, 1, 0, 1, 0, 0, 1], dtype=torch.bool)[None]
    options = dict(causal=True, context_mask=mask.expand(5, 7))
    on = "a decoder block, causal, with a context and its mask, all volumes 1"
    lost = (
        "What the block was given did not arrive at the attention: hand on "
        "all arguments, *args and **options."
    )
    try:
        got = block(x, context, **options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise Wrong(
            "A block hands more to its attention than x, and your layer "
            f"refuses it. {error}",
            on=on,
            hint=lost,
        ) from None
    expect_close(got, plain(x, context, **options), on=on, hint=lost)
    cache = KVCache()
    steps = [block(t, context, causal=True, cache=cache) for t in x.split(1, 1)]
    expect_close(
        torch.cat(steps, 1),
        plain(x, context, causal=True),
        on="the same block, word by word with a cache",
        hint="The cache did not arrive at the attention.",
    )
    return "At 1e-4 a block starts as nearly the identity, at any depth."


def _dx(g, c, r):
    """The gradient of x, with this 1 / deviation."""
    z = c * r
    along = z * (g * z).mean(-1, keepdim=True)
    return r * (g - g.mean(-1, keepdim=True) - along)


@exercise("block.backward")
def backward(layer_norm_backward):
    """Three gradients against autograd, in double precision."""
    layer_norm_backward = without(
        layer_norm_backward,
        *("grad", "backward", "requires_grad_", "requires_grad"),
        *("native_layer_norm_backward", "layer_norm_backward"),
    )
    for width, eps in ((4, 1e-5), (16, 1e-5), (5, 0.3)):
        x = (3 * _normal(2, 3, width) + 1).double().requires_grad_()
        w = _normal(width, seed=1).double().requires_grad_()
        b = _normal(width, seed=2).double().requires_grad_()
        up = _normal(2, 3, width, seed=3).double()
        y = F.layer_norm(x, (width,), w, b, eps)
        right = torch.autograd.grad(y, (x, w, b), up)
        with torch.no_grad():
            got = layer_norm_backward(up, x.detach(), w.detach(), eps)
            if not isinstance(got, tuple | list) or len(got) != 3:
                raise Wrong(
                    "Expected three gradients: of x, weight and bias, in this "
                    f"order. Got {type(got).__name__}.",
                    on=f"width {width}",
                )
            c = x - x.mean(-1, keepdim=True)
            r = (c.square().mean(-1, keepdim=True) + eps).rsqrt()
            z, g = c * r, w * up
            mean = g.mean(-1, keepdim=True)
            along = z * (g * z).mean(-1, keepdim=True)
            mistakes = {
                "The mean depends on x too: something is to be taken off.": r
                * (g - along),
                "The variance depends on x too: the part along z is to be "
                "taken off.": r * (g - mean),
                "Mean and variance depend on x too. This treats them as "
                "constants.": r * g,
                "The weight is missing: the gradient passes through w on its "
                "way to z.": r
                * (
                    up
                    - up.mean(-1, keepdim=True)
                    - z * (up * z).mean(-1, keepdim=True)
                ),
                "The factor 1 / sqrt(variance + eps) is missing.": g
                - mean
                - along,
                "The variance divides by D, not by D - 1.": _dx(
                    g, c, (x.var(-1, keepdim=True) + eps).rsqrt()
                ),
                "The argument eps is not used.": _dx(
                    g, c, (c.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
                ),
                "What is taken off along z is a mean over the word, not a "
                "sum.": r * (g - mean - z * (g * z).sum(-1, keepdim=True)),
            }
            on = f"width {width}, eps={eps}"
            _recognise(
                got[0], right[0], mistakes, on=f"{on}, the gradient of x"
            )
            expect_shape(
                got[1],
                (width,),
                on=f"{on}, the gradient of weight",
                hint="All words share the weight: sum over batch and words.",
            )
            _recognise(
                got[1],
                right[1],
                {
                    "The weight multiplies the normed word, not x.": (
                        up * x
                    ).sum((0, 1)),
                    "Sum over the words; a mean is too small.": right[1] / 6,
                    "This is the gradient of the bias. The order is x, weight, "
                    "bias.": right[2],
                    "The weight has no part in its own gradient: it is the "
                    "sum of up times z.": (g * z).sum((0, 1)),
                },
                on=f"{on}, the gradient of weight",
            )
            expect_close(
                got[2],
                right[2],
                on=f"{on}, the gradient of bias",
                hint="All words share the bias: sum over batch and words.",
            )
            for part in got:
                expect_dtype(
                    part,
                    torch.double,
                    on=f"{on}, all tensors in float64",
                    hint="Gradients have the type of the inputs.",
                )
    return "No gradient points along the word: its length is forgotten."


@exercise("block.fold")
def fold(folded):
    """With and without a bias, and nothing else changed."""
    for bias in (True, False):
        norm = _filled(LayerNorm(7))
        with torch.no_grad():
            norm.weight.add_(1)
        linear = _filled(nn.Linear(7, 5, bias=bias), seed=5)
        before = [
            p.detach().clone() for m in (norm, linear) for p in m.parameters()
        ]
        x = 2 * _normal(3, 4, 7) + 1
        z = F.layer_norm(x, (7,), eps=norm.eps)
        right = linear(norm(x)).detach()
        new = folded(norm, linear)
        if not isinstance(new, nn.Linear):
            raise Wrong(
                f"Expected an nn.Linear, got {type(new).__name__}.",
                on="a LayerNorm of width 7 and a linear layer of 7 to 5",
            )
        on = f"7 to 5, {'with' if bias else 'without'} a bias"
        after = [p for m in (norm, linear) for p in m.parameters()]
        if len(before) != len(after) or not all(
            map(torch.equal, before, after)
        ):
            raise Wrong(
                "The norm or the linear layer has been changed. Build a new "
                "one.",
                on=on,
            )
        expect_shape(
            new.weight,
            (5, 7),
            on=f"the new weight, {on}",
            hint="A linear layer keeps its weight as (out, in).",
        )
        scale, b, w = (p.detach() for p in before[:3])
        c = before[3] if bias else torch.zeros(5)
        with torch.no_grad():
            mistakes = {
                "The norm's bias is lost. The linear layer turns it into a "
                "bias of its own.": F.linear(z, w * scale, c),
                "The linear layer's own bias is lost.": F.linear(
                    z, w * scale, w @ b
                ),
                "The norm's bias is multiplied by its weight. It is added "
                "after the weight.": F.linear(
                    z, w * scale, (w * scale) @ b + c
                ),
                "Nothing has been folded.": F.linear(z, w, c),
                "The norm's weight is lost.": F.linear(z, w, w @ b + c),
            }
            got = new(z)
        _recognise(got, right, mistakes, on=on)
    square = _filled(nn.Linear(7, 7), seed=6)
    norm, x = _filled(LayerNorm(7), seed=7), _normal(2, 7)
    with torch.no_grad():
        rows = F.linear(
            F.layer_norm(x, (7,)),
            square.weight * norm.weight[:, None],
            square.weight @ norm.bias + square.bias,
        )
    _recognise(
        folded(norm, square)(F.layer_norm(x, (7,))),
        square(norm(x)).detach(),
        {"The norm's weight scales inputs: columns, not rows.": rows},
        on="a square layer, 7 to 7",
    )
    return "One vector of weights less, and the same function."


@exercise("block.parallel")
def parallel(ParallelBlock):
    """The sum of two answers to one stream, with options handed on."""
    d = 12
    attn, ff = MultiHeadAttention(d, 3), FeedForward(d, 24)
    block = ParallelBlock(d, attn, ff)
    names = {n.split(".")[0] for n, _ in block.named_parameters()}
    expect_equal(
        sorted(names),
        ["attn", "ff", "norm_attn", "norm_ff"],
        on="the submodules that have parameters",
        hint="The norms, the attention and the feed-forward layer, under "
        "these names.",
    )
    x = _normal(2, 5, d)
    for name in ("norm_attn", "norm_ff"):
        expect_close(
            getattr(block, name)(x + 1),
            F.layer_norm(x + 1, (d,)),
            on=f"`{name}` of a new block, on its own",
            hint="Both norms are LayerNorms.",
        )
    _filled(block)
    mask = torch.tensor([1, 1, 0, 1, 0], dtype=torch.bool).expand(5, 5)
    for on, options in {
        "random weights": {},
        "random weights, causal": {"causal": True},
        "random weights, with a mask": {"mask": mask},
    }.items():
        with torch.no_grad():
            found = attn(block.norm_attn(x), **options)
            said = ff(block.norm_ff(x))
            right = x + found + said
            serial = x + found
            mistakes = {
                "The feed-forward layer reads what attention has just said. "
                "Here it reads the same stream.": serial
                + ff(block.norm_ff(serial)),
                "The stream itself is missing from the sum.": found + said,
                "The stream is added twice.": right + x,
                "The options did not arrive at the attention: the mask "
                "is lost.": x + attn(block.norm_attn(x)) + said,
                "Both read through one norm. Each has its own.": x
                + found
                + ff(block.norm_attn(x)),
                "This is the norm of the answer. It belongs on what is read.": x
                + block.norm_attn(attn(x, **options))
                + block.norm_ff(ff(x)),
                "The norms are not used.": x + attn(x, **options) + ff(x),
            }
            given = x.clone()
            got = block(given, **options)
        _recognise(got, right, mistakes, on=on)
        if not torch.equal(given, x):
            raise Wrong(
                "The output is right, and the block has changed its input.",
                on=on,
                hint="x += y writes into x, and whoever gave it to you still "
                "has it. Write x = x + y.",
            )
    return "Both products can be started at once: that is what it is for."


def _post_norm_stack():
    """The 24 blocks of the chapter, with the norm behind the sum."""
    torch.manual_seed(0)
    return nn.ModuleList(
        Block(
            32,
            MultiHeadAttention(32, 4),
            FeedForward(32, 64),
            norm_first=False,
        )
        for _ in range(24)
    )


def _run(blocks, x):
    for block in blocks:
        x = block(x, causal=True)
    return x


@exercise("block.soft-voices", seconds=60)
def soft_voices(soften):
    """What reaches the top, and 80 steps of training at depth 24."""
    blocks = _post_norm_stack()
    shapes = [p.shape for p in blocks.parameters()]
    soften(blocks)
    on = "24 post-norm blocks of width 32"
    if any(block.norm_first for block in blocks):
        raise Wrong(
            "These blocks are no longer post-norm. Only the weights may "
            "change.",
            on=on,
        )
    if shapes != [p.shape for p in blocks.parameters()] or any(
        type(block.attn) is not MultiHeadAttention
        or type(block.ff) is not FeedForward
        for block in blocks
    ):
        raise Wrong(
            "The blocks have other parts now. Only the weights may change.",
            on=on,
        )
    x = _normal(4, 10, 32)
    with torch.no_grad():
        changed = _run(blocks, x)
        fresh = _post_norm_stack()
        fresh.load_state_dict(blocks.state_dict())
        top = _run(fresh, x)
        blocks = fresh  # nothing but the weights has come along
    if not torch.allclose(top, changed, atol=1e-4, equal_nan=True):
        raise Wrong(
            "New blocks with these weights compute something else than your "
            "blocks do, so more than the weights has changed.",
            on=on,
            hint="Leave the blocks' functions and settings as they are.",
        )
    if not top.isfinite().all():
        raise Wrong("The output is not finite any more.", on=on)
    kept = F.cosine_similarity(top, x, dim=-1).mean().item()
    make = torch.Generator().manual_seed(1)
    embed, read = nn.Embedding(8, 32), nn.Linear(32, 8)
    place = nn.Parameter(_normal(10, 32, seed=2))
    parameters = [p for m in (embed, blocks, read) for p in m.parameters()]
    optimizer = torch.optim.AdamW(
        [*parameters, place], lr=2e-3, betas=(0.9, 0.98), fused=True
    )
    late = []
    for step in range(80):
        optimizer.param_groups[0]["lr"] = 2e-3 * min(1, (step + 1) / 10)
        tokens = torch.randint(8, (16, 10), generator=make)
        logits = read(_run(blocks, embed(tokens) + place))
        loss = F.cross_entropy(logits[:, 2:].mT, tokens[:, :-2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        late.append(loss.item())
        last = sum(late[-10:]) / 10
        if step > 10 and (last < 0.9 or not loss.isfinite()):
            break
    if not last < 1.0:
        hint = (
            "Nothing of a word is left at the top. Each sublayer must say "
            "less at first."
            if kept < 0.3
            else "The words arrive at the top, but it does not learn. Is "
            "there a weight that cannot get a gradient?"
        )
        raise Wrong(
            f"Expected a loss below 1 after 80 steps, got {last:.2f} (chance: "
            f"2.08). The cosine between a word and its top is {kept:.2f}. "
            f"{hint}",
            on=on,
        )
    return f"Loss {last:.2f}, with {kept:.2f} of each word left at the start."
