"""`MultiHeadAttention` against `nn.MultiheadAttention` with its weights.

Forward and backward, `need_weights=False` on their side, which is their fast
way. Goal: not slower.
"""

import torch
from torch import nn

from benchmarks.harness import compare, publish
from litformer.attention import MultiHeadAttention
from litformer.kv_cache import KVCache

D, H = 256, 8


def pair():
    """A layer of each kind with the same weights."""
    torch.manual_seed(0)
    ours = MultiHeadAttention(D, H)
    theirs = nn.MultiheadAttention(D, H, batch_first=True)
    projections = ours.q_proj, ours.k_proj, ours.v_proj
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([p.weight for p in projections]))
        theirs.in_proj_bias.copy_(torch.cat([p.bias for p in projections]))
    theirs.out_proj.load_state_dict(ours.o_proj.state_dict())
    return ours, theirs


def train(layer, forward, x, context=None):
    """Forward and backward, with gradients of the inputs and the weights."""
    leaves = [x, *([] if context is None else [context]), *layer.parameters()]
    ones = torch.ones_like(x)
    return lambda: torch.autograd.grad(forward(), leaves, ones)


CASES = {
    # name: (B, T, S or None, causal)
    "self, T=32": (8, 32, None, False),
    "self, T=128": (8, 128, None, False),
    "self, T=512": (2, 512, None, False),
    "causal, T=128": (8, 128, None, True),
    "causal, T=512": (2, 512, None, True),
    "cross, T=32 S=128": (8, 32, 128, False),
}


def test_forward_and_backward_against_torch():
    cases = {}
    for name, (b, t, s, causal) in CASES.items():
        ours, theirs = pair()
        make = torch.Generator().manual_seed(1)
        x = torch.randn(b, t, D, generator=make).requires_grad_()
        context = None
        if s is not None:
            context = torch.randn(b, s, D, generator=make).requires_grad_()
        source = x if context is None else context
        mask = None
        if causal:
            mask = nn.Transformer.generate_square_subsequent_mask(t)

        def call_ours(layer=ours, x=x, context=context, causal=causal):
            return layer(x, context, causal=causal)

        def call_theirs(
            layer=theirs, x=x, source=source, mask=mask, causal=causal
        ):
            return layer(
                x,
                source,
                source,
                need_weights=False,
                attn_mask=mask,
                is_causal=causal,
            )[0]

        torch.testing.assert_close(
            call_ours(), call_theirs(), atol=1e-5, rtol=1e-5
        )
        cases[name] = compare(
            {
                "nn.MultiheadAttention": train(theirs, call_theirs, x, context),
                "ours": train(ours, call_ours, x, context),
            }
        )
    publish(
        "multi_head",
        "training",
        title="Multi-head attention",
        what="Forward and backward of one layer, width 256, 8 heads; theirs "
        "with need_weights=False, which is its fast way.",
        cases=cases,
    )


def test_what_a_head_costs():
    """The chapter says: no more products, but more exponentials."""
    x = torch.randn(8, 128, D).requires_grad_()
    calls = {}
    for n_heads in (1, 4, 16, 64):
        layer = MultiHeadAttention(D, n_heads)
        calls[str(n_heads)] = train(layer, lambda layer=layer: layer(x), x)
    found = compare(calls)
    publish(
        "multi_head",
        "heads",
        title="What many heads cost",
        what="Forward and backward of one layer, 8 sequences of 128 tokens, "
        "width 256: the same products, but more exponentials.",
        cases={
            f"{n} heads": {"one head": found["1"], "ours": found[n]}
            for n in ("4", "16", "64")
        },
        goal=None,
    )


def test_a_cache_pays():
    """64 tokens one by one, with a cache and by starting anew each time."""
    layer = MultiHeadAttention(D, H).eval()
    x = torch.randn(1, 64, D)

    @torch.no_grad()
    def cached():
        cache = KVCache()
        for token in x.split(1, 1):
            out = layer(token, causal=True, cache=cache)
        return out

    @torch.no_grad()
    def anew():
        for t in range(1, 65):
            out = layer(x[:, :t], causal=True)[:, -1:]
        return out

    torch.testing.assert_close(cached(), anew(), atol=1e-5, rtol=1e-5)
    found = compare({"without a cache": anew, "ours": cached}, rounds=5)
    publish(
        "multi_head",
        "cache",
        title="A cache of keys and values",
        what="64 tokens one by one through one layer of width 256.",
        cases={"64 tokens": found},
    )
