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
    },
}
