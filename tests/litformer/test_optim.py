"""AdamW against torch.optim.AdamW, schedules against their formulas."""

import copy
import math

import pytest
import torch
from torch import nn

from litformer.optim import (
    AdamW,
    adamw_update,
    decay_groups,
    inverse_sqrt,
    warmup_cosine,
    warmup_linear,
)


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Embedding(13, 5), nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)
    )


def paths(make_ours, make_theirs, *, steps=60, silent=(), dtype=torch.float32):
    """All parameters of two equal networks after each step, side by side.

    In the steps in `silent`, the first layer gets no gradient.
    """
    ours, theirs = small_net().to(dtype), small_net().to(dtype)
    a, b = make_ours(ours), make_theirs(theirs)
    make = torch.Generator().manual_seed(1)
    for step in range(steps):
        x = torch.randint(13, (11,), generator=make)
        scale = 10.0 ** torch.randn(3, generator=make).to(dtype)
        for net, optimizer in ((ours, a), (theirs, b)):
            optimizer.zero_grad()
            (net(x) * scale).square().sum().backward()
            if step in silent:
                net[1].weight.grad = None
            optimizer.step()
        yield from zip(ours.parameters(), theirs.parameters(), strict=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr": 0.03, "weight_decay": 0.3},
        {"lr": 0.01, "weight_decay": 0.0, "betas": (0.8, 0.95)},
        {"lr": 0.1, "eps": 1e-3, "betas": (0.0, 0.5)},
    ],
)
def test_adamw_walks_torchs_path(options):
    for ours, theirs in paths(
        lambda net: AdamW(net.parameters(), **options),
        lambda net: torch.optim.AdamW(net.parameters(), **options),
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_adamw_walks_torchs_path_in_groups():
    for ours, theirs in paths(
        lambda net: AdamW(decay_groups(net, 0.2), lr=0.02),
        lambda net: torch.optim.AdamW(decay_groups(net, 0.2), lr=0.02),
        dtype=torch.double,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_a_parameter_that_sits_out_keeps_its_own_age():
    for ours, theirs in paths(
        lambda net: AdamW(net.parameters(), lr=0.02),
        lambda net: torch.optim.AdamW(net.parameters(), lr=0.02),
        silent={0, 1, 2, 7, 30},
        dtype=torch.double,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_adamw_is_the_papers_formula():
    """Algorithm 2 in a plain loop over numbers, in double precision."""
    lr, b1, b2, eps, decay = 0.1, 0.7, 0.9, 1e-6, 0.05
    make = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 5, generator=make, dtype=torch.double)
    p, m, v = weight.clone(), torch.zeros_like(weight), torch.zeros_like(weight)
    want = [[w, 0.0, 0.0] for w in weight.flatten().tolist()]
    for t in range(1, 8):
        g = torch.randn(3, 5, generator=make, dtype=torch.double)
        adamw_update(
            [p], [g], [m], [v],
            step=t, lr=lr, betas=(b1, b2), eps=eps, weight_decay=decay,
        )  # fmt: skip
        for entry, slope in zip(want, g.flatten().tolist(), strict=True):
            w, mean, square = entry
            mean = b1 * mean + (1 - b1) * slope
            square = b2 * square + (1 - b2) * slope**2
            direction = (mean / (1 - b1**t)) / (
                math.sqrt(square / (1 - b2**t)) + eps
            )
            entry[:] = w - lr * decay * w - lr * direction, mean, square
        got = p.flatten().tolist()
        assert got == pytest.approx([e[0] for e in want], rel=1e-12)


def test_decay_is_decoupled_from_the_gradient():
    """With zero gradients a weight shrinks by 1 - lr * decay each step."""
    p = nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.double))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.5)
    for _ in range(3):
        p.grad = torch.zeros_like(p)
        optimizer.step()
    want = torch.tensor([2.0, -3.0], dtype=torch.double) * 0.95**3
    torch.testing.assert_close(p.detach(), want)


def test_the_first_step_has_length_lr_whatever_the_gradient():
    p = nn.Parameter(torch.zeros(4))
    optimizer = AdamW([p], lr=0.01, weight_decay=0.0)
    p.grad = torch.tensor([1e4, -2.0, 1e-3, -1e-5])
    optimizer.step()
    want = -0.01 * p.grad.sign()
    torch.testing.assert_close(p.detach(), want, atol=0, rtol=2e-3)


def test_adamw_state_dict_round_trip_goes_on_exactly():
    net, other = small_net(), small_net()
    a = AdamW(net.parameters(), lr=0.05)
    x = torch.arange(13)

    def step(net, optimizer):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()

    for _ in range(3):
        step(net, a)
    other.load_state_dict(net.state_dict())
    b = AdamW(other.parameters(), lr=1.0)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    assert b.param_groups[0]["lr"] == 0.05
    for _ in range(3):
        step(net, a)
        step(other, b)
    for p, q in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)


def test_adamw_takes_a_closure_and_ignores_unused_parameters():
    p, unused = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))
    optimizer = AdamW([p, unused], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 3.0
    assert optimizer.step(closure).item() < 3.0
    assert torch.equal(unused.detach(), torch.ones(2))
    assert unused not in optimizer.state


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "AdamW: lr must be 0 or more, got -1.0"),
        ({"lr": math.nan}, "AdamW: lr must be 0 or more, got nan"),
        ({"eps": -1e-8}, "AdamW: eps must be 0 or more"),
        ({"weight_decay": -0.1}, "AdamW: weight_decay must be 0 or more"),
        ({"betas": (1.0, 0.9)}, r"AdamW: betas must be in \[0, 1\)"),
        ({"betas": (0.9, -0.1)}, r"AdamW: betas must be in \[0, 1\)"),
    ],
)
def test_adamw_refuses_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        AdamW([nn.Parameter(torch.ones(1))], **options)
    with pytest.raises(ValueError, match=message):
        AdamW([{"params": [nn.Parameter(torch.ones(1))], **options}])


def test_adamw_refuses_sparse_gradients():
    table = nn.Embedding(7, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="AdamW: a gradient is sparse"):
        AdamW(table.parameters()).step()


def test_decay_groups_sorts_by_what_a_parameter_is():
    net = small_net()
    net[3].bias.requires_grad_(False)
    decay, rest = decay_groups(net, 0.3)
    assert decay["weight_decay"] == 0.3
    assert rest["weight_decay"] == 0.0
    name = {id(p): n for n, p in net.named_parameters()}
    assert [name[id(p)] for p in decay["params"]] == ["1.weight", "3.weight"]
    assert [name[id(p)] for p in rest["params"]] == [
        "0.weight",
        "1.bias",
        "2.weight",
        "2.bias",
    ]


def test_decay_groups_of_a_tied_head_and_of_one_kind():
    tied = nn.ModuleDict({"embed": nn.Embedding(7, 3)})
    tied["head"] = nn.Linear(3, 7, bias=False)
    tied["head"].weight = tied["embed"].weight
    (only,) = decay_groups(tied, 0.1)
    assert only["weight_decay"] == 0.0
    assert len(only["params"]) == 1
    (only,) = decay_groups(nn.Linear(3, 2, bias=False), 0.1)
    assert only["weight_decay"] == 0.1


def test_warmup_linear():
    factor = warmup_linear(4, 10)
    got = [factor(step) for step in range(12)]
    want = [1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0, 0]
    assert got == pytest.approx(want)
    assert warmup_linear(0, 5)(0) == 1.0


def test_warmup_cosine():
    factor = warmup_cosine(4, 24, floor=0.2)
    assert [factor(s) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert factor(4) == pytest.approx(1.0)
    assert factor(14) == pytest.approx(0.6)  # half way: the middle of 1 and .2
    assert factor(9) == pytest.approx(0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2)
    assert factor(24) == pytest.approx(0.2)
    assert factor(1000) == pytest.approx(0.2)
    falling = [factor(s) for s in range(4, 25)]
    assert falling == sorted(falling, reverse=True)


def test_inverse_sqrt_is_equation_3():
    d_model, warmup = 512, 4000
    rate = inverse_sqrt(d_model, warmup)
    for number in (1, 2, 3999, 4000, 4001, 16_000, 100_000):
        want = d_model**-0.5 * min(number**-0.5, number * warmup**-1.5)
        assert rate(number - 1) == pytest.approx(want, rel=1e-12)
    peak = max(range(20_000), key=rate)
    assert peak == warmup - 1
    assert rate(peak) == pytest.approx(1 / math.sqrt(d_model * warmup))


@pytest.mark.parametrize("schedule", [warmup_linear, warmup_cosine])
@pytest.mark.parametrize(("warmup", "total"), [(-1, 5), (5, 5), (0, 0)])
def test_a_warmup_must_fit(schedule, warmup, total):
    who = schedule.__name__
    with pytest.raises(ValueError, match=f"{who}: warmup must be in 0 to"):
        schedule(warmup, total)


@pytest.mark.parametrize("arguments", [(0, 10), (64, 0)])
def test_inverse_sqrt_refuses(arguments):
    with pytest.raises(ValueError, match="inverse_sqrt: needs d_model >= 1"):
        inverse_sqrt(*arguments)
