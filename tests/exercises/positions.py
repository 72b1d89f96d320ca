"""Mistakes that people make in the exercises of chapters/positions.md."""

MUTANTS = {
    "positions.never-round": {
        "counted-the-others": (
            """
import math

def never_round(head_dim, length, base=10_000.0):
    waves = [2 * math.pi * base ** (2 * i / head_dim)
             for i in range(head_dim // 2)]
    return sum(w <= length for w in waves)
""",
            r"\*do\* complete a turn",
        ),
        "a-turn-is-one-radian": (
            """
def never_round(head_dim, length, base=10_000.0):
    return sum(base ** (2 * i / head_dim) > length
               for i in range(head_dim // 2))
""",
            r"2 pi radians",
        ),
        "the-2-of-2i-forgotten": (
            """
import math

def never_round(head_dim, length, base=10_000.0):
    return sum(2 * math.pi * base ** (i / head_dim) > length
               for i in range(head_dim // 2))
""",
            r"the 2 is missing",
        ),
        "as-many-pairs-as-coordinates": (
            """
import math

def never_round(head_dim, length, base=10_000.0):
    return sum(2 * math.pi * base ** (i / head_dim) > length
               for i in range(head_dim))
""",
            r"not head_dim",
        ),
        "base-ignored": (
            """
import math

def never_round(head_dim, length, base=10_000.0):
    return sum(2 * math.pi * 10_000 ** (2 * i / head_dim) > length
               for i in range(head_dim // 2))
""",
            r"ignores the base",
        ),
    },
    "positions.step-matrix": {
        "base-ignored": (
            """
import torch

def step_matrix(k, d_model, base=10_000.0):
    angles = k * 10_000.0 ** -(torch.arange(0, d_model, 2) / d_model)
    return torch.block_diag(*[
        torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]])
        for a in angles])
""",
            r"Is `base` used",
        ),
        "usual-rotation-matrix": (
            """
import torch

def step_matrix(k, d_model, base=10_000.0):
    angles = k * base ** -(torch.arange(0, d_model, 2) / d_model)
    return torch.block_diag(*[
        torch.tensor([[a.cos(), -a.sin()], [a.sin(), a.cos()]])
        for a in angles])
""",
            r"transpose",
        ),
        "pairs-of-halves": (
            """
import torch

def step_matrix(k, d_model, base=10_000.0):
    angles = k * base ** -(torch.arange(0, d_model, 2) / d_model)
    c, s = angles.cos().diag(), angles.sin().diag()
    return torch.cat([torch.cat([c, s], 1), torch.cat([-s, c], 1)])
""",
            r"neighbours",
        ),
        "one-speed": (
            """
import torch

def step_matrix(k, d_model, base=10_000.0):
    a = torch.tensor(float(k))
    block = torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]])
    return torch.block_diag(*[block] * (d_model // 2))
""",
            r"by one angle",
        ),
        "identity": (
            """
import torch

def step_matrix(k, d_model, base=10_000.0):
    return torch.eye(d_model)
""",
            r"k = 1, d_model = 2",
        ),
        "one-block": (
            """
import torch

def step_matrix(k, d_model, base=10_000.0):
    a = torch.tensor(float(k))
    return torch.tensor([[a.cos(), a.sin()], [-a.sin(), a.cos()]])
""",
            r"shape \(8, 8\)",
        ),
    },
    "positions.point-back": {
        "alibi": (
            """
import torch

def point_back(t, back=3):
    place = torch.arange(t)
    return -10.0 * (place[:, None] - place).abs()
""",
            r"peak is on the query itself",
        ),
        "rows-and-columns-exchanged": (
            """
import torch

def point_back(t, back=3):
    place = torch.arange(t)
    return -10.0 * (place - place[:, None] - back).abs()
""",
            r"peak is on the query itself|Rows are queries",
        ),
        "too-small-an-advantage": (
            """
import torch

def point_back(t, back=3):
    place = torch.arange(t)
    return 8.0 * (place[:, None] - place == back).float()
""",
            r"99 \* 4096",
        ),
        "minus-infinity": (
            """
import torch

def point_back(t, back=3):
    place = torch.arange(t)
    hit = place[:, None] - place == back
    return torch.zeros(t, t).masked_fill(~hit, -torch.inf)
""",
            r"must be finite",
        ),
        "always-three": (
            """
import torch

def point_back(t, back=3):
    place = torch.arange(t)
    return -10.0 * (place[:, None] - place - 3).abs()
""",
            r"The peak is 3 places back",
        ),
        "constant": (
            """
import torch

def point_back(t, back=3):
    return torch.ones(t, t)
""",
            r"constant",
        ),
    },
    "positions.to-half": {
        "the-way-back": (
            """
def to_half(weight, n_heads):
    rows = weight.unflatten(0, (n_heads, 2, -1))
    return rows.transpose(1, 2).reshape(weight.shape)
""",
            r"way back",
        ),
        "across-the-heads": (
            """
import torch

def to_half(weight, n_heads):
    return torch.cat([weight[0::2], weight[1::2]])
""",
            r"within each head",
        ),
        "view-and-back": (
            """
def to_half(weight, n_heads):
    return weight.unflatten(0, (n_heads, -1, 2)).reshape(weight.shape)
""",
            r"Nothing moved",
        ),
        "second-coordinates-first": (
            """
import torch

def to_half(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    return torch.cat([heads[:, 1::2], heads[:, 0::2]], 1).flatten(0, 1)
""",
            r"halves are exchanged",
        ),
    },
    "positions.half-lives": {
        "one-over-e": (
            """
import torch

def half_lives(n_heads):
    return 2 ** (8 * torch.arange(1, n_heads + 1) / n_heads)
""",
            r"Half takes ln 2",
        ),
        "times-the-slope": (
            """
import math
import torch

def half_lives(n_heads):
    return math.log(2) * 2 ** (-8 * torch.arange(1, n_heads + 1) / n_heads)
""",
            r"divide instead",
        ),
        "slopes-from-one": (
            """
import math
import torch

def half_lives(n_heads):
    return math.log(2) * 2 ** (8 * torch.arange(n_heads) / n_heads)
""",
            r"start at h = 1",
        ),
        "eight-heads-always": (
            """
import math
import torch

def half_lives(n_heads):
    return math.log(2) * 2.0 ** torch.arange(1, n_heads + 1)
""",
            r"eight heads",
        ),
        "flat-head-first": (
            """
import math
import torch

def half_lives(n_heads):
    head = torch.arange(n_heads, 0, -1)
    return math.log(2) * 2 ** (8 * head / n_heads)
""",
            r"steepest",
        ),
    },
    "positions.bucket": {
        "rounds-to-nearest": (
            """
import math

def bucket(away, n_buckets=32, max_distance=128):
    exact = n_buckets // 2
    if away < exact:
        return away
    share = math.log(away / exact) / math.log(max_distance / exact)
    return min(round(exact + share * (n_buckets - exact)), n_buckets - 1)
""",
            r"Round down",
        ),
        "equal-steps": (
            """
def bucket(away, n_buckets=32, max_distance=128):
    exact = n_buckets // 2
    if away < exact:
        return away
    share = (away - exact) / (max_distance - exact)
    return min(int(exact + share * (n_buckets - exact)), n_buckets - 1)
""",
            r"equal ratio",
        ),
        "no-last-bucket": (
            """
import math

def bucket(away, n_buckets=32, max_distance=128):
    exact = n_buckets // 2
    if away < exact:
        return away
    share = math.log(away / exact) / math.log(max_distance / exact)
    return exact + int(share * (n_buckets - exact))
""",
            r"is in bucket 31",
        ),
        "forgot-the-exact-ones": (
            """
import math

def bucket(away, n_buckets=32, max_distance=128):
    exact = n_buckets // 2
    if away < exact:
        return away
    share = math.log(away / exact) / math.log(max_distance / exact)
    return min(int(share * (n_buckets - exact)), n_buckets - 1)
""",
            r"Add the 16",
        ),
        "ratio-from-one": (
            """
import math

def bucket(away, n_buckets=32, max_distance=128):
    exact = n_buckets // 2
    if away < exact:
        return away
    share = math.log(away) / math.log(max_distance)
    return min(exact + int(share * (n_buckets - exact)), n_buckets - 1)
""",
            r"counts from 16",
        ),
    },
    "positions.obeys-shift": {
        "one-shift-of-two": (
            """
import torch

def obeys_shift(score):
    q, k = torch.ones(2, 8)
    return abs(float(score(q, k, 5, 3)) - float(score(q, k, 7, 5))) < 1e-3
""",
            r"It does not",
        ),
        "changes-the-distance": (
            """
import torch

def obeys_shift(score):
    q, k = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    return all(
        abs(float(score(q, k, 5, 3)) - float(score(q, k, 5 + c, 3))) < 1e-3
        for c in range(50))
""",
            r"distance itself changed",
        ),
        "no-tolerance": (
            """
import torch

def obeys_shift(score):
    make = torch.Generator().manual_seed(0)
    for _ in range(100):
        q, k = torch.randn(2, 8, generator=make)
        m, n, c = torch.randint(0, 251, (3,), generator=make).tolist()
        if float(score(q, k, m, n)) != float(score(q, k, m + c, n + c)):
            return False
    return True
""",
            r"tolerance too tight",
        ),
        "small-places-only": (
            """
import torch

def obeys_shift(score):
    make = torch.Generator().manual_seed(0)
    for _ in range(100):
        q, k = torch.randn(2, 8, generator=make)
        m, n, c = torch.randint(0, 50, (3,), generator=make).tolist()
        gap = float(score(q, k, m, n)) - float(score(q, k, m + c, n + c))
        if abs(gap) > 1e-3:
            return False
    return True
""",
            r"stops beyond place 400",
        ),
    },
    "positions.find-layout": {
        "only-looks-at-the-partner": (
            """
import torch

def find_layout(rotate):
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1
    out = rotate(x, torch.tensor([1])).flatten().abs() > 1e-6
    if out[1]:
        return "interleaved"
    return "half" if out[4] else "broken"
""",
            r"turns the other way|base 1000",
        ),
        "position-zero": (
            """
import torch

def find_layout(rotate):
    x = torch.randn(1, 1, 1, 8)
    out = rotate(x, torch.tensor([0]))
    return "half" if torch.allclose(out, x) else "broken"
""",
            r"the function: interleaved[\s\S]*The other one",
        ),
        "keeps-lengths": (
            """
import torch

def find_layout(rotate):
    x = torch.zeros(1, 1, 1, 8)
    x[..., 0] = 1
    out = rotate(x, torch.tensor([3])).flatten()
    if abs(out.norm() - 1) > 1e-4:
        return "broken"
    return "interleaved" if out[1].abs() > 1e-6 else "half"
""",
            r"turns the other way",
        ),
        "tolerance-too-tight": (
            """
import torch

def find_layout(rotate):
    from litformer.positions import RotaryEmbedding
    x = torch.randn(1, 1, 3, 8, dtype=torch.float64)
    p = torch.tensor([0, 1, 1000])
    for name in ("interleaved", "half"):
        want = RotaryEmbedding(8, interleaved=name == "interleaved")(x, p)
        if torch.equal(rotate(x.float(), p).double(), want):
            return name
    return "broken"
""",
            r"It is sound",
        ),
    },
}
