"""Checks for the exercises of chapters/positions.md.

Each recognises the likely mistakes by what they return, and names them.
"""

import math

import torch

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_equal,
    expect_shape,
)
from litformer.attention import attention_weights
from litformer.positions import (
    RotaryEmbedding,
    interleaved_to_half,
    sinusoidal_table,
)


def _normal(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def _alike(got, wrong, atol=1e-4) -> bool:
    """Is this the answer that a known mistake gives?"""
    return (
        isinstance(got, torch.Tensor)
        and got.shape == wrong.shape
        and torch.allclose(got.to(wrong.dtype), wrong, atol=atol)
    )


def _recognise(got, expected, mistakes, *, on, atol=1e-5) -> None:
    """`expect_close`, with the mistake that gives exactly this answer."""
    hint = next((t for t, w in mistakes.items() if _alike(got, w)), "")
    expect_close(got, expected, on=on, hint=hint, atol=atol)


@exercise("positions.never-round")
def never_round(never_round):
    """Pairs whose wavelength exceeds the length."""
    for width, length, base in (
        (64, 2048, 10_000.0),
        (128, 4096, 10_000.0),
        (64, 8192, 500_000.0),
        (8, 6, 10_000.0),
        (8, 7, 10_000.0),
    ):
        waves = [
            2 * math.pi * base ** (2 * i / width) for i in range(width // 2)
        ]
        expected = sum(w > length for w in waves)
        got = never_round(width, length, base)
        mistakes = {
            "These pairs *do* complete a turn. Count the others.": len(waves)
            - expected,
            "A full turn is 2 pi radians, not one.": sum(
                w / (2 * math.pi) > length for w in waves
            ),
            "Pair i turns by base ** (-2i / head_dim): the 2 is missing, or i "
            "runs over all coordinates.": sum(
                2 * math.pi * base ** (i / width) > length
                for i in range(width // 2)
            ),
            "There are head_dim / 2 pairs, not head_dim.": sum(
                2 * math.pi * base ** (i / width) > length for i in range(width)
            ),
            "This ignores the base.": sum(
                2 * math.pi * 10_000.0 ** (2 * i / width) > length
                for i in range(width // 2)
            ),
        }
        hint = next((t for t, w in mistakes.items() if got == w), "")
        expect_equal(
            got,
            expected,
            on=f"head_dim = {width}, length = {length}, base = {base:g}",
            hint=hint,
        )
    return (
        "Beyond the training length, exactly these pairs reach angles that "
        "the model has never met."
    )


@exercise("positions.step-matrix")
def step_matrix(step_matrix):
    """M P(p) = P(p + k), for steps in both directions."""
    usual = 10_000.0
    cases = ((1, 2, usual), (3, 8, usual), (-5, 8, usual), (40, 6, usual))
    for k, width, base in (*cases, (3, 8, 100.0)):
        on = f"k = {k}, d_model = {width}, base = {base:g}"
        table = sinusoidal_table(200, width, base=base)
        start = max(0, -k)
        now = table[start : start + 100]
        then = table[start + k : start + k + 100]
        m = step_matrix(k, width, base)
        expect_shape(m, (width, width), on=on)
        m = m.float()
        hint = "" if base == usual else "Is `base` used?"
        if torch.allclose(now @ m, then, atol=1e-4):
            hint = (
                "This is the transpose: it steps back by k. The sine comes "
                "first, so a step is [[cos, sin], [-sin, cos]]."
            )
        else:
            c, s = m.diagonal(), m.abs()
            half = width // 2
            if width > 2 and s[0, half] > 1e-6 and s[0, 1] < 1e-6:
                hint = (
                    "The blocks pair column i with i + D/2. In this table "
                    "sine and cosine are neighbours."
                )
            elif width > 2 and torch.allclose(
                c, c[:1].expand(width), atol=1e-6
            ):
                hint = "All blocks turn by one angle. Each pair has its speed."
        expect_close(now @ m.mT, then, on=on, hint=hint, atol=1e-3)
    return "One rotation a pair: this is what RoPE later applies to q and k."


@exercise("positions.point-back")
def point_back(point_back):
    """More than 99 % at one distance, at every length."""
    for t, back in ((8, 3), (100, 3), (2048, 3), (60, 7), (5, 0)):
        on = f"t = {t}, back = {back}"
        bias = point_back(t, back)
        expect_shape(bias, (t, t), on=on)
        if not bias.isfinite().all():
            raise Wrong(
                "The entries must be finite: a bias is no mask.",
                on=on,
                hint="An infinite advantage gives NaN, and -inf everywhere "
                "else leaves the first queries with nothing to read.",
            )
        zero = torch.zeros(1, 1, t, 1)
        w = attention_weights(zero, zero, causal=True, bias=bias.float())
        w = w[0, 0, back:]
        share = w.diagonal().min().item()
        if share > 0.99:
            continue
        worst = w.diagonal().argmin().item()
        row = w[worst]
        peak = back + worst - int(row.argmax())
        if torch.allclose(row[: back + worst + 1], row[0], atol=1e-6):
            hint = "All keys of the past weigh alike: is the bias constant?"
        elif peak == 0 and back:
            hint = (
                "The peak is on the query itself. A penalty on the distance "
                "alone prefers the nearest: measure from `back` instead."
            )
        elif peak != back:
            hint = (
                f"The peak is {peak} places back. Rows are queries, and the "
                "key stands before its query."
            )
        else:
            hint = (
                "The peak is in the right place and too low: with thousands "
                "of competitors it needs an advantage of more than "
                "ln(99 * 4096), about 13, or a slope on both sides."
            )
        raise Wrong(
            f"Query {back + worst} gives {share:.3g} of its attention to the "
            f"key {back} places before it.",
            on=on,
            hint=hint,
        )
    return "Not every bias must fall with the distance; ALiBi's does."


@exercise("positions.to-half")
def to_half(to_half):
    """Against the permutation, heads and biases included."""
    for heads, width, tail in ((1, 4, (3,)), (3, 8, (5,)), (2, 6, ())):
        weight = _normal(heads * width, *tail)
        on = f"{heads} heads of width {width}, weight {tuple(weight.shape)}"
        pairs = weight.unflatten(0, (heads, width // 2, 2))
        back = weight.unflatten(0, (heads, 2, width // 2))
        mistakes = {
            "This is the way back, from halves to neighbours.": back.transpose(
                1, 2
            ).reshape(weight.shape),
            "The rows wander between heads: permute within each head.": (
                weight.unflatten(0, (-1, 2)).transpose(0, 1)
            ).reshape(weight.shape),
            "Nothing moved: a view and back is the identity.": weight,
            "The halves are exchanged: the first coordinates of all pairs "
            "come first.": pairs.flip(2).transpose(1, 2).reshape(weight.shape),
        }
        if tail:
            mistakes["This permutes the columns. The rows are what the heads "
                     "are made of."] = weight  # fmt: skip
        expected = interleaved_to_half(weight, heads)
        _recognise(to_half(weight.clone(), heads), expected, mistakes, on=on)
    return (
        "Queries and keys must both be reordered; values never are, since "
        "nothing turns them."
    )


@exercise("positions.half-lives")
def half_lives(half_lives):
    """ln 2 over each slope."""
    for heads in (8, 4, 1, 16):
        slopes = 2.0 ** (-8 * torch.arange(1, heads + 1) / heads)
        expected = math.log(2) / slopes
        _recognise(
            half_lives(heads),
            expected,
            {
                "1 / m is where the weight falls to 1/e. Half takes ln 2.": 1
                / slopes,
                "ln 2 times the slope: divide instead.": math.log(2) * slopes,
                "The slopes start at h = 1: the first is 2 ** (-8 / H), "
                "not 1.": math.log(2)
                * 2.0 ** (8 * torch.arange(heads) / heads),
                "These are the slopes.": slopes,
                "This is the other way round: the first head is the "
                "steepest.": expected.flip(0),
                "The exponent is -8h/H. This has the slopes of eight heads "
                "for any number.": math.log(2)
                * 2.0 ** torch.arange(1, heads + 1),
            },
            on=f"{heads} heads",
            atol=1e-3,
        )
    return "Content must outvote this: a key that matches can win from afar."


def _bucket(away, n, most) -> int:
    exact = n // 2
    if away < exact:
        return away
    share = math.log(away / exact) / math.log(most / exact) * (n - exact)
    # at an edge the rounding decides: take the exact value
    near = round(share)
    share = near if abs(share - near) < 1e-9 else math.floor(share)
    return min(exact + share, n - 1)


def _on_an_edge(away, n, most) -> bool:
    exact = n // 2
    if away <= exact:
        return False
    share = math.log(away / exact) / math.log(most / exact) * (n - exact)
    return abs(share - round(share)) < 1e-6 and away < most


@exercise("positions.bucket")
def bucket(bucket):
    """All distances, for three sizes."""
    for n, most in ((32, 128), (8, 20), (16, 64)):
        exact = n // 2
        for away in [*range(2 * most), 10_000]:
            if _on_an_edge(away, n, most):
                continue  # there the last bit of the logarithm decides
            on = f"away = {away}, n_buckets = {n}, max_distance = {most}"
            got = bucket(away, n, most)
            hint = ""
            if away < exact:
                hint = f"The first {exact} distances have a bucket each."
            elif away >= most:
                hint = f"Everything from {most} on is in bucket {n - 1}."
            elif isinstance(got, int | float):
                ratio = math.log(away / exact) / math.log(most / exact)
                linear = (away - exact) / (most - exact)
                if got == round(exact + ratio * (n - exact)):
                    hint = "Round down, not to the nearest."
                elif got == int(exact + linear * (n - exact)):
                    hint = (
                        "These steps are of equal size. They should be of "
                        "equal ratio: take logarithms."
                    )
                elif got == int(ratio * (n - exact)):
                    hint = f"Add the {exact} exact buckets."
                elif got == exact + int(
                    math.log(away) / math.log(most) * (n - exact)
                ):
                    hint = (
                        f"The ratio counts from {exact}, the first distance "
                        "that is not exact."
                    )
            expect_equal(got, _bucket(away, n, most), on=on, hint=hint)
    return (
        "At the edges between buckets the rounding of the logarithm decides. "
        "litformer rounds as T5 does, in fp32."
    )


def _score_zoo():
    """name -> (score(q, k, m, n), does it obey)."""
    half, paired = RotaryEmbedding(8), RotaryEmbedding(8, interleaved=True)
    table = sinusoidal_table(501, 8)
    w = _normal(8, 8, seed=3) / 8**0.5

    def turned(rotary, q, k, m, n):
        q, k = (
            rotary(x.view(1, 1, 1, 8), torch.tensor([p])).flatten()
            for x, p in ((q, m), (k, n))
        )
        return q @ k

    def one_sided(q, k, m, n):
        return turned(half, q, k, m, 0)

    def mixed(q, k, m, n):
        a = half(q.view(1, 1, 1, 8), torch.tensor([m])).flatten()
        b = paired(k.view(1, 1, 1, 8), torch.tensor([n])).flatten()
        return a @ b

    return {
        "no positions": (lambda q, k, m, n: q @ k, True),
        "RoPE": (lambda *a: turned(half, *a), True),
        "RoPE, interleaved": (lambda *a: turned(paired, *a), True),
        "RoPE after a projection": (
            lambda q, k, m, n: turned(half, q @ w, k @ w.T, m, n),
            True,
        ),
        "ALiBi": (lambda q, k, m, n: q @ k - 0.25 * abs(m - n), True),
        "a bias that only looks back": (
            lambda q, k, m, n: q @ k - 0.25 * max(m - n, 0),
            True,
        ),
        "a dot product of rows of the sinusoidal table": (
            lambda q, k, m, n: q @ k + table[m] @ table[n],
            True,
        ),
        "sinusoidal positions added before the product": (
            lambda q, k, m, n: (q + table[m]) @ (k + table[n]),
            False,
        ),
        "RoPE, then a projection": (
            lambda q, k, m, n: (
                half(q.view(1, 1, 1, 8), torch.tensor([m])).flatten()
                @ w
                @ half(k.view(1, 1, 1, 8), torch.tensor([n])).flatten()
            ),
            False,
        ),
        "RoPE on the queries only": (one_sided, False),
        "RoPE with two layouts, one for q and one for k": (mixed, False),
        "a penalty on the ratio of the places": (
            lambda q, k, m, n: q @ k - abs(math.log((m + 1) / (n + 1))),
            False,
        ),
        "a penalty on the sum of the places": (
            lambda q, k, m, n: q @ k - 0.01 * (m + n),
            False,
        ),
        "ALiBi that stops beyond place 400": (
            lambda q, k, m, n: (
                q @ k - (0.25 * abs(m - n) if max(m, n) <= 400 else 0)
            ),
            False,
        ),
        "a penalty on the parity of the query's place": (
            lambda q, k, m, n: q @ k - (m % 2),
            False,
        ),
    }


@exercise("positions.obeys-shift", seconds=60)
def obeys_shift(obeys_shift):
    """Fifteen scoring functions, some of them treacherous."""
    for name, (score, obeys) in _score_zoo().items():
        got = obeys_shift(score)
        hint = (
            "It obeys. Is the tolerance too tight for angles in fp32, or was "
            "the distance itself changed?"
            if obeys
            else "It does not. Shift both places, by large and by odd "
            "amounts, and try random vectors, not zeros or ones."
        )
        expect_equal(got, obeys, on=f"the score: {name}", hint=hint)
    return "A layer that obeys this law can be cached, shifted and packed."


def _rotations():
    """name -> (rotate, layout)."""

    def turn(interleaved, sign=1, base=10_000.0, speed=None, scale=1.0):
        def rotate(x, positions):
            width = x.shape[-1]
            i = torch.arange(0, width, 2)
            angle = positions[..., None].float() * base ** (-i / width)
            if speed is not None:
                angle = speed(positions, width)
            if angle.ndim == 3:
                angle = angle[:, None]
            c, s = angle.cos(), sign * angle.sin()
            shape, two = ((-1, 2), -1) if interleaved else ((2, -1), -2)
            a, b = x.unflatten(-1, shape).unbind(two)
            out = torch.stack([a * c - b * s, a * s + b * c], two)
            return scale * out.flatten(-2)

        return rotate

    def half_speeds(positions, width):
        i = torch.arange(width // 2)  # the 2 of 2i forgotten
        return positions[..., None].float() * 10_000.0 ** (-i / width)

    def one_speed(positions, width):
        return positions[..., None].float().expand(*positions.shape, width // 2)

    def ignores_positions(x, positions):
        return turn(False)(x, torch.arange(x.shape[2]))

    def reversed_pairs(x, positions):
        return turn(False)(x.flip(-1), positions).flip(-1)

    def wrong_sign_once(x, positions):
        out = turn(False)(x, positions)
        angle = positions[..., None].float() * 10_000.0 ** (
            -torch.arange(0, x.shape[-1], 2) / x.shape[-1]
        )
        if angle.ndim == 3:
            angle = angle[:, None]
        a, b = x.chunk(2, -1)
        return torch.cat(
            [out.chunk(2, -1)[0], b * angle.cos() - a * angle.sin()], -1
        )

    ours = {True: RotaryEmbedding, False: RotaryEmbedding}

    def library(x, positions, interleaved):
        return ours[interleaved](x.shape[-1], interleaved=interleaved)(
            x, positions
        )

    return {
        "interleaved": (turn(True), "interleaved"),
        "half": (turn(False), "half"),
        "litformer, half": (lambda x, p: library(x, p, False), "half"),
        "litformer, interleaved": (
            lambda x, p: library(x, p, True),
            "interleaved",
        ),
        "turns the other way, half": (turn(False, sign=-1), "broken"),
        "turns the other way, interleaved": (turn(True, sign=-1), "broken"),
        "base 1000": (turn(False, base=1000.0), "broken"),
        "speeds with i instead of 2i": (
            turn(True, speed=half_speeds),
            "broken",
        ),
        "one speed for all pairs": (turn(True, speed=one_speed), "broken"),
        "ignores the positions": (ignores_positions, "broken"),
        "slow pairs first": (reversed_pairs, "broken"),
        "one sign wrong": (wrong_sign_once, "broken"),
        "the identity": (lambda x, p: x.clone(), "broken"),
    }


@exercise("positions.find-layout")
def find_layout(find_layout):
    """Thirteen rotations, four of them sound."""
    for name, (rotate, layout) in _rotations().items():
        got = find_layout(rotate)
        if layout == "broken":
            hint = (
                "It is neither layout. Does your test see signs, every "
                "speed, and positions other than 0, 1, 2, ...?"
            )
        elif got == "broken":
            hint = "It is sound. Compare up to rounding (1e-3 is enough)."
        else:
            hint = (
                "The other one. Interleaved pairs are neighbours, 2i and "
                "2i + 1; half pairs are i and i + Dh/2. Width 2 has one pair "
                "and no layout."
            )
        expect_equal(got, layout, on=f"the function: {name}", hint=hint)
    return "Unit vectors show everything that a linear map does."
