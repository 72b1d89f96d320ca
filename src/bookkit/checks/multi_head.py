"""Checks for the exercises of chapters/multi_head.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch.utils.flop_counter import FlopCounterMode

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_equal,
    expect_shape,
)
from litformer.attention import MultiHeadAttention, attention


def _normal(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def _layer(*args, seed=0, **kwargs):
    """A layer with random weights and biases, the same in every session."""
    layer = MultiHeadAttention(*args, **kwargs)
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=make) * p.shape[-1] ** -0.5)
    return layer


def _recognise(got, expected, mistakes, *, on) -> None:
    """`expect_close`, with the mistake that gives exactly this answer."""
    hint = ""
    for text, wrong in mistakes.items():
        same = isinstance(got, torch.Tensor) and got.shape == wrong.shape
        if same and torch.allclose(got.to(wrong.dtype), wrong, atol=1e-5):
            hint = text
            break
    expect_close(got, expected, on=on, hint=hint)


def _recognise_number(got, expected, mistakes, *, on) -> None:
    """`expect_equal` for a count, with the mistake that gives this one."""
    hint = next((t for t, wrong in mistakes.items() if got == wrong), "")
    expect_equal(got, expected, on=on, hint=hint)


@exercise("multi_head.count")
def count(parameters):
    """Parameters against a layer that is really built."""
    cases = [
        dict(d_model=64, n_heads=8, n_kv_heads=8, head_dim=8, d_context=64),
        dict(d_model=12, n_heads=4, n_kv_heads=2, head_dim=5, d_context=7),
        dict(d_model=30, n_heads=6, n_kv_heads=1, head_dim=5, d_context=11),
    ]
    for case in cases:
        for bias in (False, True):
            d, h, g, dh, dc = case.values()
            layer = MultiHeadAttention(
                d, h, n_kv_heads=g, head_dim=dh, d_context=dc, bias=bias
            )
            right = sum(p.numel() for p in layer.parameters())
            weights = 2 * d * h * dh + 2 * dc * g * dh
            biases = (h + 2 * g) * dh + d
            _recognise_number(
                parameters(**case, bias=bias),
                right,
                {
                    "These are the weights alone; there are biases "
                    "too.": weights,
                    "There are no biases here: bias is False.": weights
                    + biases,
                    "Keys and values have n_kv_heads heads, not n_heads.": 2
                    * d
                    * h
                    * dh
                    + 2 * dc * h * dh
                    + bias * (3 * h * dh + d),
                    "The output projection is missing.": right
                    - d * h * dh
                    - bias * d,
                    "Keys and values read the context, of width d_context.": 2
                    * d
                    * h
                    * dh
                    + 2 * d * g * dh
                    + bias * biases,
                    "A head has the width head_dim, which need not be "
                    "d_model / n_heads.": 2 * d * d
                    + 2 * dc * g * (d // h)
                    + bias * ((h + 2 * g) * (d // h) + d),
                },
                on=", ".join(f"{k}={v}" for k, v in case.items())
                + f", bias={bias}",
            )
    return "With one key head of eight, keys and values need an eighth."


@exercise("multi_head.split-and-merge")
def split_and_merge(split, merge):
    """Both ways at sizes that are all different, and there and back."""
    b, t, h, d = 2, 5, 3, 7
    x = _normal(b, t, h * d).requires_grad_()
    y = _normal(b, h, t, d, seed=1)
    on = "x of shape (2, 5, 21), 3 heads"
    got = split(x, h)
    expect_shape(got, (b, h, t, d), on=on)
    _recognise(
        got,
        rearrange(x, "b t (h d) -> b h t d", h=h),
        {
            "This is a view: it cuts the tokens into heads, not the width. "
            "Cut the last axis, then exchange two axes.": x.reshape(b, h, t, d),
            "The numbers of a head stand together in the width: here they "
            "are taken in turn.": rearrange(x, "b t (d h) -> b h t d", h=h),
        },
        on=on,
    )
    if not got.requires_grad:
        raise Wrong(
            "The gradient got lost on the way.",
            on=on,
            hint="Was something detached, or copied into a new tensor?",
        )
    on = "y of shape (2, 3, 5, 7)"
    got = merge(y)
    expect_shape(got, (b, t, h * d), on=on)
    _recognise(
        got,
        rearrange(y, "b h t d -> b t (h d)"),
        {
            "The axes of tokens and heads must change places before the last "
            "two are joined.": y.reshape(b, t, h * d),
            "The heads are interleaved: each head's numbers must stand "
            "together.": rearrange(y, "b h t d -> b t (d h)"),
        },
        on=on,
    )
    expect_close(
        merge(split(x, h)), x, on="merge(split(x, 3))", hint="There and back."
    )
    for shape, heads in (((1, 4, 6), 1), ((1, 4, 6), 6), ((3, 1, 6), 2)):
        x = _normal(*shape)
        expect_close(
            split(x, heads),
            rearrange(x, "b t (h d) -> b h t d", h=heads),
            on=f"x of shape {shape}, {heads} heads",
        )
    return "Two lines, and no number was computed: only moved."


@exercise("multi_head.operations")
def operations(operations):
    """Operations against PyTorch's counter."""
    for t, s, d, h, g in (
        (5, 5, 12, 3, 3),
        (7, 3, 16, 4, 4),
        (3, 11, 24, 6, 2),
        (13, 2, 40, 8, 1),
    ):
        layer = _layer(d, h, n_kv_heads=g, attend=attention)
        with FlopCounterMode(display=False) as counter:
            layer(_normal(1, t, d), _normal(1, s, d))
        right = counter.get_total_flops()
        kv = g * d // h
        grid = 4 * t * s * d
        _recognise_number(
            operations(t, s, d, h, g),
            right,
            {
                "A multiplication with its addition counts as 2.": right // 2,
                "Keys and values are made for the s tokens of the context.": 4
                * t
                * d
                * d
                + 4 * t * d * kv
                + grid,
                "Keys and values have n_kv_heads heads.": 4 * t * d * d
                + 4 * s * d * d
                + grid,
                "A head has d_model / n_heads numbers, so that n_heads "
                "cancels in scores and averages.": right + (h - 1) * grid,
                "Each query head has scores of its own, shared keys or "
                "not.": right - grid + 4 * t * s * kv,
                "The averages are a product too, as large as the scores.": right
                - grid // 2,
                "The output projection is missing.": right - 2 * t * d * d,
            },
            on=f"t={t}, s={s}, d_model={d}, n_heads={h}, n_kv_heads={g}",
        )
    return "In generation t is 1, and the context's projections are cached."


@exercise("multi_head.silence")
def silence(without_head):
    """Every head left out in turn, and the layer unharmed."""
    d, h, dh = 12, 3, 4
    layer = _layer(d, h)
    x = _normal(2, 5, d, seed=3)
    before = {name: p.clone() for name, p in layer.state_dict().items()}
    whole, weight = layer(x).detach(), layer.o_proj.weight.detach()
    merged: list[torch.Tensor] = []
    hook = layer.o_proj.register_forward_pre_hook(
        lambda module, args: merged.append(args[0].detach())
    )
    layer(x)
    hook.remove()
    (z,) = merged
    for i in range(h):
        mine = torch.zeros(d, dtype=torch.bool)
        mine[i * dh : (i + 1) * dh] = True
        turn = torch.zeros(d, dtype=torch.bool)
        turn[i::h] = True
        right = whole - (z * mine) @ weight.T
        got = without_head(layer, x, i)
        if isinstance(got, torch.Tensor):
            got = got.detach()
        _recognise(
            got,
            right,
            {
                "This is what the head says. The rest was asked for: what "
                "remains without it.": whole - right,
                "Nothing is missing: this is the whole output.": whole,
                "The bias of the last projection belongs to no head, and "
                "stays.": right - layer.o_proj.bias.detach(),
                "This leaves out rows of o_proj.weight. nn.Linear computes "
                "x @ weight.T, so a head owns columns.": F.linear(
                    z, weight * ~mine[:, None], layer.o_proj.bias.detach()
                ),
                "The numbers of a head stand together; this leaves out every "
                "third one.": whole - (z * turn) @ weight.T,
                "The remaining heads are scaled up. Leave them as they "
                "are.": F.linear(
                    z * ~mine * (h / (h - 1)),
                    weight,
                    layer.o_proj.bias.detach(),
                ),
                "With zero queries a head still speaks: it says the plain "
                "mean of its values.": _mean_head(layer, x, z, i, dh),
            },
            on=f"a layer of 3 heads of width 4, without head {i}",
        )
        for name, p in layer.state_dict().items():
            expect_close(
                p,
                before[name],
                on=f"{name} of the layer, after the call",
                hint="The layer must stay as it was. Work on a copy.",
            )
        expect_close(
            layer(x).detach(),
            whole,
            on="the layer itself, after the call",
            hint="It answers differently now. Put `attend` back.",
        )
    return "This is ablation: the honest way to ask what a head is for."


def _mean_head(layer, x, z, i, dh):
    """The output if head i had no queries: it averages its values."""
    v = layer.v_proj(x).mean(1, keepdim=True).expand_as(z)
    changed = z.clone()
    changed[..., i * dh : (i + 1) * dh] = v[..., i * dh : (i + 1) * dh]
    return layer.o_proj(changed).detach()


@exercise("multi_head.foreign-checkpoint")
def foreign_checkpoint(unpack):
    """A fused weight, unpacked, runs as the original does."""
    for d, h in ((12, 3), (20, 4), (8, 1)):
        layer = _layer(d, h, bias=False)
        parts = {n: getattr(layer, f"{n}_proj").weight.detach() for n in "qkv"}
        cut = [
            rearrange(w, "(h d) e -> h d e", h=h).clone()
            for w in parts.values()
        ]
        fused = rearrange(
            torch.stack(cut, 1), "h three d e -> (h three d) e"
        ).contiguous()
        on = f"a weight of shape {tuple(fused.shape)}, {h} heads"
        answer = unpack(fused.clone(), h)
        if isinstance(answer, torch.Tensor) and answer.ndim == 3:
            answer = tuple(answer)
        if not isinstance(answer, tuple | list) or len(answer) != 3:
            raise Wrong(
                "Three weights are asked for: of queries, keys, values.",
                on=on,
                got=answer,
            )
        chunks = fused.chunk(3)
        swapped = rearrange(fused, "(h d three) e -> three (h d) e", h=h,
                            three=3)  # fmt: skip
        mixed = rearrange(fused, "(h three d) e -> three (d h) e", h=h, three=3)
        for i, (name, right) in enumerate(parts.items()):
            _recognise(
                answer[i],
                right,
                {
                    "This takes the first third of the rows as queries, the "
                    "order of GPT-2. Here the rows go head by "
                    "head.": chunks[i],
                    "Within a head, queries, keys and values are three blocks "
                    "of rows. This takes every third row.": swapped[i],
                    "The heads come out interleaved: each head's rows must "
                    "stand together.": mixed[i],
                    "Queries, keys and values come in another order: queries "
                    "first, then keys, then values.": parts["kvq"[i]],
                    "These are the keys and values exchanged, or another pair "
                    "of the three.": parts["qvk"[i]],
                },
                on=f"{on}: the part of {name}_proj",
            )
    return "Same shape, three orders. Only the output can tell them apart."


def _attend(q, k, v, causal, scale=None, ahead=0):
    """Attention with a scale and an alignment of its own."""
    t, s = q.shape[2], k.shape[2]
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        past = torch.ones(t, s, dtype=torch.bool).tril(s - t + ahead)
        scores = scores.masked_fill(~past, -math.inf)
    return scores.softmax(-1) @ v


def _run(layer, x, context, causal, wrong=""):
    """Multi-head attention with one thing wrong, or nothing."""
    h, g = layer.n_heads, layer.n_kv_heads
    source = x if context is None or wrong == "context" else context

    def split(y, n):
        if wrong == "view":
            return y.reshape(len(y), n, y.shape[1], -1)
        return rearrange(y, "b t (h d) -> b h t d", h=n)

    q = split(layer.q_proj(x), h)
    k, v = (split(p(source), g) for p in (layer.k_proj, layer.v_proj))
    order = "(r g)" if wrong == "groups" else "(g r)"
    k, v = (repeat(y, f"b g s d -> b {order} s d", r=h // g) for y in (k, v))
    scale = layer.d_model**-0.5 if wrong == "scale" else None
    out = _attend(q, k, v, causal, scale, ahead=wrong == "ahead")
    order = "(d h)" if wrong == "merge" else "(h d)"
    return layer.o_proj(rearrange(out, f"b h t d -> b t {order}"))


_MUTANTS = {
    "view": (
        "the version that splits with view",
        "With one head, or one token, a view is a split.",
    ),
    "merge": (
        "the version that merges in the wrong order",
        "With one head, or heads of width 1, there is one order only.",
    ),
    "groups": (
        "the version that gives query heads the wrong key head",
        "With as many key heads as heads, or a single one, nobody can be "
        "given the wrong one.",
    ),
    "scale": (
        "the version that scales by the width of the model",
        "With one head, the head is as wide as the model.",
    ),
    "context": (
        "the version that ignores the context",
        "It needs a context to ignore: s must not be None.",
    ),
    "ahead": (
        "the version whose causal mask looks one token ahead",
        "Is causal True, and is there more than one query?",
    ),
}


@exercise("multi_head.kill-the-mutants")
def kill_the_mutants(killer):
    """Sizes at which six wrong versions differ from the right one."""
    given = killer()
    names = ["d_model", "n_heads", "n_kv_heads", "t", "s", "causal"]
    if not isinstance(given, dict) or set(given) != set(names):
        raise Wrong(
            "A dict is asked for, with " + ", ".join(names) + ".",
            got=sorted(given) if isinstance(given, dict) else given,
        )
    d, h, g, t, s, causal = (given[n] for n in names)
    on = ", ".join(f"{n}={given[n]}" for n in names)
    if max(d, t, s or 0) > 512:
        raise Wrong("Sizes up to 512 will do, and run at once.", on=on)
    try:
        layer = _layer(d, h, n_kv_heads=g)
        x = _normal(2, t, d, seed=1)
        context = None if s is None else _normal(2, s, d, seed=2)
        right = layer(x, context, causal=causal)
    except (ValueError, TypeError) as error:
        raise Wrong(f"The right version refuses this. {error}", on=on) from None
    expect_close(_run(layer, x, context, causal), right, on=on)
    for wrong, (name, why) in _MUTANTS.items():
        gap = (_run(layer, x, context, causal, wrong) - right).abs().max()
        if not gap >= 1e-3:
            raise Wrong(
                f"One mutant survives: {name} gives the right answer to "
                f"within {gap.item():.1g}.",
                on=on,
                hint=why,
            )
    return "All six are caught. Round, equal sizes would have hidden some."


def _corners(keys):
    """Corners of the convex hull, by the monotone chain; ties are none."""
    points = sorted((x, y, i) for i, (x, y) in enumerate(keys.tolist()))

    def half(points):
        chain: list = []
        for p in points:
            while len(chain) > 1:
                (ax, ay, _), (bx, by, _) = chain[-2:]
                turn = (bx - ax) * (p[1] - ay) - (by - ay) * (p[0] - ax)
                if turn > 1e-9:
                    break
                chain.pop()
            chain.append(p)
        return chain

    found = {p[2] for p in half(points) + half(points[::-1])}
    return torch.tensor([i in found for i in range(len(keys))])


@exercise("multi_head.who-can-win", seconds=20)
def who_can_win(can_win):
    """Keys inside, on edges, on circles, and far from the origin."""
    ring = torch.arange(8) * (2 * math.pi / 8)
    circle = torch.stack([ring.cos(), ring.sin()], 1)
    square = torch.tensor([[0.0, 0], [2, 0], [2, 2], [0, 2]])
    cases = {
        "a square and its centre": torch.cat(
            [square, torch.tensor([[1.0, 1.0]])]
        ),
        "a square and a long key inside it, near a corner": torch.cat(
            [square, torch.tensor([[1.9, 1.9]])]
        ),
        "a square and the middle of one edge": torch.cat(
            [square, torch.tensor([[1.0, 2.0]])]
        ),
        "eight keys on a circle": circle,
        "eight keys on a circle far from the origin": circle + 10,
        "a triangle turned by 45 degrees, and points about it": torch.tensor(
            [[3.0, 3.0], [-3.0, 2.0], [2.0, -3.0], [1.0, 1.0], [0.0, 0.0]]
        ),
        "twelve random keys": _normal(12, 2),
    }
    for name, keys in cases.items():
        right = _corners(keys)
        got = can_win(keys.clone())
        hint = ""
        if isinstance(got, torch.Tensor) and got.shape == right.shape:
            got = got.bool() if not got.is_floating_point() else got
            far = keys.norm(dim=1) > keys.norm(dim=1).mean()
            box = (keys == keys.amax(0)).any(1) | (keys == keys.amin(0)).any(1)
            if got.dtype != torch.bool:
                hint = "Return bools: True where a key can win."
            elif "edge" in name and (got & ~right).any():
                hint = (
                    "In the middle of an edge a key ties with the ends of the "
                    "edge at best. It must win alone."
                )
            elif got.all():
                hint = "Not every key can win: some lie between the others."
            elif torch.equal(got, box):
                hint = (
                    "These win for queries along an axis. Queries may point "
                    "in any direction."
                )
            elif torch.equal(got, far):
                hint = "Length alone does not decide. Direction counts."
            elif (right & ~got).any():
                hint = (
                    "A key is missed that some query prefers. Queries of all "
                    "directions count, also far from the key's own."
                )
        expect_equal(got, right, on=name, hint=hint)
    return "A key between others can never be chosen: it only joins blends."


@exercise("multi_head.better-blend")
def better_blend(tables):
    """Loss of a one-head model made of the tables, on 4000 sets of gifts."""
    given = tables()
    rows = {
        **dict.fromkeys(
            ("giver_key", "receiver_key", "giver_query", "receiver_query"), 8
        ),
        "value": 16,
        "readout": 2,
    }
    if not isinstance(given, dict) or set(given) != set(rows):
        raise Wrong(
            "A dict is asked for, with " + ", ".join(rows) + ".",
            got=sorted(given) if isinstance(given, dict) else given,
        )
    m = {n: torch.as_tensor(x).detach().float() for n, x in given.items()}
    dh, dv = m["giver_key"].shape[-1], m["value"].shape[-1]
    for name, n in rows.items():
        shape = (n, dh) if n == 8 else (16, dv) if n == 16 else (2, 16, dv)
        expect_shape(m[name], shape, on=name)
        if not m[name].isfinite().all():
            raise Wrong(f"{name} holds numbers that are not finite.")
    make = torch.Generator().manual_seed(0)
    giver, receiver = torch.rand(2, 4000, 8, generator=make).argsort(-1)
    gift = torch.randint(16, (4000, 8), generator=make)
    asked = torch.randint(8, (4000, 2), generator=make)
    gave, got = giver == asked[:, :1], receiver == asked[:, 1:]
    answers = torch.stack([gift[gave], gift[got]], 1)
    q = m["giver_query"][asked[:, 0]] + m["receiver_query"][asked[:, 1]]
    k = m["giver_key"][giver] + m["receiver_key"][receiver]
    found = attention(q[:, None, None], k[:, None], m["value"][gift][:, None])
    logits = torch.einsum("bd,avd->bav", found[:, 0, 0], m["readout"])
    loss = F.cross_entropy(logits.flatten(0, 1), answers.flatten()).item()
    right = (logits.argmax(-1) == answers).float().mean(0).tolist()
    if loss < 0.6:
        best = 105 / 128 * math.log(2)
        return (
            f"{loss:.3f} nats. An unordered pair cannot do better than "
            f"{best:.3f}; two heads reach 0."
        )
    if max(right) > 0.9 and min(right) < 0.3:
        hint = (
            "This chooses one relation and answers one question only. Give "
            "the two gifts the same score."
        )
    elif max(right) < 0.3:
        hint = "The right gifts are hardly found. Do queries match their keys?"
    elif loss > 2 and min(right) > 0.5:
        hint = (
            "The right contents come out, and the readout is too sure of one "
            "of them. Keep the weights equal, or the readout smaller."
        )
    else:
        hint = (
            "The two gifts are found, but other gifts still get weight, or "
            "the readout is unsure. Longer queries, a larger readout?"
        )
    raise Wrong(
        f"The loss is {loss:.3f} nats, not below 0.6. Accuracy: "
        f"{right[0]:.2f} on what was given, {right[1]:.2f} on what was "
        "received.",
        hint=hint,
    )
