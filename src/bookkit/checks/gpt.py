"""Checks for the exercises of chapters/gpt.md.

Each tries the likely mistakes itself, so that a wrong answer is not only
refused but recognised.
"""

import math
import random
from unittest import mock

import torch
from torch import nn

from bookkit.check import (
    Wrong,
    exercise,
    expect_close,
    expect_equal,
    expect_shape,
)
from litformer import tales
from litformer.gpt import GPT, GPTConfig


def _logits(*shape, seed=0):
    """Normal numbers that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(shape, generator=make)


def _likely(got, mistakes) -> str:
    """The mistake that gives exactly this answer, if one does."""
    for text, wrong in mistakes.items():
        same = isinstance(got, torch.Tensor) and got.shape == wrong.shape
        if same and torch.allclose(got.to(wrong.dtype), wrong, atol=1e-5):
            return text
    return ""


@exercise("gpt.one-text")
def one_text(best):
    """Reports in which each tempting number names another model."""
    cases = [
        (dict(words=(4.0, 100), pieces=(3.0, 150), letters=(1.1, 500)), 500),
        (dict(a=(2.0, 300), b=(2.5, 200), c=(1.0, 650)), 900),
        (dict(few=(5.0, 100), many=(2.0, 200)), 350),
    ]
    for reports, characters in cases:
        on = f"{reports}, {characters} characters"
        bits = {
            name: mean * tokens / math.log(2) / characters
            for name, (mean, tokens) in reports.items()
        }
        right = min(bits, key=bits.get)
        answer = best(reports, characters)
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise Wrong(
                "The answer must be a pair: a name, and its bits.",
                on=on,
                got=answer,
            )
        name, value = answer
        if not isinstance(name, str):
            raise Wrong("The name comes first, then its bits.", on=on, got=name)
        if name != right:
            hint = "Multiply each mean by its number of tokens first."
            if name == min(reports, key=lambda n: reports[n][0]):
                hint = (
                    "This one has the smallest loss for each token. Its "
                    "tokens are smaller than those of the others, too."
                )
            raise Wrong(
                "Another model is less surprised by the text.",
                on=on,
                expected=right,
                got=name,
                hint=hint,
            )
        mean, tokens = reports[name]
        hint = {
            mean * tokens / characters: "These are nats. A bit is ln 2 nats.",
            mean / math.log(2): "Bits for each token; share the sum among "
            "the characters.",
            mean * tokens / math.log(2): "Bits of the whole text; divide by "
            "its characters.",
            mean * tokens * math.log(2) / characters: "Nats become bits by a "
            "division by ln 2.",
            math.exp(mean): "This is the perplexity of a token.",
            mean * tokens / math.log(10) / characters: "A bit is ln 2 nats; "
            "ln 10 belongs to decimal digits.",
        }
        near = next((h for v, h in hint.items() if math.isclose(v, value)), "")
        expect_close(
            torch.tensor(float(value)),
            torch.tensor(bits[name]),
            on=on,
            hint=near,
        )
    return "Total surprise is the length of the file that a compressor writes."


@exercise("gpt.cut-into-rows")
def cut_into_rows(rows):
    """Lengths that divide, and lengths that do not."""
    for n, length in ((17, 4), (20, 4), (9, 8), (23, 5)):
        ids = torch.arange(n) + 100
        on = f"ids 100 to {99 + n}, length {length}"
        whole = (n - 1) // length
        answer = rows(ids, length)
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise Wrong("Return two tensors: inputs, targets.", on=on)
        inputs, targets = answer
        for name, got in (("inputs", inputs), ("targets", targets)):
            if not isinstance(got, torch.Tensor) or got.dtype != ids.dtype:
                raise Wrong(
                    f"The {name} must be a tensor of ids, {ids.dtype}.",
                    on=on,
                    got=got,
                )
        hint = f"{n} tokens are {n - 1} questions: {whole} rows of {length}."
        expect_shape(inputs, (whole, length), on=on, hint=hint)
        expect_shape(targets, (whole, length), on=on, hint=hint)
        if torch.equal(inputs, targets):
            raise Wrong(
                "Inputs and targets are the same. A model that copies would "
                "be perfect.",
                on=on,
                hint="The target of a token is the one after it.",
            )
        if torch.equal(targets, inputs - 1):
            raise Wrong(
                "Each target is the token before: shifted the wrong way.",
                on=on,
            )
        right = ids[1 : whole * length + 1].view(whole, length)
        lost = sorted(
            set(right.flatten().tolist()) - set(targets.flatten().tolist())
        )
        if lost:
            raise Wrong(
                f"These tokens are never a target: {lost}.",
                on=on,
                expected=right,
                got=targets,
                hint="Was the text cut into rows first, and shifted inside "
                "of them? Then the last target of each row is lost.",
            )
        expect_equal(targets, right, on=on, hint="In the order of the text.")
        expect_equal(inputs, right - 1, on=on)
    return "Nothing is lost but the rest at the end."


@exercise("gpt.count")
def count(parameters):
    """Against models that are really built, without their numbers."""
    names = "vocab_size d_model n_layers n_heads n_kv_heads d_ff".split()
    cases = [
        (101, 24, 3, 6, 2, 37, True),
        (101, 24, 3, 6, 2, 37, False),
        (53, 40, 2, 4, 4, 64, False),
        (49_152, 576, 30, 9, 3, 1536, True),
        (128_256, 8192, 80, 64, 8, 28_672, False),
    ]
    for *sizes, tied in cases:
        v, d, n, h, g, f = sizes
        with torch.device("meta"):
            config = GPTConfig.llama(
                v,
                99,
                d_model=d,
                n_layers=n,
                n_heads=h,
                n_kv_heads=g,
                d_ff=f,
                tie_embeddings=tied,
            )
            model = GPT(config)
        right = sum(p.numel() for p in model.parameters())
        got = parameters(*sizes, tied)
        d_kv = d // h * g
        mistakes = {
            "The norm behind the last block is missing.": right - d,
            "Each block has two norms, and there is one at the end.": right
            - 2 * n * d
            - d,
            "The norms of the blocks are missing.": right - 2 * n * d,
            "Keys and values have n_kv_heads heads.": right
            + 2 * n * d * (d - d_kv),
            "A gated feed-forward layer has three matrices.": right - n * d * f,
            "A tied head is the embedding: count it once.": right
            + tied * v * d,
            "A head that is not tied has weights of its own.": right
            - (not tied) * v * d,
            "There are no biases here.": right + n * (2 * d + 2 * d_kv),
            "RMSNorm has a gain for each channel, and no bias.": right
            + (2 * n + 1) * d,
            "A block has two norms.": right - n * d,
            "Rotation has no parameters.": right + d // 2,
            "The output projection is as wide as that of the queries.": right
            - n * (d * d - d * d_kv),
            "Keys and values have a projection each.": right - n * d * d_kv,
            "A tied model has one table, one that is not has two.": right
            + (1 if tied else -1) * v * d,
        }
        hint = next((t for t, w in mistakes.items() if got == w != right), "")
        on = ", ".join(f"{k}={x}" for k, x in zip(names, sizes, strict=True))
        expect_equal(got, right, on=f"{on}, tied={tied}", hint=hint)
    return "The last of them has 70 billion, and took no memory to count."


@exercise("gpt.min-p")
def min_p(keep_min_p):
    """Rows with best tokens of different sizes."""
    five = torch.cat([_logits(4, 9), _logits(1, 9, seed=1) * 4 + 7])
    cases = [("five rows of nine logits", five, p) for p in (0.05, 0.3, 1.0)]
    cases += [
        ("one row, shape (9,)", five[0], 0.3),
        ("a stack, shape (2, 3, 7)", _logits(2, 3, 7, seed=2), 0.2),
        ("large logits, near 200", five + 200, 0.3),
    ]
    for what, rows, p in cases:
        probs = rows.softmax(-1)
        on = f"{what}, p={p}"
        keep = probs >= p * probs.amax(-1, keepdim=True) * (1 - 1e-6)
        right = rows.masked_fill(~keep, -math.inf)
        got = keep_min_p(rows.clone(), p)
        expect_shape(got, tuple(rows.shape), on=on)
        mistakes = {
            "Probabilities below p itself were cut. Compare with p times the "
            "best one."
            if p < 1
            else "With p = 1 the best one is left: *at least* p times as "
            "probable includes equality.": rows.masked_fill(
                probs < p, -math.inf
            ),
            "Compare probabilities, or differences of logits: logits "
            "themselves have no ratio.": rows.masked_fill(
                rows < p * rows.amax(-1, keepdim=True), -math.inf
            ),
            "Each row has a best token of its own; this is the best of all "
            "rows.": rows.masked_fill(probs < p * probs.max(), -math.inf),
            "These are log-probabilities. Logits come back as they were.": (
                probs.log().masked_fill(~keep, -math.inf)
            ),
            "These are probabilities. Logits are asked for.": torch.where(
                keep, probs, torch.tensor(-math.inf)
            ),
            "Cut tokens must have the logit minus infinity; 0 is a logit "
            "like another.": rows.masked_fill(~keep, 0.0),
        }
        hint = _likely(got, mistakes)
        if not hint and isinstance(got, torch.Tensor):
            lost = keep & got.isneginf()
            if lost.any():
                at = tuple(lost.nonzero()[0].tolist())
                ratio = (probs[at] / probs[at[:-1]].max()).item()
                raise Wrong(
                    f"The token at {list(at)} was cut. It is {ratio:.3g} "
                    "times as probable as the best one of its row.",
                    on=on,
                    got=got,
                    hint="The best one of each row always stays. It is the "
                    "largest along the last axis.",
                )
        if what.startswith("large"):  # where small ones came out right
            hint = (
                "exp(200) is infinite in fp32. Compare differences of "
                "logits, or let a softmax subtract the largest one."
            )
        expect_close(got, right, on=on, hint=hint)
    return "Where the model is sure, the threshold is high; else it is low."


@exercise("gpt.constrained")
def constrained(constrain):
    """Known places first, then whole tales from an untrained model."""
    tale = tales.tell(random.Random(5)).words
    for n in (0, 1, 9, len(tale)):
        words = list(tale[:n])
        logits = _logits(len(tales.VOCABULARY), seed=n)
        on = f"after {' '.join(words[-4:]) or 'nothing'!r}"
        allowed = tales.next_words(words)
        keep = torch.tensor([word in allowed for word in tales.VOCABULARY])
        got = constrain(logits.clone(), words)
        expect_shape(got, tuple(logits.shape), on=on)
        right = logits.masked_fill(~keep, -math.inf)
        mistakes = {
            "The allowed words were cut, and the others kept.": (
                logits.masked_fill(keep, -math.inf)
            ),
            "A cut word needs minus infinity: with 0 it can still be "
            "chosen.": logits.masked_fill(~keep, 0.0),
        }
        if isinstance(got, torch.Tensor) and not (got > -math.inf).any():
            raise Wrong(
                "Nothing may come next.",
                on=on,
                hint="After a whole tale the mark is allowed: is it looked up?",
            )
        hint = _likely(got, mistakes)
        if not hint and isinstance(got, torch.Tensor):
            for verb, wrong in (
                ("allows", keep & got.isneginf()),
                ("does not allow", ~keep & ~got.isneginf()),
            ):
                if wrong.any():
                    word = tales.VOCABULARY[int(wrong.nonzero()[0])]
                    hint = f"The grammar {verb} {word!r} here."
        expect_close(got, right, on=on, hint=hint)
    make = torch.Generator().manual_seed(0)
    for _ in range(3):
        words = []
        while len(words) <= tales.floor().longest:
            probs = constrain(_logits(len(tales.VOCABULARY)), words).softmax(-1)
            word = tales.VOCABULARY[torch.multinomial(probs, 1, generator=make)]
            if word == tales.MARK:
                break
            words.append(word)
        tales.read(words)
    return "Three tales from a model that knows nothing, all grammatical."


class _Honest(nn.Module):
    """Means of the past; nothing else."""

    def __init__(self, noise=0.0, v=31):
        super().__init__()
        self.table, self.noise = _logits(v, v), noise

    def forward(self, ids):
        x = self.table[ids]
        past = x.cumsum(1) / torch.arange(1, ids.shape[1] + 1)[:, None]
        # a kernel may add in another order when any of its input is another
        chance = x.sum((1, 2), keepdim=True).sin()
        return past * (1 + 3e-7 * self.noise * chance)

    def extra(self, ids):
        return self.table[ids]


class _Cheat(_Honest):
    """Adds a trace of later tokens, as `trace` says."""

    def __init__(self, trace, v=31):
        super().__init__(v=v)
        self.trace = trace

    def forward(self, ids):
        out = super().forward(ids)
        t = ids.shape[1]
        return out + torch.einsum("ts,bsv->btv", self.trace(t), self.extra(ids))


class _Sinks(_Cheat):
    """Its logits fall when a later id rises, and never rise with it."""

    def extra(self, ids):
        return (-0.1 * ids[..., None]).expand(-1, -1, len(self.table))


def _one(t, row, column):
    """One place looks at one other."""
    trace = torch.zeros(t, t)
    if row < column < t:  # a shorter text may have no such place
        trace[row, column] = 1.0
    return trace


def _next(t):
    """Each place looks at the one after it."""
    return torch.ones(t, t).triu(1).tril(1)


_CHEATS = {
    "sees the next token everywhere": _next,
    "sees all of the future": lambda t: torch.ones(t, t).triu(1) / t,
    "sees, at one place in the middle only, the token after it": (
        lambda t: _one(t, t // 2, t // 2 + 1)
    ),
    "sees, at the first place only, the last token": (
        lambda t: _one(t, 0, t - 1)
    ),
    "sees only tokens at least five places ahead": (
        lambda t: torch.ones(t, t).triu(5)
    ),
    "sees the next token very faintly, too little to change any winner": (
        lambda t: 1e-3 * _next(t)
    ),
}


@exercise("gpt.find-the-leak")
def find_the_leak(leaks):
    """Three honest models and seven cheats, on three texts."""
    make = torch.Generator().manual_seed(2)
    _accuse(leaks, torch.randint(31, (1, 11), generator=make), 31)
    _accuse(leaks, torch.randint(7, (1, 13), generator=make), 7)
    _accuse(leaks, torch.zeros(1, 8, dtype=torch.long), 5)
    return "Run it on every model before you believe its loss."


def _accuse(leaks, ids, v) -> None:
    """All models on one text over a vocabulary of v."""
    torch.manual_seed(0)
    on = f"{ids.shape[1]} token ids out of {v}: {ids[0].tolist()}"
    honest = {
        "a running mean": _Honest(v=v),
        "a running mean that is rounded": _Honest(noise=1.0, v=v),
        "a GPT": GPT(GPTConfig(v, 13, 16, 2, 2, init_std=0.3)).eval(),
    }
    for name, model in honest.items():
        if bool(leaks(model, ids)):
            raise Wrong(
                f"An honest model is accused: {name}.",
                on=on,
                expected=False,
                got=True,
                hint="A changed token may change its own place and later "
                "ones. Rounding may move the last digit.",
            )
    cheats = {name: _Cheat(trace, v) for name, trace in _CHEATS.items()}
    cheats["lowers its logits when later ids are larger"] = _Sinks(_next, v)
    for name, cheat in cheats.items():
        if not bool(leaks(cheat, ids)):
            raise Wrong(
                f"A cheat passes: it {name}.",
                on=on,
                expected=True,
                got=False,
                hint="Change each token in turn, to another one; compare all "
                "logits before it, as numbers.",
            )


@exercise("gpt.decode-q4-0")
def q4_0(decode_q4_0):
    """Random blocks, whose 4-bit numbers lie on both sides of 8."""
    make = torch.Generator().manual_seed(0)
    data = torch.randint(256, (3, 2, 18), generator=make).to(torch.uint8)
    d = torch.tensor([[0.0371, -0.25], [1.0, 2.01], [0.1234, 3.3]]).half()
    data[..., :2] = d.view(torch.uint8).view(3, 2, 2)
    q = torch.cat([data[..., 2:] & 15, data[..., 2:] >> 4], -1).float()
    d = d.float()[..., None]
    right = (d * (q - 8)).flatten(1)
    on = "three rows of two blocks, uint8"
    got = decode_q4_0(data.flatten(1))
    expect_shape(
        got,
        (3, 64),
        on=on,
        hint="18 bytes are a block: 2 of the scale, 16 with two numbers each.",
    )
    low, high = q.split(16, -1)
    packed, head = data[..., 2:], data[..., :2]
    signed = (packed.view(torch.int8) >> 4).float()
    mistakes = {
        "The offset 8 is missing: q runs from 0 to 15, q - 8 from -8 to 7.": (
            d * q
        ).flatten(1),
        "3 - 8 in uint8 is 251. Turn q into floats before you subtract.": (
            d * ((q - 8) % 256)
        ).flatten(1),
        "The low halves are numbers 0 to 15 and the high halves 16 to 31; "
        "here they alternate.": (
            d * (torch.stack([low, high], -1).flatten(-2) - 8)
        ).flatten(1),
        "Low and high halves changed places.": (
            d * (torch.cat([high, low], -1) - 8)
        ).flatten(1),
        "x = d (q - 8), and not d q - 8.": (d * q - 8).flatten(1),
        "The two bytes of d are in the wrong order: the low one comes first.": (
            head.flip(-1).contiguous().view(torch.float16).float() * (q - 8)
        ).flatten(1),
        "The scale is a float16 in two bytes, and no whole number.": (
            (head[..., :1] + 256.0 * head[..., 1:]) * (q - 8)
        ).flatten(1),
        "The scale is float16, the IEEE half, and no bfloat16.": (
            head.contiguous().view(torch.bfloat16).float() * (q - 8)
        ).flatten(1),
        "16 levels from -8 to 7: it is q - 8, not q - 7.5.": (
            d * (q - 7.5)
        ).flatten(1),
        "In int8, >> 4 drags the sign along. Shift while the bytes are "
        "uint8.": (d * (torch.cat([low, signed], -1) - 8)).flatten(1),
        "Computed in 16 bits: turn d into float32 before you multiply.": (
            (d.half() * (q - 8).half()).float().flatten(1)
        ),
    }
    expect_close(got, right, on=on, hint=_likely(got, mistakes))
    return "4.5 bits a weight, and half a bit less than Q4_1."


def _best_tale():
    """The greatest log-probability of a tale, by exhaustion."""
    best = -math.inf

    def search(words, log_prob):
        nonlocal best
        after = tales.next_words(words)
        if tales.MARK in after:
            best = max(best, log_prob)
            return
        for p, word in {p: word for word, p in after.items()}.items():
            if log_prob + math.log(p) > best:
                search([*words, word], log_prob + math.log(p))

    search([], 0.0)
    return best


def _not_told(*_):
    raise Wrong(
        "`tales.tell` draws tales at random. A lucky draw proves nothing.",
        hint="Search with `tales.next_words`.",
    )


@exercise("gpt.most-probable")
def most_probable(most_probable):
    """The log-probability of what is found, against an exhaustive search."""
    with mock.patch.object(tales, "tell", _not_told):
        words = most_probable()
    if isinstance(words, str):
        words = words.split()
    if not isinstance(words, list | tuple) or not all(
        isinstance(word, str) for word in words
    ):
        raise Wrong("A list of words is asked for.", got=words)
    words = [w for w in words if w != tales.MARK]
    try:
        found = tales.read(words)
    except tales.NotATale as error:
        raise Wrong(
            f"This is no tale: {error}", got=" ".join(words)[:120]
        ) from None
    got, best = sum(found.log_probs), _best_tale()
    greedy = []
    while tales.MARK not in (after := tales.next_words(greedy)):
        greedy.append(max(after, key=after.get))
    if got < best - 1e-6:
        same = math.isclose(got, sum(tales.read(greedy).log_probs))
        raise Wrong(
            "There is a more probable tale.",
            on="all tales",
            expected=f"a log-probability of {best:.3f}",
            got=f"{got:.3f}",
            hint="This is as probable as the greedy tale: the best word at "
            "each place. A worse word now can lead to a better end."
            if same
            else "Is a beginning given up although it could still win?",
        )
    mean = tales.floor().nats
    return (
        f"Its surprisal is {-best:.1f} nats; the mean of all tales is "
        f"{mean:.1f}: it is {math.exp(mean + best):.0f} times as probable as a "
        "usual one, and nearly never told."
    )
