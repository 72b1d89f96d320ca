"""Wrong answers to the exercises of chapters/vit.md, as people give.

id -> name of the mistake -> (code instead of the solution, what must be said).
"""


def _cut(body):
    return (
        "from einops import rearrange\n\ndef cut(images, p):\n"
        f"    return {body}\n"
    )


def _pattern(pattern):
    return _cut(f"rearrange(images, {pattern!r}, p=p, q=p)")


def _count(block="(4*d*d + 4*d) + (2*d*f + f + d) + 4*d", **changes):
    parts = dict(
        places="1 + (side // patch) ** 2",
        door="(channels * patch**2 + 1) * d + d + places * d",
        scale="2 * d * layer_scale",
        last="2 * d",
    )
    parts |= changes
    return f"""
def parameters(side, patch, channels, d_model, n_layers, d_ff, layer_scale):
    d, f = d_model, d_ff
    places = {parts["places"]}
    door = {parts["door"]}
    block = {block} + {parts["scale"]}
    return door + n_layers * block + {parts["last"]}
"""


def _varint(add="(byte & 127) << factor", end="at", until="not byte & 128"):
    return f"""
def read_varint(data, at):
    start = at
    value = factor = 0
    while True:
        byte = data[at]
        at += 1
        value += {add}
        factor += 7
        if {until}:
            return value, {end}
"""


def _crop(body):
    return (
        "import torch\n\n"
        "def crop_positions(table, grid, top, left, rows, cols):\n" + body
    )


def _shift(body):
    return f"import torch\n\ndef after_shift(tokens, grid):\n{body}"


def _keep(scores, tail="best = best.sort(dim=1).values + 1"):
    return f"""
import torch

def keep_patches(tokens, weights, k):
    scores = {scores}
    best = scores.topk(k, dim=1).indices
    {tail}
    rows = torch.cat([torch.zeros_like(best[:, :1]), best], dim=1)
    return tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[2]))
"""


def _probe(image, p):
    return (
        "import torch\n\ndef probe():\n"
        "    make = torch.Generator().manual_seed(0)\n"
        f"    return {image}, {p}\n"
    )


def _change(body):
    return (
        "import torch\nfrom litformer.augment import random_affine\n\n"
        f"def change(x, generator):\n    return {body}\n"
    )


MUTANTS = {
    "vit.cut": {
        "one-view": (
            _cut("images.reshape(len(images), -1, images.shape[1] * p * p)"),
            r"This is one view",
        ),
        "channels-last": (
            _pattern("b c (h p) (w q) -> b (h w) (p q c)"),
            r"channels last",
        ),
        "column-by-column": (
            _pattern("b c (h p) (w q) -> b (w h) (c p q)"),
            r"column by column",
        ),
        "every-pth-pixel": (
            _pattern("b c (p h) (q w) -> b (h w) (c p q)"),
            r"every second, third",
        ),
        "patches-turned": (
            _pattern("b c (h p) (w q) -> b (h w) (c q p)"),
            r"rows and columns are exchanged",
        ),
        "detached": (
            _cut(
                "rearrange(images.detach(), "
                "'b c (h p) (w q) -> b (h w) (c p q)', p=p, q=p)"
            ),
            r"gradient got lost",
        ),
        "einops": (
            """
from einops import rearrange


def cut(images, p):
    return rearrange(images, "b c (h p) (w q) -> b (h w) (c p q)", p=p, q=p)
""",
            r"calls `einops`",
        ),
        "loop": (
            """
import torch


def cut(images, p):
    out = []
    for r in range(0, images.shape[2], p):
        for c in range(0, images.shape[3], p):
            out.append(images[:, :, r : r + p, c : c + p].flatten(1))
    return torch.stack(out, 1)
""",
            r"there is a loop in it",
        ),
        "fixed-4": (
            """
def cut(images, p):
    x = images.unflatten(3, (-1, 4)).unflatten(2, (-1, 4))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
""",
            r"don't multiply up",
        ),
        "three-channels": (
            """
def cut(images, p):
    b, c, h, w = images.shape
    return (
        images.view(b, 3, h // p, p, w // p, p)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(b, -1, 3 * p * p)
    )
""",
            r"\(3, 2, 15, 6\)",
        ),
        "double": (
            """
def cut(images, p):
    x = images.double().unflatten(3, (-1, p)).unflatten(2, (-1, p))
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
""",
            r"dtype float32, got float64",
        ),
    },
    "vit.count": {
        "no-place-for-the-class-token": (
            _count(places="(side // patch) ** 2"),
            r"class token has a vector of its own, and a place",
        ),
        "no-class-token": (
            _count(door="(channels * patch**2 + 1) * d + places * d"),
            r"One row of d_model is missing",
        ),
        "no-positions": (
            _count(door="(channels * patch**2 + 1) * d + 2 * d"),
            r"positions of the patches are missing",
        ),
        "no-biases": (
            _count(block="4*d*d + 2*d*f + 4*d"),
            r"without their biases",
        ),
        "no-norms": (
            _count(block="(4*d*d + 4*d) + (2*d*f + f + d)"),
            r"two norms",
        ),
        "one-channel": (
            _count(door="(patch**2 + 1) * d + d + places * d"),
            r"channels \* patch\*\*2",
        ),
        "scaled-once": (
            _count(scale="d * layer_scale"),
            r"behind both sublayers",
        ),
        "no-last-norm": (_count(last="0"), r"is the last norm counted"),
        "float": (
            """
def parameters(side, patch, channels, d_model, n_layers, d_ff, layer_scale):
    d, f = d_model, d_ff
    P = (side // patch) ** 2
    b = (
        4 * d * d
        + 4 * d
        + 2 * d * f
        + f
        + d
        + 4 * d
        + (2 * d if layer_scale else 0)
    )
    return float(
        (channels * patch**2 + 1) * d + d + (1 + P) * d + n_layers * b + 2 * d
    )
""",
            r"its type is not",
        ),
        "builds": (
            """
from litformer.vit import *


def parameters(side, patch, channels, d_model, n_layers, d_ff, layer_scale):
    return sum(
        p.numel()
        for p in ViT(
            ViTConfig(
                (side, side),
                patch,
                channels,
                d_model,
                n_layers,
                1,
                d_ff,
                layer_scale=1.0 if layer_scale else None,
            )
        ).parameters()
    )
""",
            r"use a formula|nobody can build",
        ),
        "true-div": (
            """
def parameters(side, patch, channels, d_model, n_layers, d_ff, layer_scale):
    d, f = d_model, d_ff
    P = (side / patch) ** 2
    b = (
        4 * d * d
        + 4 * d
        + 2 * d * f
        + f
        + d
        + 4 * d
        + (2 * d if layer_scale else 0)
    )
    return (
        (channels * patch**2 + 1) * d + d + (1 + P) * d + n_layers * b + 2 * d
    )
""",
            r"its type is not",
        ),
        "no-proj-bias": (
            """
def parameters(side, patch, channels, d_model, n_layers, d_ff, layer_scale):
    d, f = d_model, d_ff
    P = (side // patch) ** 2
    b = (
        4 * d * d
        + 4 * d
        + 2 * d * f
        + f
        + d
        + 4 * d
        + (2 * d if layer_scale else 0)
    )
    return channels * patch**2 * d + d + (1 + P) * d + n_layers * b + 2 * d
""",
            r"the projection has a bias",
        ),
        "scale-always": (
            """
def parameters(side, patch, channels, d_model, n_layers, d_ff, layer_scale):
    d, f = d_model, d_ff
    P = (side // patch) ** 2
    b = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d + 2 * d
    return (
        (channels * patch**2 + 1) * d + d + (1 + P) * d + n_layers * b + 2 * d
    )
""",
            r"no LayerScale here",
        ),
    },
    "vit.varint": {
        "flag-kept": (
            _varint("byte << 8 * (at - start - 1)"),
            r"flag, and no part",
        ),
        "highest-first": (
            _varint("value * 127 + (byte & 127)"),
            r"wrong order",
        ),
        "first-byte-only": (_varint(until="True"), r"another one follows"),
        "not-worth-more": (_varint("byte & 127"), r"128\*\*k"),
        "relative-end": (
            _varint(end="at - start"),
            r"Count from the beginning",
        ),
        "last-byte": (_varint(end="at - 1"), r"That is its last byte"),
        "reads-on": (_varint(until="byte & 128"), r"."),
        "only-two": (
            """
def read_varint(data, at):
    a = data[at]
    if a < 128:
        return a, at + 1
    return (a & 127) + 128 * data[at + 1], at + 2
""",
            r"Expected 100000",
        ),
        "float": (
            """
def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 127) * 2.0**shift
        shift += 7
        if not byte & 128:
            return value, at
""",
            r"its type is not",
        ),
        "int32": (
            """
def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return (value & 0x7FFFFFFF), at
""",
            r"Expected 4294967295",
        ),
        "le": (
            """
def read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value += (byte & 127) << shift
        shift += 7
        if byte <= 128:
            return value, at
""",
            r"another one follows",
        ),
    },
    "vit.crop-positions": {
        "class-token-lost": (
            _crop(
                "    plane = table[1:].unflatten(0, grid)\n"
                "    return plane[top:top + rows, left:left + cols]"
                ".flatten(0, 1)\n"
            ),
            r"class token's row is missing",
        ),
        "off-by-one": (
            _crop(
                "    plane = table[:-1].unflatten(0, grid)\n"
                "    part = plane[top:top + rows, left:left + cols]\n"
                "    return torch.cat([table[:1], part.flatten(0, 1)])\n"
            ),
            r"Off by one",
        ),
        "grid-turned": (
            _crop(
                "    plane = table[1:].unflatten(0, grid[::-1])\n"
                "    part = plane[top:top + rows, left:left + cols]\n"
                "    return torch.cat([table[:1], part.flatten(0, 1)])\n"
            ),
            r"\(rows, columns\), in this order|shape",
        ),
        "one-run": (
            _crop(
                "    start = 1 + top * grid[1] + left\n"
                "    part = table[start:start + rows * cols]\n"
                "    return torch.cat([table[:1], part])\n"
            ),
            r"one run of the list",
        ),
        "corner": (
            _crop(
                "    plane = table[1:].unflatten(0, grid)[:rows, :cols]\n"
                "    return torch.cat([table[:1], plane.flatten(0, 1)])\n"
            ),
            r"at the top left",
        ),
        "column-by-column": (
            _crop(
                "    plane = table[1:].unflatten(0, grid)\n"
                "    part = plane[top:top + rows, left:left + cols]\n"
                "    part = part.transpose(0, 1).flatten(0, 1)\n"
                "    return torch.cat([table[:1], part])\n"
            ),
            r"column by column",
        ),
        "rows-cols-swapped": (
            """
import torch


def crop_positions(table, grid, top, left, rows, cols):
    plane = table[1:].unflatten(0, grid)
    part = plane[top : top + cols, left : left + rows]
    return torch.cat([table[:1], part.flatten(0, 1)])
""",
            r"rows and cols are exchanged",
        ),
        "end-index": (
            """
import torch


def crop_positions(table, grid, top, left, rows, cols):
    plane = table[1:].unflatten(0, grid)
    part = plane[top:rows, left:cols]
    return torch.cat([table[:1], part.flatten(0, 1)])
""",
            r"A slice ends at top",
        ),
        "top-left-swapped": (
            """
import torch


def crop_positions(table, grid, top, left, rows, cols):
    plane = table[1:].unflatten(0, grid)
    part = plane[left : left + rows, top : top + cols]
    return torch.cat([table[:1], part.flatten(0, 1)])
""",
            r"top and left are exchanged",
        ),
        "class-last": (
            """
import torch


def crop_positions(table, grid, top, left, rows, cols):
    plane = table[1:].unflatten(0, grid)
    part = plane[top : top + rows, left : left + cols]
    return torch.cat([part.flatten(0, 1), table[:1]])
""",
            r"comes first, as in the table",
        ),
        "detached": (
            """
import torch


def crop_positions(table, grid, top, left, rows, cols):
    plane = table[1:].unflatten(0, grid)
    part = plane[top : top + rows, left : left + cols]
    return torch.tensor(torch.cat([table[:1], part.flatten(0, 1)]).tolist())
""",
            r"no gradient reaches the table",
        ),
        "grid-fixed": (
            """
import torch


def crop_positions(table, grid, top, left, rows, cols):
    plane = table[1:].unflatten(0, (5, 7))
    part = plane[top : top + rows, left : left + cols]
    return torch.cat([table[:1], part.flatten(0, 1)])
""",
            r"6 x 4 grid|unflatten",
        ),
    },
    "vit.shift": {
        "list-rolled": (
            _shift(
                "    moved = tokens[:, 1:].roll(1, dims=1)\n"
                "    return torch.cat([tokens[:, :1], moved], dim=1)\n"
            ),
            r"landed in the row below",
        ),
        "class-token-rolled": (
            _shift("    return tokens.roll(1, dims=1)\n"),
            r"class token moved too",
        ),
        "downwards": (
            _shift(
                "    plane = tokens[:, 1:].unflatten(1, grid).roll(1, dims=1)\n"
                "    return torch.cat([tokens[:, :1], plane.flatten(1, 2)], 1)"
                "\n"
            ),
            r"rolls downwards",
        ),
        "to-the-left": (
            _shift(
                "    plane = tokens[:, 1:].unflatten(1, grid).roll(-1, dims=2)"
                "\n"
                "    return torch.cat([tokens[:, :1], plane.flatten(1, 2)], 1)"
                "\n"
            ),
            r"rolls to the left",
        ),
        "nothing": (_shift("    return tokens\n"), r"Nothing has moved"),
        "grid-34": (
            """
import torch


def after_shift(tokens, grid):
    plane = tokens[:, 1:].unflatten(1, (3, 4))
    return torch.cat([tokens[:, :1], plane.roll(1, 2).flatten(1, 2)], 1)
""",
            r"\(2, 5\)|unflatten",
        ),
        "rolls-batch": (
            """
import torch


def after_shift(tokens, grid):
    plane = tokens[:, 1:].unflatten(1, grid)
    return torch.cat([tokens[:, :1], plane.roll(1, 0).flatten(1, 2)], 1)
""",
            r"exchanges the images",
        ),
        "features": (
            """
import torch


def after_shift(tokens, grid):
    p = tokens[:, 1:].unflatten(1, grid).roll(1, -1)
    return torch.cat([tokens[:, :1], p.flatten(1, 2)], 1)
""",
            r"within each token",
        ),
        "loses-class": (
            """
import torch


def after_shift(tokens, grid):
    return tokens[:, 1:].unflatten(1, grid).roll(1, 2).flatten(1, 2)
""",
            r"class token comes first",
        ),
    },
    "vit.keep-patches": {
        "by-score": (
            _keep("weights[:, :, 0, 1:].mean(1)", "best = best + 1"),
            r"Keep the order",
        ),
        "off-by-one": (
            _keep(
                "weights[:, :, 0, 1:].mean(1)",
                "best = best.sort(dim=1).values",
            ),
            r"Off by one",
        ),
        "one-head": (_keep("weights[:, 0, 0, 1:]"), r"takes one head"),
        "largest-of-any-head": (
            _keep("weights[:, :, 0, 1:].amax(1)"),
            r"Average over the heads",
        ),
        "column": (_keep("weights.mean(1)[:, 1:, 0]"), r"These are columns"),
        "all-queries": (
            _keep("weights.mean((1, 2))[:, 1:]"),
            r"Only the class token is asked",
        ),
        "least": (
            _keep("-weights[:, :, 0, 1:].mean(1)"),
            r"least attention",
        ),
        "with-class-in-topk": (
            """
def keep_patches(tokens, weights, k):
    s = weights[:, :, 0].mean(1)
    best = s.topk(k + 1, dim=1).indices.sort(dim=1).values
    return tokens.gather(1, best[..., None].expand(-1, -1, tokens.shape[2]))
""",
            r"no part in the contest",
        ),
        "k4": (
            """
import torch


def keep_patches(tokens, weights, k):
    best = weights[:, :, 0, 1:].mean(1).topk(4).indices.sort(1).values + 1
    rows = torch.cat([torch.zeros_like(best[:, :1]), best], 1)
    return tokens.gather(1, rows[..., None].expand(-1, -1, tokens.shape[2]))
""",
            r"Expected shape",
        ),
        "one-column": (
            """
import torch


def keep_patches(tokens, weights, k):
    best = weights[:, :, 0, 1:].mean(1).topk(k).indices.sort(1).values + 1
    rows = torch.cat([torch.zeros_like(best[:, :1]), best], 1)
    return (
        tokens[..., :1]
        .gather(1, rows[..., None])
        .expand(-1, -1, tokens.shape[2])
    )
""",
            r"off",
        ),
        "first-batch": (
            """
import torch


def keep_patches(tokens, weights, k):
    best = weights[0, :, 0, 1:].mean(0).topk(k).indices.sort().values + 1
    return torch.cat([tokens[:, :1], tokens[:, best]], 1)
""",
            r"favourites of its own",
        ),
    },
    "vit.kill-the-mutants": {
        "grey": (
            _probe(
                "torch.rand(1, 1, 12, 16, generator=make)"
                ".expand(-1, 3, -1, -1)",
                4,
            ),
            r"takes blue for red",
        ),
        "one-patch": (
            _probe("torch.rand(1, 3, 4, 4, generator=make)", 4),
            r"patches column by column",
        ),
        "one-row": (
            _probe("torch.rand(1, 3, 4, 16, generator=make)", 4),
            r"patches column by column",
        ),
        "single-pixels": (
            _probe("torch.rand(1, 3, 4, 6, generator=make)", 1),
            r"pixels column by column",
        ),
        "constant": (
            _probe("torch.ones(1, 3, 12, 16)", 4),
            r"One mutant survives",
        ),
        "does-not-divide": (
            _probe("torch.rand(1, 3, 10, 16, generator=make)", 4),
            r"no multiples of the patch",
        ),
        "big": (
            """
import torch


def probe():
    return torch.rand(1, 3, 128, 128), 16
""",
            r"up to 64",
        ),
        "nan": (
            """
import torch


def probe():
    return torch.full((1, 3, 12, 16), float("nan")), 4
""",
            r"survives",
        ),
        "tiny": (
            """
import torch


def probe():
    return 1e-5 * torch.rand(1, 3, 12, 16), 4
""",
            r"survives",
        ),
    },
    "vit.hundred-digits": {
        "unchanged": (_change("x"), r"Nothing changes"),
        "mirrored": (
            _change(
                "torch.where(torch.rand(64, 1, 1, 1, generator=generator) "
                "< 0.5, x.flip(3), x)"
            ),
            r"another sign",
        ),
        "any-angle": (
            _change("random_affine(x, degrees=180, generator=generator)"),
            r"too strong",
        ),
        "wrong-shape": (_change("x[:, :, 1:, 1:]"), r"shape"),
        "no-generator": (
            """
from litformer.augment import random_affine


def change(x, generator):
    return random_affine(x, degrees=12, shift=0.08, zoom=0.15)
""",
            r"is drawn elsewhere",
        ),
        "double": (
            """
def change(x, generator):
    return x.double()
""",
            r"dtype float32, got float64",
        ),
        "none": (
            """
def change(x, generator):
    x + 1
""",
            r"returned None",
        ),
    },
}
