"""Checks for the exercises of chapters/bert.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised.
"""

import math

import torch
import torch.nn.functional as F

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_dtype,
    expect_equal,
    expect_no_loop,
    expect_shape,
)
from litformer.bert import BertConfig, MaskedLM


def _normal(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make)


def _recognise(got, expected, mistakes, *, on) -> None:
    """`expect_close`, with the mistake that gives exactly this answer."""
    hint = ""
    for text, wrong in mistakes.items():
        wrong = torch.as_tensor(wrong)
        same = isinstance(got, torch.Tensor) and got.shape == wrong.shape
        if same and torch.allclose(got.to(wrong.dtype), wrong, atol=1e-5):
            hint = text
            break
    expect_close(got, expected, on=on, hint=hint)


@exercise("bert.shares")
def shares(shares):
    """Three shares against the rule."""
    for rate, n in ((0.15, 2), (0.15, 30_522), (0.4, 5)):
        on = f"rate={rate}, n_words={n}"
        got = shares(rate, n)
        try:
            got = torch.tensor([float(x) for x in got], dtype=torch.float64)
        except (TypeError, ValueError):
            raise Wrong(
                f"Three numbers are expected, got {got!r}.", on=on
            ) from None
        expect_shape(got, (3,), on=on)
        same = 1 / n
        right = [0.8, 0.1 * (1 - same), 0.1 + 0.1 * same]
        _recognise(
            got,
            torch.tensor(right, dtype=torch.float64) * rate,
            {
                "A random word is sometimes the old one, once in n_words: it "
                "looks as before.": torch.tensor([0.8, 0.1, 0.1]).double()
                * rate,
                "What the third share gains by chance the second one "
                "loses.": torch.tensor([0.8, 0.1, 0.1 + 0.1 * same]).double()
                * rate,
                "These are shares of the chosen tokens; shares of all are "
                "asked for.": torch.tensor(right).double(),
                "The old word cannot be drawn here? It is one of the n_words: "
                "1 / n_words, not 1 / (n_words - 1).": torch.tensor(
                    [0.8, 0.1 * (1 - 1 / (n - 1)), 0.1 + 0.1 / (n - 1)]
                ).double()
                * rate,
            },
            on=on,
        )
    return "In BERT's vocabulary the correction is one in 30 522."


@exercise("bert.count")
def count(parameters):
    """Parameters against a model that is really built."""
    for v, n, d, layers, f, s in (
        (11, 5, 6, 2, 14, 3),
        (97, 13, 8, 3, 19, 2),
        (53, 7, 12, 2, 48, 1),
    ):
        config = BertConfig(v, n, d, layers, 2, d_ff=f, n_segments=s)
        with torch.device("meta"):
            model = MaskedLM(config)
        right = sum(p.numel() for p in model.parameters())
        mistakes = {
            "The last matrix is the table of tokens itself: it counts "
            "once.": right + v * d,
            "The head has one bias for each word.": right - v,
            "The head has a linear layer and a norm of its own.": right
            - (d * d + 3 * d),
            "The sum of the three embeddings is normed too.": right - 2 * d,
            "A block has two norms.": right - layers * 2 * d,
            "Linear layers have biases: four projections, and two in the "
            "feed-forward layer.": right - layers * (5 * d + f),
            "The table of segments is missing.": right - s * d,
            "The table of places is missing.": right - n * d,
            "There are n_segments segments.": right - (s - 2) * d,
            "The feed-forward layer is d_ff wide.": right
            + layers * (2 * d + 1) * (4 * d - f),
            "Attention has four projections, each with a bias: queries, keys, "
            "values and the output.": right - layers * (d * d + d),
            "Behind post-norm blocks comes no last norm.": right + 2 * d,
        }
        got = parameters(v, n, d, layers, f, s)
        hint = next((t for t, wrong in mistakes.items() if got == wrong), "")
        expect_equal(
            got,
            right,
            on=f"vocab_size={v}, max_len={n}, d_model={d}, n_layers={layers}, "
            f"d_ff={f}, n_segments={s}",
            hint=hint,
        )
    v, n, d, layers, f, s = (10**30 + k for k in (57, 3, 9, 1, 21, 7))
    block = 4 * d * d + 4 * d + 2 * d * f + f + d + 4 * d
    expect_equal(
        parameters(v, n, d, layers, f, s),
        (v + n + s) * d + 2 * d + layers * block + d * d + 3 * d + v,
        on="sizes near 10**30, of which nobody can build a model",
        hint="Derive the number, with integers only.",
    )
    return "For BERT-base that makes 109 514 298, a fifth of it in one table."


def _scorer(vocab_size, calls):
    """A bidirectional toy model: each logit depends on the whole row."""
    table = _normal(vocab_size, 6, seed=1)
    places = _normal(16, 6, seed=2)

    def predict(tokens):
        calls.append(tokens.clone())
        t = tokens.shape[-1]
        x = table[tokens] + places[:t]
        mixed = torch.tanh(x + x.mean(-2, keepdim=True) * 2)
        return mixed @ table.T

    return predict


@exercise("bert.judge")
def judge(judge):
    """The score against a loop that hides one token at a time."""
    for tokens, mask_id in (
        ([1, 5, 7, 4, 9, 2], 3),
        ([1, 8, 2], 0),
        ([1, 4, 4, 6, 4, 2], 10),
    ):
        tokens = torch.tensor(tokens)
        on = f"tokens={tokens.tolist()}, mask_id={mask_id}"
        calls = []
        predict = _scorer(11, [])
        got = judge(_scorer(11, calls), tokens.clone(), mask_id)
        inner = range(1, len(tokens) - 1)
        one_by_one = []
        for i in inner:
            hidden = tokens.clone()
            hidden[i] = mask_id
            logs = predict(hidden[None])[0, i].log_softmax(-1)
            one_by_one.append(logs[tokens[i]])
        right = torch.stack(one_by_one).sum()
        open_ = predict(tokens[None])[0].log_softmax(-1)
        whole = tokens.clone()
        whole[1:-1] = mask_id
        at_once = predict(whole[None])[0].log_softmax(-1)
        ends = []
        for i in range(len(tokens)):
            hidden = tokens.clone()
            hidden[i] = mask_id
            logs = predict(hidden[None])[0, i].log_softmax(-1)
            ends.append(logs[tokens[i]])
        raw = sum(
            predict(row[None])[0, i, tokens[i]]
            for i in inner
            for row in [tokens.clone().index_fill(0, torch.tensor(i), mask_id)]
        )
        more = tokens.expand(len(tokens) - 2, -1).clone()
        for i in inner:  # what was hidden before stays hidden
            more[i - 1, 1 : i + 1] = mask_id
        piling = predict(more).log_softmax(-1)
        _recognise(
            torch.as_tensor(got),
            right,
            {
                "This is what it costs. Log-probabilities are negative, and so "
                "is their sum.": -right,
                "What was hidden before is still hidden. Begin anew from the "
                "sentence for each token.": sum(
                    piling[i - 1, i, tokens[i]] for i in inner
                ),
                "Nothing was hidden: each token was read off the input.": sum(
                    open_[i, tokens[i]] for i in inner
                ),
                "All were hidden at once; each token is hidden alone, the "
                "others stay.": sum(at_once[i, tokens[i]] for i in inner),
                "[CLS] and [SEP] were judged too.": torch.stack(ends).sum(),
                "This is the mean; the sum is asked for.": right / len(inner),
                "Logits are no log-probabilities: log_softmax over the "
                "words.": raw,
            },
            on=on,
        )
        if len(calls) != 1:
            raise Wrong(
                f"predict was called {len(calls)} times, once is asked for.",
                on=on,
                hint="All versions of the sentence make one batch.",
            )
    return "One batch, T - 2 rows: a sentence judged from both sides."


@exercise("bert.whole-words")
def whole_words(whole_words):
    """Choices against a loop over words."""
    make = torch.Generator().manual_seed(0)
    fixed = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 1], [0, 1, 0, 0, 0, 1, 1, 1]])
    cases = [fixed.bool()]
    cases.append(torch.rand(5, 13, generator=make) < 0.5)
    cases[-1][:, 0] = False
    for continues in cases:
        chosen = torch.rand(continues.shape, generator=make) < 0.5
        right = chosen.clone()
        any_piece = chosen.clone()
        one_back = chosen.clone()
        for b, t in continues.nonzero().tolist():
            right[b, t] = right[b, t - 1]
            one_back[b, t] = chosen[b, t - 1]
        for b in range(len(chosen)):
            starts = (~continues[b]).nonzero().flatten().tolist()
            for s, e in zip(
                starts, [*starts[1:], chosen.shape[1]], strict=True
            ):
                any_piece[b, s:e] = chosen[b, s:e].any()
        on = (
            f"chosen={chosen.int().tolist()}, "
            f"continues={continues.int().tolist()}"
        )
        got = whole_words(chosen.clone(), continues)
        expect_shape(got, tuple(chosen.shape), on=on)
        expect_dtype(got, torch.bool, on=on, hint="It is a choice, as before.")
        _recognise(
            got.int(),
            right.int(),
            {
                "A word was taken if any piece was chosen. Then long words are "
                "taken more often: follow the first piece.": any_piece.int(),
                "Each piece follows the piece just before it, as chosen; the "
                "third piece must follow the first.": one_back.int(),
                "Pieces that continue a word were left out; they follow its "
                "beginning.": (chosen & ~continues).int(),
                "Nothing has changed: pieces of a word still differ.": (
                    chosen.int()
                ),
            },
            on=on,
        )
    short = chosen[:, :5], continues[:, :5]
    expect_no_loop(whole_words, short, (chosen, continues), on=on)
    return "A word of five pieces is now hidden as often as one of one."


def _poolings(hidden, mask):
    """Name -> (right answer, wrong answer)."""
    real = mask[:, 0, 0, :, None]
    some = real.sum(1)
    total = (hidden * real).sum(1)
    first = real.int().argmax(1, keepdim=True)
    largest = hidden.masked_fill(~real, -torch.inf).amax(1)
    last = real.shape[1] - 1 - real.flip(1).int().argmax(1, keepdim=True)
    fewer = real & (torch.arange(real.shape[1])[:, None] != last)
    return {
        "1 (a mean over all places)": (total / some, hidden.mean(1)),
        "2 (a sum divided by T)": (total / some, total / hidden.shape[1]),
        "3 (the first text's tokens for all)": (
            total / some,
            (hidden * real[:1]).sum(1) / real[:1].sum(1),
        ),
        "4 (a maximum of hidden * mask)": (largest, (hidden * real).amax(1)),
        "5 (place 0)": (hidden.take_along_dim(first, 1)[:, 0], hidden[:, 0]),
        "6 (the last real token left out)": (
            total / some,
            (hidden * fewer).sum(1) / fewer.sum(1).clamp(min=1),
        ),
    }


@exercise("bert.kill-the-poolings")
def kill_the_poolings(killer):
    """Every wrong pooling must differ on the learner's batch."""
    hidden, mask = killer()
    on = "your batch"
    if hidden.ndim != 3:
        raise Wrong(
            f"hidden must have shape (B, T, D), got {tuple(hidden.shape)}.",
            on=on,
        )
    if not hidden.numel():
        raise Wrong(
            f"hidden is empty: its shape is {tuple(hidden.shape)}.", on=on
        )
    b, t, _ = hidden.shape
    expect_shape(mask, (b, 1, 1, t), on=on, hint="That of padding_mask.")
    if mask.dtype != torch.bool or not mask.any(-1).all():
        raise Wrong(
            "mask must be bool, with at least one real token in each text.",
            on=on,
        )
    if not (hidden.isfinite().all() and hidden.abs().max() <= 10):
        raise Wrong(
            "All numbers must lie between -10 and 10.",
            on=on,
            hint="Infinity finds everything, and proves little.",
        )
    alive = []
    for name, (right, wrong) in _poolings(hidden.double(), mask).items():
        if (right - wrong).abs().max() < 1e-2:
            alive.append(name)
    if alive:
        raise Wrong(
            f"These wrong poolings are right on your batch: "
            f"{'; '.join(alive)}.",
            on=f"hidden of shape {tuple(hidden.shape)}, real tokens "
            f"{mask[:, 0, 0].int().tolist()}",
            hint="Think of unequal lengths, padding on the left, negative "
            "numbers, and padding that is not zero.",
        )
    return "All six found out by one small batch. Keep it as a test."


@exercise("bert.contrastive")
def contrastive(contrastive):
    """The loss against a loop, and the mistakes around it."""
    for n, d, temperature in ((5, 7, 0.05), (3, 11, 1.0), (2, 3, 0.2)):
        a, b = _normal(n, d, seed=n), _normal(n, d, seed=n + 50) * 3
        on = f"N={n}, D={d}, temperature={temperature}"
        u, v = F.normalize(a, dim=-1), F.normalize(b, dim=-1)
        terms = []
        for i in range(n):
            scores = [torch.dot(u[i], v[j]) / temperature for j in range(n)]
            terms.append(-scores[i] + torch.stack(scores).logsumexp(0))
        right = torch.stack(terms).mean()
        target = torch.arange(n)
        got = contrastive(a, b, temperature)
        _recognise(
            torch.as_tensor(got),
            right,
            {
                "Dot products, not cosines: the lengths must not "
                "count.": F.cross_entropy(a @ b.T / temperature, target),
                "The temperature divides the cosines.": F.cross_entropy(
                    u @ v.T * temperature, target
                ),
                "The temperature is missing.": F.cross_entropy(u @ v.T, target),
                "Each row of b looks for its partner in a; it is the other "
                "way around.": F.cross_entropy(v @ u.T / temperature, target),
                "This asks in both directions. Here a looks for b only.": (
                    right + F.cross_entropy(v @ u.T / temperature, target)
                )
                / 2,
                "The partner itself is one of the candidates: it belongs to "
                "the sum in the denominator.": (
                    (u @ v.T / temperature)
                    .masked_fill(torch.eye(n).bool(), -torch.inf)
                    .logsumexp(-1)
                    - (u * v).sum(-1) / temperature
                ).mean(),
                "This is the sum; the mean is asked for.": right * n,
                "Only the partners were compared. Without the others the best "
                "answer is that all vectors are one.": -(u * v).sum(-1).mean()
                / temperature,
            },
            on=on,
        )
    for name, seeds in (("a", (0, 1)), ("b", (1, 0))):
        a, b = (_normal(4, 5, seed=s) for s in seeds)
        (a if name == "a" else b).requires_grad_()
        loss = contrastive(a, b, 0.1)
        if not (isinstance(loss, torch.Tensor) and loss.requires_grad):
            raise Wrong(
                "The gradient got lost on the way.",
                on=f"{name} with gradients",
                hint="Both sides learn: a and b come from one encoder.",
            )
    chance = math.log(4)
    same = contrastive(torch.ones(4, 5), torch.ones(4, 5), 0.1)
    expect_close(
        same, torch.tensor(chance), on="four equal texts", hint="ln 4: a guess."
    )
    return "If all vectors are one, it costs ln N: the batch keeps them apart."


@exercise("bert.long-text")
def long_text(read_long):
    """Windows against a search over all windows for each token."""
    for n, size, stride in (
        (11, 5, 2),
        (10, 4, 2),
        (9, 4, 4),
        (23, 7, 3),
        (4, 6, 2),
        (6, 6, 3),
        (7, 6, 1),
    ):
        tokens = torch.arange(n) + 100
        on = f"{n} tokens, size={size}, stride={stride}"
        shapes = []

        def encode(batch, shapes=shapes):
            """(token, the window's first token, place) as the vector."""
            shapes.append(tuple(batch.shape))
            place = torch.arange(batch.shape[1]).expand_as(batch)
            start = batch[:, :1].expand_as(batch)
            return torch.stack([batch, start, place], -1).float()

        got = read_long(encode, tokens, size, stride)
        short = n <= size
        starts = [0] if short else [*range(0, n - size, stride), n - size]
        length = min(n, size)
        expect_shape(got, (n, 3), on=on)
        widths = {shape[1] for shape in shapes if len(shape) == 2}
        if widths != {length}:
            raise Wrong(
                f"Windows must have {length} tokens, got {sorted(widths)}.",
                on=on,
                hint="The last window is moved back; a short text is read "
                "in one piece.",
            )

        def pick(better, starts=starts, length=length, n=n):
            rows = []
            for i in range(n):
                own = [s for s in starts if s <= i < s + length]
                best = better(own, i)
                rows.append([100 + i, 100 + best, i - best])
            return torch.tensor(rows).float()

        def edge(s, i, length=length):
            return min(i - s, length - 1 - (i - s))

        right = pick(lambda own, i: max(own, key=lambda s: edge(s, i)))
        _recognise(
            got,
            right,
            {
                "Every token was taken from its first window; take the one in "
                "which it is farthest from the nearer edge.": pick(
                    lambda own, i: own[0]
                ),
                "Every token was taken from its last window; take the one in "
                "which it is farthest from the nearer edge.": pick(
                    lambda own, i: own[-1]
                ),
                "Of equals the earlier window is asked for.": pick(
                    lambda own, i: max(reversed(own), key=lambda s: edge(s, i))
                ),
            },
            on=on,
        )
    return "Each token now has all the context that the windows can give."
