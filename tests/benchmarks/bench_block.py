"""One block against `nn.TransformerEncoderLayer` and x-transformers.

Forward and backward at width 256, several lengths, with and without a causal
mask. Torch's layer has our weights, so that both give the same; x-transformers
has a layer of the same sizes, without biases in attention and norms, with its
fused attention. Goal: not slower than either.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import compare, publish
from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.feedforward import FeedForward
from litformer.norm import LayerNorm, RMSNorm, layer_norm, rms_norm

with warnings.catch_warnings():  # it scripts a function as it is imported
    warnings.simplefilter("ignore", DeprecationWarning)
    from x_transformers import Decoder, Encoder

D, H, FF = 256, 8, 1024


def pair(norm_first):
    """A block of ours and torch's layer with the same weights."""
    torch.manual_seed(0)
    theirs = nn.TransformerEncoderLayer(
        D,
        H,
        FF,
        dropout=0.0,
        activation=F.gelu,
        batch_first=True,
        norm_first=norm_first,
    )
    attn, ff = MultiHeadAttention(D, H), FeedForward(D, FF)
    ours = Block(D, attn, ff, norm_first=norm_first)
    other = theirs.self_attn
    three = other.in_proj_weight.chunk(3), other.in_proj_bias.chunk(3)
    for p, w, b in zip((attn.q_proj, attn.k_proj, attn.v_proj), *three):  # noqa: B905
        p.load_state_dict({"weight": w, "bias": b})
    attn.o_proj.load_state_dict(other.out_proj.state_dict())
    ff.up_proj.load_state_dict(theirs.linear1.state_dict())
    ff.down_proj.load_state_dict(theirs.linear2.state_dict())
    ours.norm_attn.load_state_dict(theirs.norm1.state_dict())
    ours.norm_ff.load_state_dict(theirs.norm2.state_dict())
    return ours, theirs


def peer(causal):
    """One layer of x-transformers, without the norm behind the stack."""
    kind = Decoder if causal else Encoder
    return kind(
        dim=D,
        depth=1,
        heads=H,
        attn_dim_head=D // H,
        ff_mult=FF // D,
        attn_flash=True,
        pre_norm_has_final_norm=False,
    )


def train(module, call, x):
    """Forward and backward, with gradients of the input and the weights."""
    leaves = [x, *(p for p in module.parameters() if p.requires_grad)]
    up = torch.ones_like(x)
    return lambda: torch.autograd.grad(call(x), leaves, up)


CASES = {
    # name: (B, T, causal, norm_first)
    "T=32": (8, 32, False, True),
    "T=128": (8, 128, False, True),
    "T=512": (2, 512, False, True),
    "post-norm, T=128": (8, 128, False, False),
    "causal, T=128": (8, 128, True, True),
    "causal, T=512": (2, 512, True, True),
}


def test_forward_and_backward_against_torch_and_x_transformers():
    cases = {}
    for name, (b, t, causal, norm_first) in CASES.items():
        ours, theirs = pair(norm_first)
        x = torch.randn(b, t, D).requires_grad_()
        options = {}
        if causal:
            mask = nn.Transformer.generate_square_subsequent_mask(t)
            options = {"src_mask": mask, "is_causal": True}

        def call_ours(x, block=ours, causal=causal):
            return block(x, causal=causal)

        def call_theirs(x, layer=theirs, options=options):
            return layer(x, **options)

        close = dict(atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(call_ours(x), call_theirs(x), **close)
        calls = {
            "nn.TransformerEncoderLayer": train(theirs, call_theirs, x),
            "ours": train(ours, call_ours, x),
        }
        if norm_first:
            layer = peer(causal)
            calls["x-transformers"] = train(layer, layer, x)
        cases[name] = compare(calls)
    publish(
        "block",
        "training",
        title="A Transformer block",
        what="Forward and backward of one block, width 256, 8 heads, inner "
        "width 1024; x-transformers with its fused attention.",
        cases=cases,
    )


def test_norms():
    """The fused kernels against the formulas that the chapter reads."""
    cases = {}
    x = torch.randn(8, 512, D).requires_grad_()
    for layer, formula in ((LayerNorm(D), layer_norm), (RMSNorm(D), rms_norm)):
        parameters = list(layer.parameters())

        def by_formula(x, formula=formula, parameters=parameters):
            return formula(x, *parameters)

        torch_own = nn.LayerNorm(D) if len(parameters) == 2 else nn.RMSNorm(D)
        name = type(torch_own).__name__
        cases[type(layer).__name__] = compare(
            {
                f"nn.{name}": train(torch_own, torch_own, x),
                "the formula": train(layer, by_formula, x),
                "ours": train(layer, layer, x),
            },
            rounds=41,
        )
    publish(
        "block",
        "norms",
        title="Norms",
        what="Forward and backward for 8 sequences of 512 tokens, width 256.",
        cases=cases,
        missed="Ours looks at the shape and calls the same kernel, so this is "
        "chance: a call lasts as long as the fresh memory that it asks for, "
        "and the calls in between move that about.",
    )
