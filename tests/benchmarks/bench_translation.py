"""One training step of `Seq2Seq` against one around `nn.Transformer`.

Forward, loss, backward, clipping, and a step of torch's AdamW on both sides.
Their model has the same sizes, embeddings, positions and tied output layer.
Goal: not slower.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.harness import compare, publish
from litformer.generation import greedy_decode
from litformer.positions import sinusoidal_table
from litformer.seq2seq import Seq2Seq, Seq2SeqConfig

V = 39


class Theirs(nn.Module):
    """`nn.Transformer` with what it leaves out: embeddings, places, output."""

    def __init__(self, c):
        super().__init__()
        options = dict(
            activation=c.activation, batch_first=True, norm_first=c.norm_first
        )
        sizes = c.d_model, c.n_heads, c.d_ff, 0.0
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, **options),
            c.n_encoder_layers,
            nn.LayerNorm(c.d_model),
            enable_nested_tensor=False,
        )
        self.stacks = nn.Transformer(
            *sizes[:2],
            *(c.n_encoder_layers, c.n_decoder_layers, c.d_ff, 0.0),
            custom_encoder=encoder,
            **options,
        )
        self.source_embed = nn.Embedding(c.source_vocab, c.d_model)
        self.target_embed = nn.Embedding(c.target_vocab, c.d_model)
        table = sinusoidal_table(c.max_len, c.d_model)
        self.register_buffer("table", table, persistent=False)
        self.scale = math.sqrt(c.d_model)

    def forward(self, source, target):
        padding = source == 0
        x = self.source_embed(source) * self.scale
        y = self.target_embed(target) * self.scale
        t = target.shape[1]
        future = torch.ones(t, t, dtype=torch.bool).triu(1)
        out = self.stacks(
            x + self.table[: source.shape[1]],
            y + self.table[:t],
            tgt_mask=future,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
            tgt_is_causal=True,
        )
        return F.linear(out, self.target_embed.weight)


@torch.no_grad()
def copy(ours, theirs):
    """The weights of ours, into theirs."""
    for name in ("source_embed", "target_embed"):
        table = getattr(ours, name).state_dict()
        getattr(theirs, name).load_state_dict(table)
    for side in ("encoder", "decoder"):
        mine, other = getattr(ours, side), getattr(theirs.stacks, side)
        if mine.norm is None:
            other.norm = None
        for block, layer in zip(mine.blocks, other.layers, strict=True):
            pairs = [(block.attn, layer.self_attn)]
            norms = [block.norm_attn, block.norm_ff]
            if block.cross_attn is not None:
                pairs.append((block.cross_attn, layer.multihead_attn))
                norms.insert(1, block.norm_cross)
            for a, b in pairs:
                parts = a.q_proj, a.k_proj, a.v_proj
                b.in_proj_weight.copy_(torch.cat([p.weight for p in parts]))
                b.in_proj_bias.copy_(torch.cat([p.bias for p in parts]))
                b.out_proj.load_state_dict(a.o_proj.state_dict())
            for i, norm in enumerate(norms, 1):
                getattr(layer, f"norm{i}").load_state_dict(norm.state_dict())
            layer.linear1.load_state_dict(block.ff.up_proj.state_dict())
            layer.linear2.load_state_dict(block.ff.down_proj.state_dict())


CASES = {
    # name: (B, S, T, sizes)
    "the chapter's batch": (64, 15, 16, {}),
    "long, S=T=128": (8, 128, 128, {}),
    "wide, S=T=32": (
        *(16, 32, 32),
        dict(
            d_model=256,
            n_heads=8,
            d_ff=1024,
            n_encoder_layers=3,
            n_decoder_layers=3,
        ),
    ),
    "post-norm, ReLU, S=T=32": (
        *(32, 32, 32),
        dict(norm_first=False, activation=F.relu),
    ),
}


def step(model, source, target):
    """A function that trains for one step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run():
        logits = model(source, target[:, :-1])
        loss = F.cross_entropy(
            logits.flatten(0, 1), target[:, 1:].flatten(), ignore_index=0
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return run


def test_a_training_step_against_nn_transformer():
    cases = {}
    for name, (b, s, t, sizes) in CASES.items():
        torch.manual_seed(0)
        config = Seq2SeqConfig.tiny(V, V, max_len=256, **sizes)
        dice = torch.Generator().manual_seed(1)
        source = torch.randint(3, V, (b, s), generator=dice)
        source[::2, -2:] = 0
        target = torch.randint(3, V, (b, t + 1), generator=dice)
        ours, theirs = Seq2Seq(config), Theirs(config)
        copy(ours, theirs)
        torch.testing.assert_close(
            ours(source, target), theirs(source, target), atol=1e-4, rtol=1e-4
        )
        cases[name] = compare(
            {
                "nn.Transformer": step(theirs, source, target),
                "ours": step(ours, source, target),
            }
        )
    publish(
        "translation",
        "training",
        title="A training step of the translator",
        what="Forward, loss, backward, clipping and torch's AdamW, against a "
        "model with the same weights around nn.Transformer.",
        cases=cases,
    )


def test_a_session_pays():
    """64 sentences, 24 words each, with and without what is known already."""
    torch.manual_seed(0)
    model = Seq2Seq(Seq2SeqConfig.tiny(V, V)).eval()
    source = torch.randint(3, V, (64, 15))
    texts, calls = {}, {}
    for name, use_cache in (("computing anew", False), ("ours", True)):

        def call(use_cache=use_cache):
            return greedy_decode(
                model, source, max_new_tokens=24, use_cache=use_cache
            )

        texts[name], calls[name] = call(), call
    assert torch.equal(*texts.values())
    publish(
        "translation",
        "session",
        title="Writing with a cache",
        what="Greedy decoding of 64 sentences, at most 24 words each: with "
        "keys and values kept, and with all of it computed anew at each word.",
        cases={"24 words": compare(calls, rounds=5)},
    )
