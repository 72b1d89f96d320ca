"""Checks of the exercises in chapters/masks.md."""

import math

import torch

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_dtype,
    expect_equal,
    expect_shape,
    without,
)


@exercise("masks.count-visible", seconds=3)
def count_visible(visible):
    """Counts by formula against counts by cells, then very large sizes."""
    from litformer.masks import sliding_window_mask

    hints = {
        "square": "Check a triangle by hand: T = S = 4, W = 4 has 10 pairs.",
        "window": "The first W - 1 positions see fewer than W keys.",
        "cached": "With cached keys the first query stands at position "
        "S - T, not at 0.",
    }
    cases = [
        (1, 1, 1, "square"),
        (4, 4, 4, "square"),
        (4, 4, 9, "square"),
        (4, 4, 2, "window"),
        (7, 7, 3, "window"),
        (7, 7, 1, "window"),
        (1, 5, 5, "cached"),
        (1, 5, 2, "cached"),
        (3, 7, 6, "cached"),
        (5, 11, 4, "cached"),
    ]
    for t, s, window, kind in cases:
        expect_equal(
            visible(t, s, window),
            int(sliding_window_mask(t, s, window=window).sum()),
            on=f"t={t}, s={s}, window={window}",
            hint=hints[kind],
        )
    t, s, window = 10**12, 3 * 10**12, 2 * 10**12 + 1
    ramp = s - t + 1  # the first query sees this many: the window exactly
    expect_equal(
        visible(t, s, window),
        t * ramp,
        on=f"t={t}, s={s}, window={window}: every query sees the window",
        hint="Keep to integers: // and not /, which rounds large numbers.",
    )
    t = 10**12  # here no query sees the whole window, and each sees another
    expect_equal(
        visible(t, t, t),
        t * (t + 1) // 2,
        on=f"t={t}, s={t}, window={t}: a triangle",
        hint="Keep to integers: // and not /, which rounds large numbers.",
    )
    return (
        "A window makes the cost grow with T times W in place of T squared: "
        "at T = 100,000 and W = 4,096 that is "
        f"{visible(10**5, 10**5, 10**5) / visible(10**5, 10**5, 4096):.0f} "
        "times fewer pairs."
    )


_SUSPECTS = {
    "top-left": lambda t, s: torch.ones(t, s).tril().bool(),
    "strict": lambda t, s: torch.ones(t, s).tril(s - t - 1).bool(),
    "sees one ahead": lambda t, s: torch.ones(t, s).tril(s - t + 1).bool(),
    "transposed": lambda t, s: torch.ones(t, s).triu(s - t).bool(),
}


@exercise("masks.four-suspects")
def four_suspects(witnesses):
    """The smallest input that tells each wrong mask from the right one."""
    from litformer.masks import causal_mask

    if not isinstance(witnesses, dict):
        raise Wrong(
            "`witnesses` should be a dict from the name of a suspect to a "
            "pair (t, s).",
            got=witnesses,
        )
    for name, suspect in _SUSPECTS.items():
        pair = witnesses.get(name, ...)
        if pair is ...:
            raise Wrong(f"There is no witness against {name!r} yet.")
        if (
            not isinstance(pair, tuple | list)
            or len(pair) != 2
            or not all(type(n) is int for n in pair)
            or not 1 <= pair[0] <= pair[1] <= 64
        ):
            raise Wrong(
                f"The witness against {name!r} should be two integers (t, s) "
                "with 1 <= t <= s.",
                got=pair,
                hint="The queries are the last t of the s positions.",
            )
        t, s = pair
        right = causal_mask(t, s)
        if torch.equal(suspect(t, s), right):
            raise Wrong(
                f"At t={t}, s={s} the suspect {name!r} is right, so these "
                "sizes prove nothing.",
                expected=right,
                got=suspect(t, s),
                hint="Print both masks for a few sizes, with t < s as well."
                if t == s
                else "Print both masks for a few sizes, with t = s as well.",
            )
        for s0 in range(1, s + 1):
            for t0 in range(1, s0 + 1):
                if (s0, t0) < (s, t) and not torch.equal(
                    suspect(t0, s0), causal_mask(t0, s0)
                ):
                    raise Wrong(
                        f"({t}, {s}) convicts {name!r}, but there is a "
                        "smaller witness.",
                        hint=f"Try s = {s0}."
                        if s0 < s
                        else f"s = {s} is the smallest; t can be smaller.",
                    )
    return (
        "Only 'top-left' is right for every square mask. Training never "
        "meets it; generation does."
    )


@exercise("masks.cached-decoding")
def cached_decoding(decoding_mask):
    """Against plain loops, with and without a cache."""
    cases = [
        ([0, 0], 0, 4, "No padding and no cache: it is the causal mask."),
        ([0], 4, 1, "One new token reads the whole past and itself."),
        ([0, 0], 3, 2, "The first new token stands at position `cached`."),
        ([2, 0], 0, 4, "The padding is on the left: the first keys."),
        ([1, 3, 0], 4, 2, "The cache holds the padding too."),
    ]
    for padding, cached, new, hint in cases:
        s = cached + new
        expected = torch.tensor(
            [
                [
                    [j >= skip and j <= cached + i for j in range(s)]
                    for i in range(new)
                ]
                for skip in padding
            ]
        )[:, None]
        on = f"padding={padding}, cached={cached}, new={new}"
        got = decoding_mask(torch.tensor(padding), cached, new)
        wrong = _right_padding(padding, cached, new, expected)
        if isinstance(got, torch.Tensor) and torch.equal(got, wrong):
            if not torch.equal(wrong, expected):
                hint = "This hides the last keys: padding on the right."
        expect_equal(got, expected, on=on, hint=hint)
    return "Its rows are the last rows of the whole mask, as they must be."


def _right_padding(padding, cached, new, like):
    """What comes out when the padding is taken to stand on the right."""
    s = cached + new
    keys = torch.arange(s)
    past = keys <= keys[cached:, None]
    real = keys < (s - torch.tensor(padding))[:, None]
    return (past & real[:, None, None]).expand_as(like)


@exercise("masks.pack")
def pack_documents(pack):
    """A packed row must equal separate runs, position for position."""
    from litformer.attention import attention
    from litformer.masks import causal_mask, document_mask

    dice = torch.Generator().manual_seed(7)
    embed = torch.randn(32, 8, generator=dice)
    place = torch.randn(16, 8, generator=dice)
    for sizes, width in [([3], 3), ([3, 2], 5), ([2, 2, 4, 1], 12)]:
        documents = [torch.randint(1, 32, (n,), generator=dice) for n in sizes]
        on = f"documents of {sizes} tokens, width={width}"
        got = pack(documents, width)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Wrong(
                "Expected three tensors: tokens, ids and positions.",
                on=on,
                got=type(got).__name__,
            )
        tokens, ids, positions = got
        for name, x in zip(("tokens", "ids", "positions"), got, strict=True):
            expect_shape(
                x, (1, width), on=f"{on}; `{name}`", hint="One row: [None]."
            )
            if x.dtype not in (torch.int64, torch.int32):
                raise Wrong(f"`{name}` must hold integers.", on=on, got=x.dtype)
        tail = width - sum(sizes)
        expect_equal(
            tokens,
            torch.cat([*documents, torch.zeros(tail, dtype=torch.long)])[None],
            on=f"{on}; `tokens`",
            hint="The documents stand in the order given; the unused tail "
            "holds 0.",
        )
        expected = torch.cat([torch.arange(n) for n in sizes])
        expect_equal(
            positions[:, : sum(sizes)],
            expected[None],
            on=f"{on}; `positions` of the documents",
            hint="Positions start again at 0 in each document.",
        )
        _check_walls(ids, sizes, width, on)
        x = embed[tokens] + place[positions.clamp(0, 15)]
        mask = document_mask(ids) & causal_mask(width)
        out = attention(x[:, None], x[:, None], x[:, None], mask)[0, 0]
        parts = []
        for document in documents:
            y = (embed[document] + place[: len(document)])[None, None]
            parts.append(attention(y, y, y, causal=True)[0, 0])
        expect_close(out[: sum(sizes)], torch.cat(parts), on=on)
    return "The packed row gives what separate runs give, at every position."


def _check_walls(ids, sizes, width, on):
    """Each document one id, all different, the tail too."""
    runs = ids[0].split([*sizes, width - sum(sizes)])
    seen = {}
    for d, run in enumerate(runs):
        what = f"document {d}" if d < len(sizes) else "the tail"
        values = set(run.tolist())
        if len(values) > 1:
            raise Wrong(
                f"Within {what} the ids differ, so it would be cut apart.",
                on=on,
                got=ids,
                hint="All positions of one document share one id.",
            )
        for value in values & seen.keys():
            raise Wrong(
                f"{seen[value].capitalize()} and {what} have the same id "
                f"{value}, so they read each other.",
                on=on,
                got=ids,
                hint="Give the tail an id that no document has."
                if what == "the tail"
                else "Number the documents.",
            )
        seen.update(dict.fromkeys(values, what))


@exercise("masks.interpreter")
def interpreter(from_key_padding, from_additive, from_heads):
    """Three foreign conventions, compared pair by pair."""
    ignore = torch.tensor([[0, 0, 0, 1], [0, 1, 1, 1]]).bool()
    expect_equal(
        from_key_padding(ignore),
        ~ignore[:, None, None, :],
        on={"ignore": ignore},
        hint="It must become (B, 1, 1, S): the same for all heads and queries.",
    )
    for low, dtype in (
        (-math.inf, torch.float32),
        (torch.finfo(torch.float32).min, torch.float32),
        (torch.finfo(torch.float16).min, torch.float16),
    ):
        allowed = torch.ones(3, 3).tril().bool().expand(2, 1, 3, 3)
        added = torch.zeros(2, 1, 3, 3, dtype=dtype).masked_fill(~allowed, low)
        kind = str(dtype).removeprefix("torch.")
        expect_equal(
            from_additive(added),
            allowed,
            on=f"added, {kind}: 0 in the lower triangle, {low:.4g} above it",
            hint="0 may attend. Hidden is the lowest number as well as -inf, "
            "and each number type has a lowest number of its own.",
        )
    allowed = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    for b in range(2):
        for h in range(3):
            allowed[b, h, :, : 1 + b + h] = True
    expect_equal(
        from_heads(~allowed.flatten(0, 1), 3),
        allowed,
        on="B=2, H=3, T=4, S=5; head h of sequence b may read b + h + 1 keys",
        hint="True means may not attend there, and the H heads of one "
        "sequence are neighbours.",
    )
    return (
        "Two questions for any foreign mask: what does True mean, which axes?"
    )


@exercise("masks.safe-softmax")
def safe_softmax(safe_softmax):
    """Exact rows, empty rows, gradients, and wild hidden scores."""
    safe_softmax = without(
        safe_softmax,
        "scaled_dot_product_attention",
        module="litformer.attention",
    )
    strict = without(safe_softmax, nan=False)
    dice = torch.Generator().manual_seed(3)
    scores = torch.randn(2, 4, 5, generator=dice)
    mask = torch.ones(4, 5).tril(1).bool()
    hidden = scores.masked_fill(~mask, -math.inf)
    got = safe_softmax(scores, mask)
    expect_dtype(
        got,
        scores.dtype,
        on={"scores": scores[0], "mask": mask},
        hint="Weights have the type of the scores.",
    )
    expect_close(
        got,
        hidden.softmax(-1),
        on={"scores": scores[0], "mask": mask},
        hint="The weights of each row sum to one over the allowed keys; "
        "masking after the softmax does not.",
    )
    mask[1] = False
    weights = safe_softmax(scores, mask)
    row = weights[0, 1]
    if row.isnan().any():
        raise Wrong(
            "An empty row became NaN.",
            on={"mask": mask},
            got=row,
            hint="A softmax over nothing but -inf is 0/0.",
        )
    if row.any():
        raise Wrong(
            "An empty row must give zeros, and yours gives weight to keys "
            "that are hidden.",
            on={"mask": mask},
            got=row,
            hint="A large negative number makes it a uniform average.",
        )
    x = scores.clone().requires_grad_()
    v = torch.randn(5, 3, generator=dice)
    if not safe_softmax(x, mask).requires_grad:
        raise Wrong(
            "The weights are right, and no gradient reaches the scores.",
            on={"mask": mask},
            hint="Was something detached, or copied into a new tensor?",
        )
    (safe_softmax(x, mask) @ v)[:, 2:].square().sum().backward()
    if x.grad is None or not x.grad.isfinite().all():
        raise Wrong(
            "The gradient holds NaN, though the loss reads rows 2 and 3 only.",
            on={"mask": mask},
            got=x.grad,
            hint="Repairing a NaN after the softmax is too late: the backward "
            "pass still goes through it.",
        )
    x = scores.clone().requires_grad_()
    (safe_softmax(x, mask) @ v).square().sum().backward()
    y = scores.clone().requires_grad_()
    soft = y.masked_fill(~mask, -math.inf)[:, [0, 2, 3]].softmax(-1)
    (soft @ v).square().sum().backward()
    expect_close(
        x.grad,
        y.grad,
        on="the gradient of a loss that reads all rows",
        hint="Are the weights detached somewhere?",
    )
    strict(scores.clone(), mask)
    wild = scores.clone()
    wild[~mask.expand_as(wild)] = math.inf
    plain = safe_softmax(scores, mask)
    expect_close(
        safe_softmax(wild, mask),
        plain,
        on="the same scores, with +inf in all hidden cells",
        hint="An addition cannot hide +inf: inf - inf is NaN. Replace the "
        "hidden scores.",
    )
    low = scores - 1e30
    mask = torch.ones(4, 5).tril(1).bool()
    expect_close(
        safe_softmax(low, mask),
        low.masked_fill(~mask, -math.inf).softmax(-1),
        on="scores of about -1e30, all far below zero",
        hint="A fill of -1e9 stands above these allowed scores: it wins the "
        "softmax, and 0 does too. And exp of such scores is 0, unless the "
        "largest allowed one is taken off first.",
    )
    return "That is what `litformer.attention` does inside."


@exercise("masks.dilated")
def dilated(dilated_mask):
    """Against plain loops, for a step of one as well."""
    cases = [
        (6, 6, 3, 1, "With a step of 1 it is the plain sliding window."),
        (7, 7, 2, 2, "Two keys: the query's own and the one two before it."),
        (9, 9, 3, 2, "The window counts keys, not the distance."),
        (2, 9, 3, 3, "Query i stands at position S - T + i."),
        (5, 5, 1, 4, "A window of one key is the query's own."),
    ]
    for t, s, window, step, hint in cases:
        expected = torch.zeros(t, s, dtype=torch.bool)
        for i in range(t):
            for n in range(window):
                j = s - t + i - n * step
                if j >= 0:
                    expected[i, j] = True
        expect_equal(
            dilated_mask(t, s, window, step),
            expected,
            on=f"t={t}, s={s}, window={window}, step={step}",
            hint=hint,
        )
    return (
        "The reach of one layer is 1 + (W - 1) * step positions, for the "
        "price of W keys."
    )
