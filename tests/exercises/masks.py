"""Wrong answers that people give, and the words that must meet them."""

MUTANTS = {
    "masks.count-visible": {
        "loops-over-the-ramp": (
            """
def visible(t, s, window):
    ramp = max(0, min(s, window - 1) - (s - t))
    total = 0
    for position in range(s - t, s - t + ramp):
        total += position + 1
    return total + (t - ramp) * window
""",
            r"takes too long",
        ),
        "builds-the-mask": (
            """
from litformer.masks import sliding_window_mask

def visible(t, s, window):
    return int(sliding_window_mask(t, s, window=window).sum())
""",
            r"use a formula",
        ),
        "no-ramp": (
            """
def visible(t, s, window):
    return t * window
""",
            r"t=4, s=4, window=4[\s\S]*10 pairs",
        ),
        "ignores-the-cache": (
            """
def visible(t, s, window):
    ramp = min(t, window)
    return ramp * (ramp + 1) // 2 + (t - ramp) * window
""",
            r"t=1, s=5, window=5[\s\S]*stands at position S - T",
        ),
        "window-without-itself": (
            """
def visible(t, s, window):
    def up_to(n):
        ramp = min(n, window + 1)
        return ramp * (ramp + 1) // 2 + (n - ramp) * (window + 1)
    return up_to(s) - up_to(s - t)
""",
            r"t=4, s=4, window=2[\s\S]*fewer than W",
        ),
        "floating-point": (
            """
def visible(t, s, window):
    def up_to(n):
        ramp = min(n, window)
        return int(ramp * (ramp + 1) / 2 + (n - ramp) * window)
    return up_to(s) - up_to(s - t)
""",
            r"Keep to integers",
        ),
        "forgets-the-window": (
            """
def visible(t, s, window):
    return t * (s - t) + t * (t + 1) // 2
""",
            r"window=2",
        ),
    },
    "masks.four-suspects": {
        "square-for-top-left": (
            """
witnesses = {"top-left": (4, 4), "strict": (1, 1),
             "sees one ahead": (2, 2), "transposed": (1, 2)}
""",
            r"'top-left' is right[\s\S]*t < s",
        ),
        "not-the-smallest": (
            """
witnesses = {"top-left": (1, 2), "strict": (2, 3),
             "sees one ahead": (2, 2), "transposed": (1, 2)}
""",
            r"convicts 'strict', but there is a smaller[\s\S]*s = 1",
        ),
        "larger-t": (
            """
witnesses = {"top-left": (1, 2), "strict": (1, 1),
             "sees one ahead": (2, 2), "transposed": (2, 2)}
""",
            r"t can be smaller",
        ),
        "one-query-cannot-look-ahead": (
            """
witnesses = {"top-left": (1, 2), "strict": (1, 1),
             "sees one ahead": (1, 2), "transposed": (1, 2)}
""",
            r"'sees one ahead' is right[\s\S]*t = s",
        ),
        "s-before-t": (
            """
witnesses = {"top-left": (2, 1), "strict": (1, 1),
             "sees one ahead": (2, 2), "transposed": (1, 2)}
""",
            r"two integers \(t, s\) with 1 <= t <= s",
        ),
        "one-is-missing": (
            """
witnesses = {"top-left": (1, 2), "strict": (1, 1), "transposed": (1, 2)}
""",
            r"no witness against 'sees one ahead'",
        ),
    },
    "masks.cached-decoding": {
        "top-left": (
            """
import torch
def decoding_mask(padding, cached, new):
    s = cached + new
    real = torch.arange(s) >= padding[:, None]
    past = torch.ones(new, s, dtype=torch.bool).tril()
    return past & real[:, None, None, :]
""",
            r"cached=4, new=1[\s\S]*whole past",
        ),
        "right-padding": (
            """
from litformer.masks import causal_mask, padding_mask
def decoding_mask(padding, cached, new):
    s = cached + new
    return causal_mask(new, s) & padding_mask(s - padding, s)
""",
            r"hides the last keys: padding on the right",
        ),
        "forgot-the-padding": (
            """
from litformer.masks import causal_mask
def decoding_mask(padding, cached, new):
    past = causal_mask(new, cached + new)
    return past.expand(len(padding), 1, *past.shape)
""",
            r"padding=\[2, 0\][\s\S]*on the left",
        ),
        "rank-three": (
            """
import torch
from litformer.masks import causal_mask
def decoding_mask(padding, cached, new):
    s = cached + new
    real = torch.arange(s) >= padding[:, None]
    return causal_mask(new, s) & real[:, None, :]
""",
            r"Expected shape \(2, 1, 4, 4\), got \(2, 4, 4\)",
        ),
        "padding-outside-the-cache": (
            """
import torch
from litformer.masks import causal_mask
def decoding_mask(padding, cached, new):
    s = cached + new
    real = torch.arange(s) - cached >= padding[:, None]
    return causal_mask(new, s) & real[:, None, None, :]
""",
            r"cached=4, new=1",
        ),
        "square": (
            """
import torch
from litformer.masks import causal_mask


def decoding_mask(padding, cached, new):
    s = cached + new
    real = torch.arange(s) >= padding[:, None]
    return causal_mask(s, s) & real[:, None, None]
""",
            r"Expected shape \(1, 1, 1, 5\)",
        ),
        "padding-inclusive": (
            """
import torch
from litformer.masks import causal_mask


def decoding_mask(padding, cached, new):
    s = cached + new
    real = torch.arange(s) > padding[:, None]
    return causal_mask(new, s) & real[:, None, None]
""",
            r"padding=\[0, 0\]",
        ),
        "int": (
            """
import torch
from litformer.masks import causal_mask


def decoding_mask(padding, cached, new):
    s = cached + new
    real = torch.arange(s) >= padding[:, None]
    return (causal_mask(new, s) & real[:, None, None]).long()
""",
            r"dtype bool, got int64",
        ),
    },
    "masks.pack": {
        "ids-from-lengths": (
            """
import torch
import torch.nn.functional as F
from litformer.masks import document_positions

def pack(documents, width):
    tokens = torch.cat(documents)
    tail = (0, width - len(tokens))
    ids = torch.cat([torch.full_like(d, len(d)) for d in documents])
    ids = F.pad(ids, tail, value=-1)[None]
    return F.pad(tokens, tail)[None], ids, document_positions(ids)
""",
            r"Positions start again|have the same id",
        ),
        "float-ids": (
            """
import torch

def pack(documents, width):
    tokens = torch.zeros(1, width, dtype=torch.long)
    ids, positions = torch.full((1, width), -1.0), torch.zeros_like(tokens)
    start = 0
    for n, document in enumerate(documents):
        end = start + len(document)
        tokens[0, start:end], ids[0, start:end] = document, n
        positions[0, start:end] = torch.arange(len(document))
        start = end
    return tokens, ids, positions
""",
            r"`ids` must hold integers",
        ),
        "positions-run-on": (
            """
import torch
import torch.nn.functional as F
def pack(documents, width):
    sizes = torch.tensor([len(d) for d in documents])
    tail = (0, width - int(sizes.sum()))
    ids = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    ids = F.pad(ids, tail, value=-1)[None]
    tokens = F.pad(torch.cat(documents), tail)[None]
    return tokens, ids, torch.arange(width)[None]
""",
            r"start again at 0",
        ),
        "tail-joins-the-first": (
            """
import torch
import torch.nn.functional as F
from litformer.masks import document_positions
def pack(documents, width):
    sizes = torch.tensor([len(d) for d in documents])
    tail = (0, width - int(sizes.sum()))
    ids = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    ids = F.pad(ids, tail)[None]
    return F.pad(torch.cat(documents), tail)[None], ids, document_positions(ids)
""",
            r"Document 0 and the tail have the same id 0",
        ),
        "one-id-for-all": (
            """
import torch
import torch.nn.functional as F
def pack(documents, width):
    n = sum(len(d) for d in documents)
    positions = torch.cat([torch.arange(len(d)) for d in documents])
    ids = torch.zeros(n, dtype=torch.long)
    tail = (0, width - n)
    return (F.pad(torch.cat(documents), tail)[None],
            F.pad(ids, tail, value=-1)[None], F.pad(positions, tail)[None])
""",
            r"Document 0 and document 1 have the same id 0",
        ),
        "without-a-batch-axis": (
            """
import torch
def pack(documents, width):
    row = torch.zeros(width, dtype=torch.long)
    return row, row, row
""",
            r"Expected shape \(1, 3\), got \(3,\)",
        ),
        "an-id-for-each-token": (
            """
import torch
import torch.nn.functional as F
def pack(documents, width):
    tokens = torch.cat(documents)
    tail = (0, width - len(tokens))
    positions = torch.cat([torch.arange(len(d)) for d in documents])
    return (F.pad(tokens, tail)[None], torch.arange(width)[None],
            F.pad(positions, tail)[None])
""",
            r"Within document 0 the ids differ",
        ),
        "order-reversed": (
            """
import torch
from litformer.masks import document_positions


def pack(documents, width):
    tokens = torch.zeros(1, width, dtype=torch.long)
    ids = torch.full((1, width), -1)
    start = 0
    for n, d in enumerate(documents[::-1]):
        tokens[0, start : start + len(d)] = d
        ids[0, start : start + len(d)] = n
        start += len(d)
    return tokens, ids, document_positions(ids)
""",
            r"in the order given",
        ),
        "alternating-ids": (
            """
import torch
from litformer.masks import document_positions


def pack(documents, width):
    tokens = torch.zeros(1, width, dtype=torch.long)
    ids = torch.full((1, width), -1)
    start = 0
    for n, d in enumerate(documents):
        tokens[0, start : start + len(d)] = d
        ids[0, start : start + len(d)] = n % 2
        start += len(d)
    return tokens, ids, document_positions(ids)
""",
            r"Document 0 and document 2 have the same",
        ),
        "tail-last-id": (
            """
import torch
from litformer.masks import document_positions


def pack(documents, width):
    tokens = torch.zeros(1, width, dtype=torch.long)
    ids = torch.zeros(1, width, dtype=torch.long)
    start = 0
    for n, d in enumerate(documents):
        tokens[0, start : start + len(d)] = d
        ids[0, start:] = n
        start += len(d)
    return tokens, ids, document_positions(ids)
""",
            r"Give the tail an id",
        ),
    },
    "masks.interpreter": {
        "not-inverted": (
            """
from einops import rearrange
def from_key_padding(ignore):
    return ignore[:, None, None, :]
def from_additive(added):
    return added == 0
def from_heads(mask, n_heads):
    return rearrange(~mask, "(b h) t s -> b h t s", h=n_heads)
""",
            r"inverted: here True means",
        ),
        "only-minus-inf": (
            """
from einops import rearrange
def from_key_padding(ignore):
    return ~ignore[:, None, None, :]
def from_additive(added):
    return ~added.isneginf()
def from_heads(mask, n_heads):
    return rearrange(~mask, "(b h) t s -> b h t s", h=n_heads)
""",
            r"lowest number as well as -inf",
        ),
        "heads-before-sequences": (
            """
from einops import rearrange
def from_key_padding(ignore):
    return ~ignore[:, None, None, :]
def from_additive(added):
    return added == 0
def from_heads(mask, n_heads):
    return rearrange(~mask, "(h b) t s -> b h t s", h=n_heads)
""",
            r"heads of one sequence are neighbours",
        ),
        "rank-two": (
            """
def from_key_padding(ignore):
    return ~ignore
def from_additive(added):
    return added == 0
def from_heads(mask, n_heads):
    return ~mask
""",
            r"Expected shape \(2, 1, 1, 4\), got \(2, 4\)",
        ),
        "additive-neg": (
            """
from einops import rearrange


def from_key_padding(ignore):
    return ~ignore[:, None, None, :]


def from_additive(added):
    return added > -1e9


def from_heads(mask, n_heads):
    return rearrange(~mask, "(b h) t s -> b h t s", h=n_heads)
""",
            r"float16[\s\S]*number type has",
        ),
        "padding-on-queries": (
            """
from einops import rearrange


def from_key_padding(ignore):
    return ~ignore[:, None, :, None]


def from_additive(added):
    return added == 0


def from_heads(mask, n_heads):
    return rearrange(~mask, "(b h) t s -> b h t s", h=n_heads)
""",
            r"Expected shape \(2, 1, 1, 4\)",
        ),
        "heads-not-inverted": (
            """
from einops import rearrange


def from_key_padding(ignore):
    return ~ignore[:, None, None, :]


def from_additive(added):
    return added == 0


def from_heads(mask, n_heads):
    return rearrange(mask, "(b h) t s -> b h t s", h=n_heads)
""",
            r"True means may not attend",
        ),
    },
    "masks.safe-softmax": {
        "repaired-afterwards": (
            """
import math

def safe_softmax(scores, mask):
    return scores.masked_fill(~mask, -math.inf).softmax(-1).nan_to_num(0)
""",
            r"A NaN arises on the way, in `softmax`",
        ),
        "calls-the-kernel": (
            """
import math
import torch
import torch.nn.functional as F

def safe_softmax(scores, mask):
    hidden = scores.masked_fill(~mask, -math.inf)[:, None]
    b, _, t, s = hidden.shape
    q, k = torch.zeros(b, 1, t, 1), torch.zeros(b, 1, s, 1)
    v = torch.eye(s).expand(b, 1, s, s)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)[:, 0]
""",
            r"calls `scaled_dot_product_attention`",
        ),
        "minus-inf-only": (
            """
import math
def safe_softmax(scores, mask):
    return scores.masked_fill(~mask, -math.inf).softmax(-1)
""",
            r"empty row became NaN",
        ),
        "large-negative-number": (
            """
def safe_softmax(scores, mask):
    return scores.masked_fill(~mask, -1e9).softmax(-1)
""",
            r"gives weight to keys that are hidden[\s\S]*uniform average",
        ),
        "after-the-softmax": (
            """
def safe_softmax(scores, mask):
    return scores.softmax(-1) * mask
""",
            r"masking after the softmax does not",
        ),
        "nan-to-num-after-adding": (
            """
import math
import torch
def safe_softmax(scores, mask):
    hidden = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    return (scores + hidden).softmax(-1).nan_to_num(0.0)
""",
            r"gradient holds NaN[\s\S]*too late",
        ),
        "adds-the-lowest": (
            """
import torch
def safe_softmax(scores, mask):
    low = torch.finfo(scores.dtype).min
    weights = (scores + torch.where(mask, 0.0, low)).softmax(-1)
    return weights * mask
""",
            r"\+inf in all hidden cells|inf - inf",
        ),
        "fill-beats-low-scores": (
            """
def safe_softmax(scores, mask):
    return scores.masked_fill(~mask, -1e9).softmax(-1) * mask
""",
            r"-1e9 stands above",
        ),
        "exp-manual-unstable": (
            """
import torch


def safe_softmax(scores, mask):
    e = scores.exp().masked_fill(~mask, 0)
    return e / e.sum(-1, keepdim=True).clamp(min=1e-9)
""",
            r"is taken off first",
        ),
        "detached": (
            """
import math


def safe_softmax(scores, mask):
    empty = ~mask.any(-1, keepdim=True)
    scores = (
        scores.detach().masked_fill(~mask, -math.inf).masked_fill(empty, 0.0)
    )
    return scores.softmax(-1).masked_fill(empty, 0.0)
""",
            r"no gradient reaches the scores",
        ),
        "double": (
            """
import math


def safe_softmax(scores, mask):
    empty = ~mask.any(-1, keepdim=True)
    scores = (
        scores.double().masked_fill(~mask, -math.inf).masked_fill(empty, 0.0)
    )
    return scores.softmax(-1).masked_fill(empty, 0.0)
""",
            r"dtype float32, got float64",
        ),
    },
    "masks.dilated": {
        "window-is-a-distance": (
            """
import torch
def dilated_mask(t, s, window, step):
    keys = torch.arange(s)
    back = keys[s - t:, None] - keys
    return (back >= 0) & (back < window) & (back % step == 0)
""",
            r"step=2",
        ),
        "top-left": (
            """
import torch
def dilated_mask(t, s, window, step):
    back = torch.arange(t)[:, None] - torch.arange(s)
    return (back >= 0) & (back < window * step) & (back % step == 0)
""",
            r"t=2, s=9[\s\S]*S - T \+ i",
        ),
        "reads-the-future": (
            """
import torch
def dilated_mask(t, s, window, step):
    keys = torch.arange(s)
    back = keys[s - t:, None] - keys
    return (back.abs() < window * step) & (back % step == 0)
""",
            r"plain sliding window",
        ),
        "absolute-columns": (
            """
import torch
def dilated_mask(t, s, window, step):
    keys = torch.arange(s)
    back = keys[s - t:, None] - keys
    return (back >= 0) & (back < window * step) & (keys % step == 0)
""",
            r"step=2[\s\S]*two before it",
        ),
        "one-too-many": (
            """
import torch
def dilated_mask(t, s, window, step):
    keys = torch.arange(s)
    back = keys[s - t:, None] - keys
    return (back >= 0) & (back <= window * step) & (back % step == 0)
""",
            r"step=1[\s\S]*plain sliding window",
        ),
        "min-keys": (
            """
import torch


def dilated_mask(t, s, window, step):
    keys = torch.arange(s)
    back = keys[s - t :, None] - keys
    return (back >= 0) & (back < (window - 1) * step) & (back % step == 0)
""",
            r"plain sliding window",
        ),
        "wrap": (
            """
import torch


def dilated_mask(t, s, window, step):
    m = torch.zeros(t, s, dtype=torch.bool)
    for i in range(t):
        for n in range(window):
            m[i, s - t + i - n * step] = True
    return m
""",
            r"plain sliding window",
        ),
        "ignores-step": (
            """
from litformer.masks import sliding_window_mask


def dilated_mask(t, s, window, step):
    return sliding_window_mask(t, s, window=window)
""",
            r"two before it",
        ),
    },
}
