"""AdamW against torch's, and `train` against a bare loop.

The optimisers step parameters of small and of larger networks; the loops train
the same network on the same batches with the same optimiser, and end with the
same weights. Goal: not slower. Run one file with
`python -m pytest tests/benchmarks/bench_training.py -s`.
"""

import pytest
import torch
from torch import nn

from benchmarks.harness import compare, publish
from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.feedforward import FeedForward
from litformer.losses import cross_entropy
from litformer.optim import AdamW, warmup_linear
from litformer.training import train

V, T = 65, 32


class Model(nn.Module):
    """A small pre-norm decoder."""

    def __init__(self, d_model, layers):
        super().__init__()
        self.embed = nn.Embedding(V, d_model)
        self.blocks = nn.ModuleList(
            Block(
                d_model,
                MultiHeadAttention(d_model, 4),
                FeedForward(d_model, 4 * d_model),
            )
            for _ in range(layers)
        )
        self.read = nn.Linear(d_model, V)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, causal=True)
        return self.read(x)


def model(d_model, layers):
    torch.manual_seed(0)
    return Model(d_model, layers)


SIZES = {"4 layers of width 32": (32, 4), "6 layers of width 256": (256, 6)}


def test_step_of_adamw():
    cases = {}
    for name, size in SIZES.items():
        nets = [model(*size) for _ in range(4)]
        for net in nets:
            make = torch.Generator().manual_seed(1)
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=make)
        options = dict(lr=1e-3, weight_decay=0.1)
        ours, foreach, loop, fused = (
            AdamW(nets[0].parameters(), **options),
            torch.optim.AdamW(nets[1].parameters(), foreach=True, **options),
            torch.optim.AdamW(nets[2].parameters(), foreach=False, **options),
            torch.optim.AdamW(nets[3].parameters(), fused=True, **options),
        )
        for optimizer in (ours, foreach):
            optimizer.step()
        for p, q in zip(
            nets[0].parameters(), nets[1].parameters(), strict=True
        ):
            torch.testing.assert_close(p, q)
        cases[name] = compare(
            {
                "ours": ours.step,
                "torch, foreach": foreach.step,
                "torch, one by one": loop.step,
                "torch, fused": fused.step,
            }
        )
    publish(
        "training",
        "adamw",
        title="One step of AdamW",
        what="All parameters of a small decoder, gradients given.",
        cases=cases,
        missed="The fused kernel is one pass in C++, where ours reads and "
        "writes each tensor about ten times; hand it to `train` for speed.",
    )


def token_loss(net, batch):
    x, y = batch
    return cross_entropy(net(x), y, reduction="sum"), y.numel()


def bare(net, data, optimizer, steps, schedule):
    """What one writes without `train`."""
    losses = []
    for step in range(steps):
        x, y = data[step % len(data)]
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x).flatten(0, 1), y.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * schedule(step)
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_train_against_a_bare_loop():
    cases = {}
    make = torch.Generator().manual_seed(2)
    for name, (d_model, layers), b in (
        ("width 32, batch 8", (32, 4), 8),
        ("width 128, batch 12", (128, 4), 12),
    ):
        x = torch.randint(V, (7, b, T), generator=make)
        data = [(part, part.roll(-1, 1)) for part in x]
        steps = 14 if d_model < 100 else 7
        schedule = warmup_linear(2, steps)

        def ours(
            net=None,
            size=(d_model, layers),
            data=data,
            steps=steps,
            schedule=schedule,
        ):
            net = model(*size)
            optimizer = AdamW(net.parameters(), lr=1e-3)
            return train(
                net, data, token_loss, optimizer, steps=steps,
                schedule=schedule, progress=False,
            ).losses  # fmt: skip

        def theirs(
            size=(d_model, layers), data=data, steps=steps, schedule=schedule
        ):
            net = model(*size)
            optimizer = AdamW(net.parameters(), lr=1e-3)
            return bare(net, data, optimizer, steps, schedule)

        assert ours() == pytest.approx(theirs(), rel=1e-4)
        cases[name] = compare({"ours": ours, "a bare loop": theirs}, rounds=15)
    publish(
        "training",
        "loop",
        title="`train` against a bare loop",
        what="The same steps of a decoder of four layers, clipped, with a "
        "schedule; `train` also checks each step and keeps its history.",
        cases=cases,
    )
