"""`MoE` against Hugging Face's Mixtral block, and against dense layers.

Forward and backward, with gradients of the input and of all weights. Two
sizes: few wide experts, and many thin ones, where dispatch is what costs.
Both sides must first agree to 1e-4. Hugging Face's block is timed in its
default form, a loop over experts, and with its grouped products.

Two more candidates take our layer apart. One serves all experts at once,
instead of block by block. The other is the floor under every sparse layer: the
products of the experts alone, on rows that were sorted and copied beforehand,
without router, weights or sums.
"""

import pytest
import torch
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock

from benchmarks.harness import compare, peak_mib, publish
from litformer import moe as module
from litformer.feedforward import GatedFeedForward
from litformer.moe import Experts, GroupedExperts, MoE, TopKRouter

CASES = {
    # name: (tokens, width, width of an expert, experts, experts a token)
    "8 experts of 512, 2 used": (4096, 256, 512, 8, 2),
    "64 experts of 64, 8 used": (2048, 256, 64, 64, 8),
}


def mixtral(d, ff, e, k, how):
    config = MixtralConfig(
        hidden_size=d,
        intermediate_size=ff,
        num_local_experts=e,
        num_experts_per_tok=k,
    )
    config._experts_implementation = how
    return MixtralSparseMoeBlock(config)


def layers(d, ff, e, k):
    """Our two forms and theirs, with the same weights; and a dense layer."""
    torch.manual_seed(0)
    router = TopKRouter(d, e, top_k=k)
    ours = MoE(router, GroupedExperts(e, d, ff))
    loop = MoE(router, Experts(e, lambda: GatedFeedForward(d, ff, bias=False)))
    stacks = ours.experts
    with torch.no_grad():
        for i, expert in enumerate(loop.experts.experts):
            expert.gate_proj.weight.copy_(stacks.gate_proj[i])
            expert.up_proj.weight.copy_(stacks.up_proj[i])
            expert.down_proj.weight.copy_(stacks.down_proj[i])
    theirs = {how: mixtral(d, ff, e, k, how) for how in ("eager", "grouped_mm")}
    for block in theirs.values():
        with torch.no_grad():
            block.gate.weight.copy_(router.weight)
            both = torch.cat([stacks.gate_proj, stacks.up_proj], 1)
            block.experts.gate_up_proj.copy_(both)
            block.experts.down_proj.copy_(stacks.down_proj)
    return {
        "ours": ours,
        "our loop": loop,
        "Hugging Face": theirs["eager"],
        "Hugging Face, grouped": theirs["grouped_mm"],
        "dense, same work": GatedFeedForward(d, k * ff, bias=False),
    }


def train(layer, x):
    """Forward and backward of one layer."""
    leaves = [x, *layer.parameters()]
    ones = torch.ones_like(x)
    return lambda: torch.autograd.grad(layer(x), leaves, ones)


def at_once(call):
    """The same call, with all experts in one block."""

    def run():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "experts_at_once", lambda _, e, __: e)
            return call()

    return run


def products(layer, x):
    """Forward and backward of the experts only, each on its rows."""
    experts = layer.experts.experts
    routing = layer.router(x[0].detach())
    with torch.no_grad():
        tokens = [
            (routing.experts == i).nonzero()[:, 0] for i in range(len(experts))
        ]
        rows = [x[0][token].requires_grad_() for token in tokens]
    leaves = [*rows, *layer.experts.parameters()]
    ones = [torch.ones_like(row) for row in rows]

    def run():
        answers = [f(row) for f, row in zip(experts, rows, strict=True)]
        return torch.autograd.grad(answers, leaves, ones)

    return run


def measured():
    """Time and memory of every candidate, after a proof that they agree."""
    found, peaks = {}, {}
    for name, (n, *sizes) in CASES.items():
        made = layers(*sizes)
        make = torch.Generator().manual_seed(1)
        x = torch.randn(1, n, sizes[0], generator=make).requires_grad_()
        expected = made["ours"](x)
        for peer, layer in made.items():
            if not peer.startswith("dense"):
                torch.testing.assert_close(
                    layer(x), expected, atol=1e-4, rtol=1e-4
                )
        calls = {peer: train(layer, x) for peer, layer in made.items()}
        calls["all experts at once"] = at_once(calls["ours"])
        calls["products only"] = products(made["our loop"], x)
        ours, whole = calls["ours"](), calls["all experts at once"]()
        for a, b in zip(ours, whole, strict=True):
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)
        found[name] = compare(calls, rounds=11)
        peaks[name] = {
            peer: peak_mib(call)
            for peer, call in calls.items()
            if peer != "products only"  # its rows are there before
        }
    return found, peaks


@pytest.fixture(scope="module")
def both():
    return measured()


@pytest.fixture
def found(both):
    return both[0]


def test_against_hugging_face(found):
    peers = ("ours", "Hugging Face", "Hugging Face, grouped")
    publish(
        "moe",
        "mixtral",
        title="Mixture of experts",
        what="Forward and backward of one layer with its router, width 256, "
        "4096 tokens for 8 experts and 2048 for 64; theirs is Mixtral's "
        "block, as a loop over experts (its default) and with grouped "
        "products.",
        cases={
            name: {peer: case[peer] for peer in peers}
            for name, case in found.items()
        },
        goal=1.0,
    )


def test_against_a_dense_layer(found):
    wide, thin = CASES
    floor = found[wide]["products only"].ratio
    over = floor / found[wide]["dense, same work"].ratio - 1
    publish(
        "moe",
        "dense",
        title="What dispatch costs, few wide experts",
        what="The same layer against one dense gated layer that does the same "
        "number of multiplications in the experts. The goal is 10 % more.",
        cases={wide: {p: found[wide][p] for p in ("ours", "dense, same work")}},
        goal=1.1,
        missed="The products of the experts alone, on sorted rows and without "
        f"any routing, differ by {over:+.0%} from the dense layer in this run. "
        "On top come routing, copying each token to its experts, weighing the "
        "answers and adding them, there and back. Both of Hugging Face's forms "
        "take longer.",
    )
    publish(
        "moe",
        "thin",
        title="What dispatch costs, many thin experts",
        what="Sixty-four thin experts, eight used: the products are small and "
        "each token is copied eight times.",
        cases={
            thin: {
                p: found[thin][p]
                for p in ("ours", "our loop", "dense, same work")
            }
        },
        goal=None,
    )
    parts = ("ours", "all experts at once", "products only", "dense, same work")
    publish(
        "moe",
        "parts",
        title="What a sparse layer spends its time on",
        what="Our layer, which serves a few experts at a time; the same with "
        "all experts at once; the products of the experts alone, on rows that "
        "were sorted beforehand; and a dense layer of equal work. Thin experts "
        "are served all at once in any case: there the first two rows are the "
        "same code, and what they differ by is chance.",
        cases={
            name: {p: case[p] for p in parts} for name, case in found.items()
        },
        goal=None,
    )


def test_memory(both):
    peaks = both[1]
    if any(None in case.values() for case in peaks.values()):
        pytest.skip("only Linux tells how much memory a call has used at most")
    publish(
        "moe",
        "memory",
        title="Memory of a sparse layer",
        what="The most that forward and backward of one layer need at a time, "
        "gradients included, for the sizes above.",
        cases={
            name: {peer: max(mib, 0.1) for peer, mib in case.items()}
            for name, case in peaks.items()
        },
        unit="MiB at most",
        goal=None,
    )
