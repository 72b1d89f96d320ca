"""GPT against Hugging Face's GPT-2 and Llama, and the laws that it keeps."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from litformer.checkpoint_names import gpt2_names, llama_names
from litformer.gpt import GPT, GPTConfig, next_token_loss
from litformer.pretrained import load_named

V, T, B = 53, 13, 2


def redrawn(model, seed=0):
    """Every parameter drawn anew: fresh zeros and ones would hide mistakes."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=make))
    return model.eval()


def ids(seed=1, t=T, b=B):
    make = torch.Generator().manual_seed(seed)
    return torch.randint(V, (b, t), generator=make)


# --------------------------------------------- oracle: Hugging Face, by layer


def hf_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=V, n_positions=17, n_embd=33, n_layer=3, n_head=3
    )
    return redrawn(GPT2LMHeadModel(config))


def ours_gpt2():
    config = GPTConfig.gpt2(
        vocab_size=V, max_len=17, d_model=33, n_layers=3, n_heads=3
    )
    return GPT(config).eval()


def hf_llama(*, tied, n_kv_heads):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=V,
        hidden_size=60,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=n_kv_heads,
        max_position_embeddings=17,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5000.0},
    )
    return redrawn(LlamaForCausalLM(config))


def ours_llama(*, tied, n_kv_heads):
    config = GPTConfig.llama(
        V,
        17,
        d_model=60,
        d_ff=37,
        n_layers=3,
        n_heads=6,
        n_kv_heads=n_kv_heads,
        rope_base=5000.0,
        tie_embeddings=tied,
    )
    return GPT(config).eval()


@torch.no_grad()
def layer_by_layer(ours, theirs, base):
    """What goes into each block, what leaves the norm, and the logits."""
    inputs = []
    hooks = [
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
        for block in ours.blocks
    ]
    logits = ours(ids())
    features = ours.features(ids())
    for hook in hooks:
        hook.remove()
    found = theirs(ids(), output_hidden_states=True)
    n = len(ours.blocks)
    for mine, hidden in zip(inputs[:n], found.hidden_states[:n], strict=True):
        torch.testing.assert_close(mine, hidden, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        features, found.hidden_states[n], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(logits, found.logits, atol=1e-5, rtol=1e-5)
    assert logits.std() > 0.1  # or everything would be equal


def test_gpt2_layer_by_layer():
    theirs, ours = hf_gpt2(), ours_gpt2()
    load_named(ours, theirs.state_dict(), gpt2_names())
    layer_by_layer(ours, theirs, "transformer")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("n_kv_heads", [6, 2, 1])
def test_llama_layer_by_layer(tied, n_kv_heads):
    sizes = dict(tied=tied, n_kv_heads=n_kv_heads)
    theirs, ours = hf_llama(**sizes), ours_llama(**sizes)
    load_named(ours, theirs.state_dict(), llama_names())
    layer_by_layer(ours, theirs, "model")


def test_gradients_are_those_of_gpt2():
    theirs, ours = hf_gpt2(), ours_gpt2()
    load_named(ours, theirs.state_dict(), gpt2_names())
    weights = torch.randn(B, T, V, generator=torch.Generator().manual_seed(3))
    (ours(ids()) * weights).sum().backward()
    (theirs(ids()).logits * weights).sum().backward()
    block = theirs.transformer.h[1]
    packed = torch.cat(
        [
            getattr(ours.blocks[1].attn, f"{n}_proj").weight.grad.T
            for n in "qkv"
        ],
        dim=1,
    )
    for mine, other in (
        (packed, block.attn.c_attn.weight.grad),
        (ours.embed.weight.grad, theirs.transformer.wte.weight.grad),
        (ours.norm.weight.grad, theirs.transformer.ln_f.weight.grad),
    ):
        scale = max(1.0, other.abs().max().item())
        assert (mine - other).abs().max() < 1e-5 * scale


def test_a_wrong_activation_or_epsilon_would_be_found():
    """The parity tests can fail: two likely mistakes, and their size."""
    theirs = hf_gpt2()
    exact = GPT(replace(ours_gpt2().config, feedforward=GPTConfig.feedforward))
    load_named(exact.eval(), theirs.state_dict(), gpt2_names())
    with torch.no_grad():
        assert (exact(ids()) - theirs(ids()).logits).abs().max() > 5e-5
    theirs = hf_llama(tied=True, n_kv_heads=2)
    ours = ours_llama(tied=True, n_kv_heads=2)
    wrong = GPT(replace(ours.config, rope_base=10_000.0))
    load_named(wrong.eval(), theirs.state_dict(), llama_names())
    with torch.no_grad():
        assert (wrong(ids()) - theirs(ids()).logits).abs().max() > 1e-3


# ------------------------------------------------------------------ sizes


def test_published_parameter_counts():
    with torch.device("meta"):
        gpt2, smol = GPT(GPTConfig.gpt2()), GPT(GPTConfig.smollm2())
    assert sum(p.numel() for p in gpt2.parameters()) == 124_439_808
    assert sum(p.numel() for p in smol.parameters()) == 134_515_008


# ------------------------------------------------------------------- laws

KINDS = {
    "learned": GPTConfig(V, 31, d_model=24, n_layers=2, n_heads=3),
    "llama": GPTConfig.llama(
        V, 31, d_model=24, d_ff=17, n_layers=2, n_heads=6, n_kv_heads=3
    ),
}


@pytest.fixture(params=KINDS)
def model(request):
    return redrawn(GPT(KINDS[request.param]))


@torch.no_grad()
def test_the_future_cannot_change_the_past(model):
    x = ids()
    for t in range(T):
        changed = x.clone()
        changed[:, t] = (changed[:, t] + 1) % V
        moved = (model(changed) - model(x)).abs().amax(-1) > 0
        assert not moved[:, :t].any()
        assert moved[:, t].all()


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[T], [1] * T, [5, 1, 7], [1, 12]])
def test_cached_equals_uncached(model, pieces):
    whole, caches = model(ids()), model.new_caches()
    parts = [model(p, caches=caches) for p in ids().split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)
    assert [len(c) for c in caches] == [T] * 2


@torch.no_grad()
def test_rows_of_a_batch_do_not_meet(model):
    alone = torch.cat([model(row[None]) for row in ids()])
    torch.testing.assert_close(model(ids()), alone, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_mask_takes_away_and_cannot_give(model):
    """Two documents in one row: the second does not see the first."""
    x, cut = ids(b=1), 5
    document = torch.arange(T) >= cut
    mask = document[:, None] == document[None, :]
    out = model(x, mask=mask)
    changed = x.clone()
    changed[:, :cut] = (changed[:, :cut] + 1) % V
    moved = (model(changed, mask=mask) - out).abs().amax(-1)[0] > 0
    assert moved.tolist() == [True] * cut + [False] * (T - cut)
    everything = torch.ones(T, T, dtype=torch.bool)
    assert torch.equal(model(x, mask=everything), model(x))


def test_tied_head_is_the_embedding():
    tied = GPT(KINDS["learned"])
    assert tied.lm_head.weight is tied.embed.weight
    free = GPT(replace(KINDS["learned"], tie_embeddings=False))
    assert free.lm_head.weight is not free.embed.weight
    extra = sum(p.numel() for p in free.parameters()) - sum(
        p.numel() for p in tied.parameters()
    )
    assert extra == V * 24


def test_logits_are_features_times_head(model):
    out = model.features(ids()) @ model.lm_head.weight.T
    torch.testing.assert_close(model(ids()), out, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------ initialisation


@pytest.mark.parametrize("rope_base", [None, 1e4])
def test_initialisation_follows_its_table(rope_base):
    std, layers = 0.05, 5
    config = GPTConfig(
        503, 211, 128, layers, 4, init_std=std, rope_base=rope_base
    )
    torch.manual_seed(0)
    seen = set()
    for name, p in GPT(config).named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            kind, expected = "last", std / math.sqrt(2 * layers)
        elif "norm" in name:
            assert (p == (1 if name.endswith("weight") else 0)).all()
            continue
        elif name.endswith("bias"):
            assert (p == 0).all()
            continue
        else:
            kind, expected = "matrix", std
        seen.add(kind)
        error = expected / math.sqrt(2 * p.numel())
        assert p.std().item() == pytest.approx(expected, abs=5 * error), name
        assert p.mean().item() == pytest.approx(
            0, abs=5 * expected / p.numel() ** 0.5
        )
    assert seen == {"last", "matrix"}


def test_untied_head_is_drawn_like_a_matrix():
    model = GPT(GPTConfig(997, 7, 64, 1, 4, tie_embeddings=False))
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.02)


def test_first_loss_is_that_of_knowing_nothing():
    torch.manual_seed(0)
    model = GPT(GPTConfig(V, 31, 64, 2, 4))
    total, count = next_token_loss(model, (ids(), ids(seed=2)))
    assert (total / count).item() == pytest.approx(math.log(V), abs=0.05)


# -------------------------------------------------------------------- seams


@torch.no_grad()
def test_all_layers_share_the_turns_of_one_call(monkeypatch):
    model, calls = redrawn(GPT(KINDS["llama"])), []
    want, turns = model(ids()), model.rotary.turns

    def counted(places, **options):
        calls.append(places.tolist())
        return turns(places, **options)

    monkeypatch.setattr(model.rotary, "turns", counted)
    assert torch.equal(model(ids()), want)
    assert calls == [list(range(T))]
    assert all(b.attn.rotary is model.rotary for b in model.blocks)


class Nothing(nn.Module):
    """A feed-forward layer that says nothing, with a weight of its own."""

    def __init__(self, d_model, d_ff, *, bias):
        super().__init__()
        self.sizes = d_model, d_ff, bias
        self.own = nn.Parameter(torch.full((3, 2, 2), 7.0))

    def forward(self, x):
        return torch.zeros_like(x)


def test_any_callable_can_make_the_feed_forward_layer():
    config = replace(KINDS["learned"], feedforward=Nothing, bias=False)
    model = GPT(config)
    assert [b.ff.sizes for b in model.blocks] == [(24, 96, False)] * 2
    assert all((b.ff.own == 7).all() for b in model.blocks)
    assert model.blocks[0].ff is not model.blocks[1].ff
    assert model(ids()).shape == (B, T, V)


@torch.no_grad()
def test_attend_is_a_seam():
    from litformer.attention import attention

    calls = []

    def counted(*args, **kwargs):
        calls.append(kwargs["causal"])
        return attention(*args, **kwargs)

    model = redrawn(GPT(KINDS["learned"]))
    other = redrawn(GPT(replace(KINDS["learned"], attend=counted)))
    torch.testing.assert_close(other(ids()), model(ids()), atol=1e-4, rtol=1e-4)
    assert calls == [True, True]


def test_dropout_acts_in_training_only():
    model = GPT(replace(KINDS["learned"], dropout=0.5))
    model.train()
    assert not torch.equal(model(ids()), model(ids()))
    model.eval()
    assert torch.equal(model(ids()), model(ids()))


def test_state_dict_round_trip_and_bf16():
    model, other = GPT(KINDS["llama"]), GPT(KINDS["llama"])
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(ids()), other(ids()))
    half = other.bfloat16()(ids())
    assert half.dtype == torch.bfloat16
    assert (half.float() - model(ids())).abs().max() < 0.05


# --------------------------------------------------------------------- loss


def test_loss_is_a_sum_and_a_count_and_padding_is_nothing(model):
    targets = ids(seed=5)
    targets[0, 3:] = -100
    total, count = next_token_loss(model, (ids(), targets, "ignored"))
    probs = model(ids()).log_softmax(-1)
    by_hand = -sum(
        probs[b, t, targets[b, t]]
        for b in range(B)
        for t in range(T)
        if targets[b, t] >= 0
    )
    torch.testing.assert_close(total, by_hand, atol=1e-3, rtol=1e-4)
    assert count == 3 + T


# ------------------------------------------------------------------- errors


def test_a_context_longer_than_max_len(unchecked):
    model = GPT(KINDS["learned"])
    with pytest.raises(
        ValueError, match=r"GPT: 40 tokens \(0 cached \+ 40 new\) exceed .*31"
    ):
        model(ids(t=40))
    caches = model.new_caches()
    model(ids(t=30), caches=caches)
    with pytest.raises(
        ValueError, match=r"GPT: 32 tokens \(30 cached \+ 2 new\) exceed"
    ):
        model(ids(t=2), caches=caches)
    assert model(ids(t=1), caches=caches).shape == (B, 1, V)


def test_as_many_caches_as_blocks(unchecked):
    model = GPT(KINDS["learned"])
    with pytest.raises(ValueError, match=r"each of its 2 blocks, got 1\. Make"):
        model(ids(), caches=model.new_caches()[:1])


def test_ids_need_a_batch(unchecked):
    with pytest.raises(ValueError, match=r"ids must have shape \(B, T\)"):
        GPT(KINDS["learned"])(ids()[0])


def test_unknown_tokens_are_named(unchecked):
    x = ids()
    x[1, 4] = V
    with pytest.raises(ValueError, match=f"token {V} at row 1, place 4"):
        GPT(KINDS["learned"])(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(n_layers=0), "n_layers must be > 0: 0"),
        (dict(vocab_size=-1), "vocab_size must be > 0: -1"),
        (dict(n_kv_heads=0), "n_kv_heads must be > 0: 0"),
        (dict(d_ff=0), "d_ff must be > 0: 0"),
        (dict(rope_base=0.0), "rope_base must be > 0"),
        (dict(init_std=0.0), "init_std must be > 0"),
        (dict(dropout=1.0), r"dropout must lie in \[0, 1\), got 1.0"),
    ],
)
def test_a_configuration_checks_itself(change, message, unchecked):
    with pytest.raises(ValueError, match=f"GPTConfig: {message}"):
        replace(KINDS["learned"], **change)


def test_sizes_that_do_not_divide_are_refused(unchecked):
    with pytest.raises(ValueError, match="not divisible by n_heads=5"):
        GPT(replace(KINDS["learned"], n_heads=5))


# ----------------------------------------------------------------- learning


def test_it_learns_to_copy():
    """Half of each row repeats the other half: a task for attention."""
    from litformer.optim import AdamW

    torch.manual_seed(0)
    model = GPT(GPTConfig(17, 16, 32, 2, 2, init_std=0.15))
    optimizer = AdamW(model.parameters(), lr=1e-2)
    for _ in range(150):
        half = torch.randint(1, 17, (32, 8))
        row = torch.cat([half, half], dim=1)
        targets = row[:, 1:].clone()
        targets[:, :7] = -100
        total, count = next_token_loss(model, (row[:, :-1], targets))
        optimizer.zero_grad()
        (total / count).backward()
        optimizer.step()
    half = torch.randint(1, 17, (50, 8))
    row = torch.cat([half, half], dim=1)
    right = model(row[:, :-1]).argmax(-1)[:, 7:] == row[:, 8:]
    assert right.float().mean() > 0.95
