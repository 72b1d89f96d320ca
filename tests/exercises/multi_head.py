"""Wrong answers to the exercises of chapters/multi_head.md, as people give.

id -> name of the mistake -> (code instead of the solution, what must be said).
"""


def _count(formula):
    return (
        "def parameters(d_model, n_heads, n_kv_heads, head_dim, d_context, "
        f"bias):\n    d, h, g, dh, dc = (d_model, n_heads, n_kv_heads, "
        f"head_dim, d_context)\n    return {formula}\n"
    )


def _operations(formula):
    return (
        "def operations(t, s, d_model, n_heads, n_kv_heads):\n"
        "    d, kv = d_model, n_kv_heads * (d_model // n_heads)\n"
        f"    return {formula}\n"
    )


_MERGE = """
def merge(y):
    return y.transpose(1, 2).flatten(-2)
"""
_SPLIT = """
def split(x, n_heads):
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)
"""


def _unpack(body):
    return (
        f"from einops import rearrange\n\ndef unpack(weight, n_heads):\n{body}"
    )


def _killer(**changes):
    sizes = dict(d_model=12, n_heads=4, n_kv_heads=2, t=5, s=7, causal=True)
    return f"def killer():\n    return {dict(sizes, **changes)}\n"


def _tables(changes):
    return f"""
import torch

def tables():
    people, none = torch.eye(8), torch.zeros(8, 8)
    first, last = torch.cat([people, none], 1), torch.cat([none, people], 1)
    contents = torch.eye(16)
    made = dict(giver_key=first, receiver_key=last, giver_query=80 * first,
                receiver_query=80 * last, value=contents,
                readout=40 * torch.stack([contents, contents]))
    made.update({changes})
    return made
"""


MUTANTS = {
    "multi_head.count": {
        "biases-always": (
            _count("2*d*h*dh + 2*dc*g*dh + (h + 2*g)*dh + d"),
            r"no biases here",
        ),
        "no-biases": (
            _count("2*d*h*dh + 2*dc*g*dh"),
            r"weights alone; there are biases",
        ),
        "all-heads-have-keys": (
            _count("2*d*h*dh + 2*dc*h*dh + bias*(3*h*dh + d)"),
            r"n_kv_heads heads, not n_heads",
        ),
        "no-output-projection": (
            _count("d*h*dh + 2*dc*g*dh + bias*(h + 2*g)*dh"),
            r"output projection is missing",
        ),
        "context-forgotten": (
            _count("2*d*h*dh + 2*d*g*dh + bias*((h + 2*g)*dh + d)"),
            r"read the context",
        ),
        "head-dim-ignored": (
            _count("2*d*d + 2*dc*g*(d//h) + bias*((h + 2*g)*(d//h) + d)"),
            r"width head_dim",
        ),
    },
    "multi_head.split-and-merge": {
        "view": (
            """
def split(x, n_heads):
    b, t, d = x.shape
    return x.view(b, n_heads, t, d // n_heads)
"""
            + _MERGE,
            r"This is a view",
        ),
        "width-outside": (
            """
def split(x, n_heads):
    return x.unflatten(-1, (-1, n_heads)).permute(0, 3, 1, 2)
"""
            + _MERGE,
            r"taken in turn",
        ),
        "no-transpose-in-merge": (
            _SPLIT
            + """
def merge(y):
    b, h, t, d = y.shape
    return y.reshape(b, t, h * d)
""",
            r"must change places before",
        ),
        "interleaved-merge": (
            _SPLIT
            + """
def merge(y):
    return y.permute(0, 2, 3, 1).flatten(-2)
""",
            r"heads are interleaved",
        ),
        "detached": (
            """
def split(x, n_heads):
    return x.detach().unflatten(-1, (n_heads, -1)).transpose(1, 2)
"""
            + _MERGE,
            r"gradient got lost",
        ),
    },
    "multi_head.operations": {
        "multiplications-only": (
            _operations("2*t*d*d + 2*s*d*kv + 2*t*s*d"),
            r"counts as 2",
        ),
        "context-as-long-as-the-text": (
            _operations("4*t*d*d + 4*t*d*kv + 4*t*s*d"),
            r"made for the s tokens",
        ),
        "groups-ignored": (
            _operations("4*t*d*d + 4*s*d*d + 4*t*s*d"),
            r"n_kv_heads heads",
        ),
        "times-the-heads": (
            _operations("4*t*d*d + 4*s*d*kv + 4*t*s*d*n_heads"),
            r"n_heads cancels",
        ),
        "groups-save-scores": (
            _operations("4*t*d*d + 4*s*d*kv + 4*t*s*kv"),
            r"scores of its own",
        ),
        "no-averages": (
            _operations("4*t*d*d + 4*s*d*kv + 2*t*s*d"),
            r"averages are a product too",
        ),
        "no-output-projection": (
            _operations("2*t*d*d + 4*s*d*kv + 4*t*s*d"),
            r"output projection is missing",
        ),
    },
    "multi_head.silence": {
        "rows-instead-of-columns": (
            """
import copy

def without_head(layer, x, h):
    layer = copy.deepcopy(layer)
    d = layer.head_dim
    layer.o_proj.weight.data[h * d : (h + 1) * d] = 0
    return layer(x)
""",
            r"leaves out rows",
        ),
        "every-third-column": (
            """
import copy

def without_head(layer, x, h):
    layer = copy.deepcopy(layer)
    layer.o_proj.weight.data[:, h :: layer.n_heads] = 0
    return layer(x)
""",
            r"stand together",
        ),
        "layer-changed": (
            """
def without_head(layer, x, h):
    d = layer.head_dim
    layer.o_proj.weight.data[:, h * d : (h + 1) * d] = 0
    return layer(x)
""",
            r"must stay as it was",
        ),
        "attend-not-put-back": (
            """
def without_head(layer, x, h):
    attend = layer.attend
    def silenced(*args, **kwargs):
        out = attend(*args, **kwargs).clone()
        out[:, h] = 0
        return out
    layer.attend = silenced
    return layer(x)
""",
            r"Put `attend` back",
        ),
        "queries-zeroed": (
            """
import copy

def without_head(layer, x, h):
    layer = copy.deepcopy(layer)
    d = layer.head_dim
    layer.q_proj.weight.data[h * d : (h + 1) * d] = 0
    layer.q_proj.bias.data[h * d : (h + 1) * d] = 0
    return layer(x)
""",
            r"plain mean of its values",
        ),
        "scaled-up": (
            """
def without_head(layer, x, h):
    attend = layer.attend
    def silenced(*args, **kwargs):
        out = attend(*args, **kwargs).clone()
        out[:, h] = 0
        return out * layer.n_heads / (layer.n_heads - 1)
    layer.attend = silenced
    try:
        return layer(x)
    finally:
        layer.attend = attend
""",
            r"scaled up",
        ),
    },
    "multi_head.foreign-checkpoint": {
        "chunks": (
            _unpack("    return weight.chunk(3)\n"),
            r"order of GPT-2",
        ),
        "every-third-row": (
            _unpack(
                "    return tuple(rearrange(weight, '(h d c) e -> c (h d) e', "
                "h=n_heads, c=3))\n"
            ),
            r"takes every third row",
        ),
        "heads-interleaved": (
            _unpack(
                "    return tuple(rearrange(weight, '(h c d) e -> c (d h) e', "
                "h=n_heads, c=3))\n"
            ),
            r"come out interleaved",
        ),
        "keys-first": (
            _unpack(
                "    q, k, v = rearrange(weight, '(h c d) e -> c (h d) e', "
                "h=n_heads, c=3)\n    return k, v, q\n"
            ),
            r"queries first",
        ),
        "one-tensor": (
            _unpack(
                "    return rearrange(weight, '(h c d) e -> (c h d) e', "
                "h=n_heads, c=3)\n"
            ),
            r"Three weights are asked for",
        ),
    },
    "multi_head.kill-the-mutants": {
        "one-head": (
            _killer(n_heads=1, n_kv_heads=1),
            r"splits with view",
        ),
        "width-one": (
            _killer(n_heads=12, n_kv_heads=2),
            r"merges in the wrong order",
        ),
        "no-groups": (_killer(n_kv_heads=4), r"wrong key head"),
        "one-group": (_killer(n_kv_heads=1), r"wrong key head"),
        "no-context": (_killer(s=None), r"ignores the context"),
        "no-mask": (_killer(causal=False), r"looks one token ahead"),
        "refused": (_killer(t=7, s=5), r"right version refuses this"),
    },
    "multi_head.who-can-win": {
        "everyone": (
            """
import torch

def can_win(keys):
    return torch.ones(len(keys), dtype=torch.bool)
""",
            r"lie between the others",
        ),
        "queries-along-the-axes": (
            """
def can_win(keys):
    return (keys == keys.amax(0)).any(1) | (keys == keys.amin(0)).any(1)
""",
            r"tie|along an axis",
        ),
        "each-key-as-its-own-query": (
            """
import torch

def can_win(keys):
    scores = keys @ keys.T
    return torch.isin(torch.arange(len(keys)), scores.argmax(1))
""",
            r"also far from the key's own|any direction",
        ),
        "ties-count": (
            """
import torch

def can_win(keys):
    angle = torch.arange(3600, dtype=torch.double) * torch.pi / 1800
    scores = torch.stack([angle.cos(), angle.sin()], 1) @ keys.double().T
    return (scores >= scores.amax(1, keepdim=True) - 1e-9).any(0)
""",
            r"must win alone",
        ),
    },
    "multi_head.better-blend": {
        "one-relation": (
            _tables("dict(receiver_query=0 * last)"),
            r"chooses one relation",
        ),
        "whispered-query": (
            _tables("dict(giver_query=first, receiver_query=last)"),
            r"Longer queries",
        ),
        "unmatched": (
            _tables("dict(giver_query=80 * last, receiver_query=80 * first)"),
            r"Do queries match their keys|hardly found",
        ),
        "one-louder": (
            _tables(
                "dict(giver_query=88 * first, readout=400 * made['readout'])"
            ),
            r"too sure of one|chooses one relation",
        ),
        "missing-table": (
            "def tables():\n    return {}\n",
            r"A dict is asked for",
        ),
    },
}
