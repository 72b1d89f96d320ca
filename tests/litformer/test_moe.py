"""The mixture of experts: oracle, laws, losses, records, refusals."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import refused, runs_apart
from litformer import moe as module
from litformer.feedforward import FeedForward, GatedFeedForward
from litformer.gpt import GPT, GPTConfig
from litformer.moe import (
    Experts,
    GroupedExperts,
    MoE,
    Routing,
    TopKRouter,
    balance_loss,
    describe_routing,
    expert_load,
    experts_at_once,
    grouped_linear,
    load_balancing_loss,
    pack,
    record_routing,
    router_z_loss,
    within_capacity,
)

B, T, D, FF, E = 2, 17, 8, 12, 5  # D and FF suit the kernel
N = B * T


def tensor(*shape, seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=make, dtype=dtype)


def close(a, b, tol=1e-5):
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


def fill(layer, seed=0):
    """Random parameters that are the same in every session."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.copy_(torch.randn(p.shape, generator=make) / p.shape[-1] ** 0.5)
    return layer


def pair(d=D, ff=FF, e=E, *, shared=False, **options):
    """The same layer as a loop and grouped."""
    loop = fill(
        MoE(
            TopKRouter(d, e, **options),
            Experts(e, lambda: GatedFeedForward(d, ff, bias=False)),
            shared=GatedFeedForward(d, ff + 1) if shared else None,
        )
    )
    fast = MoE(loop.router, pack(loop.experts.experts), shared=loop.shared)
    return loop, fast


def compute_all(layer, x):
    """Every expert on every token, by the definition, in plain loops."""
    row = x.reshape(-1, x.shape[-1])
    routing = layer.router(row)
    answers = [expert(row) for expert in layer.experts.experts]
    out = [torch.zeros_like(row[0]) for _ in row]
    for n in range(len(row)):
        for k, e in enumerate(routing.experts[n].tolist()):
            if routing.kept is None or routing.kept[n, k]:
                out[n] = out[n] + routing.weights[n, k] * answers[e][n]
    y = torch.stack(out)
    if layer.shared is not None:
        y = y + layer.shared(row)
    return y.view(x.shape)


def gradients(layer, call, x):
    """Of x, of the router, and of the experts' matrices stacked."""
    x = x.clone().requires_grad_()
    y = call(x)
    pull = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    layer.zero_grad()
    (pull * y).sum().backward()
    found = {"x": x.grad, "router": layer.router.weight.grad.clone()}
    for name in ("gate_proj", "up_proj", "down_proj"):
        if isinstance(layer.experts, GroupedExperts):
            found[name] = getattr(layer.experts, name).grad.clone()
            continue
        singles = [getattr(f, name).weight for f in layer.experts.experts]
        found[name] = torch.stack(
            [torch.zeros_like(w) if w.grad is None else w.grad for w in singles]
        ).clone()
    return found


# --- 1. the oracle ----------------------------------------------------------

CASES = {
    "top 1": dict(top_k=1),
    "top 2": dict(top_k=2),
    "all": dict(top_k=E),
    "not normalised": dict(top_k=3, normalize=False),
    "tight": dict(top_k=2, capacity_factor=0.6),
    "tight, top 1": dict(top_k=1, capacity_factor=0.3),
    "room for all": dict(top_k=2, capacity_factor=50.0),
    "shared": dict(top_k=2, shared=True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("d", "ff"), [(8, 12), (12, 8), (7, 11)])
def test_loop_and_grouped_equal_computing_all(name, d, ff):
    loop, fast = pair(d, ff, **CASES[name])
    x = tensor(B, T, d, seed=1)
    expected = compute_all(loop, x)
    close(loop(x), expected)
    close(fast(x), expected)
    truth = gradients(loop, lambda x: compute_all(loop, x), x)
    for layer in (loop, fast):
        got = gradients(layer, layer, x)
        for key, value in truth.items():
            close(got[key], value)


@pytest.mark.parametrize("name", CASES)
def test_exact_in_double(name):
    loop, fast = (layer.double() for layer in pair(**CASES[name]))
    x = tensor(B, T, D, seed=1, dtype=torch.double)
    expected = compute_all(loop, x)
    close(loop(x), expected, 1e-12)
    close(fast(x), expected, 1e-12)
    for layer in (loop, fast):
        got = gradients(layer, layer, x)
        truth = gradients(loop, lambda x: compute_all(loop, x), x)
        for key, value in truth.items():
            close(got[key], value, 1e-11)


def test_all_experts_is_the_dense_mixture():
    """k = E: nothing is chosen, and the softmax weighs everyone."""
    loop, fast = pair(top_k=E)
    x = tensor(N, D, seed=2)
    p = (x @ loop.router.weight.T).softmax(-1)
    answers = torch.stack([f(x) for f in loop.experts.experts], 1)
    expected = torch.einsum("ne,ned->nd", p, answers)
    close(loop(x), expected)
    close(fast(x), expected)
    # and unnormalised it is the same, for all probabilities sum to one
    loop.router.normalize = False
    close(loop(x), expected)


def test_one_expert_is_a_plain_layer():
    plain = fill(GatedFeedForward(D, FF, bias=False))
    layer = MoE(TopKRouter(D, 1, top_k=1), pack([plain]))
    x = tensor(B, T, D)
    close(layer(x), plain(x))


def test_experts_may_be_any_layer():
    layer = fill(
        MoE(TopKRouter(D, 3), Experts(3, lambda: FeedForward(D, 5, bias=True)))
    )
    x = tensor(B, T, D)
    close(layer(x), compute_all(layer, x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_near(dtype):
    loop, fast = pair()
    x = tensor(B, T, D).to(dtype).float()  # the same numbers for both
    for layer in (loop, fast):
        half = copy.deepcopy(layer).to(dtype)
        half.router.float()  # else rounded weights choose other experts
        out = half(x.to(dtype))
        assert out.dtype == dtype
        close(out.float(), layer(x), 5e-2)
        out.float().square().sum().backward()
        assert all(p.grad.isfinite().all() for p in half.parameters())


def test_autocast_leaves_the_choice_in_fp32():
    _, fast = pair()
    x = tensor(B, T, D)
    with record_routing(fast) as routings:
        plain = fast(x)
        with torch.autocast("cpu", torch.bfloat16):
            out = fast(x)
    exact, cast = routings
    assert cast.logits.dtype == torch.float32
    assert torch.equal(cast.logits, exact.logits)
    close(out.float(), plain, 5e-2)


def test_an_expert_without_tokens_gets_zero_gradient():
    _, fast = pair(top_k=1)
    fast.router.selection_bias[3] = -1e9
    fast(tensor(B, T, D)).square().sum().backward()
    for p in fast.experts.parameters():
        assert (p.grad[3] == 0).all()
        assert p.grad.isfinite().all()


@pytest.mark.parametrize("form", [0, 1])
def test_no_tokens(form):
    layer = pair(capacity_factor=1.0)[form]
    assert layer(torch.zeros(2, 0, D)).shape == (2, 0, D)
    layer = pair()[form]
    x = torch.zeros(0, D, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad.shape == (0, D)


# --- 2. grouped products ----------------------------------------------------


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    width=st.sampled_from([3, 4, 8]),
    out=st.sampled_from([1, 4, 12]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    kernel=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_grouped_linear_equals_cutting(counts, width, out, dtype, kernel):
    rows = tensor(sum(counts), width).to(dtype).requires_grad_()
    weights = tensor(len(counts), out, width, seed=1).to(dtype)
    weights.requires_grad_()
    cut = [
        run.double() @ w.double().T
        for run, w in zip(rows.split(counts), weights, strict=True)
    ]
    expected = torch.cat(cut)
    with pytest.MonkeyPatch.context() as patch:
        if not kernel:
            patch.setattr(module, "_kernel_fits", lambda *_: False)
        got = grouped_linear(rows, weights, torch.tensor(counts))
    tol = 3e-2 if dtype == torch.bfloat16 else 1e-5
    close(got.double(), expected, tol)
    pull = torch.linspace(-1, 1, expected.numel()).view(expected.shape)
    want = torch.autograd.grad((expected * pull).sum(), [rows, weights])
    have = torch.autograd.grad((got.double() * pull).sum(), [rows, weights])
    for a, b in zip(have, want, strict=True):
        close(a.double(), b.double(), 2 * tol)


def test_the_kernel_is_used_where_it_fits_and_only_there():
    fits = module._kernel_fits
    ok = torch.zeros(7, 8), torch.zeros(3, 12, 8)
    assert fits(*ok) == hasattr(F, "grouped_mm")
    assert not fits(*(t.double() for t in ok))
    assert not fits(ok[0].bfloat16(), ok[1])  # two types
    assert not fits(torch.zeros(7, 6), torch.zeros(3, 12, 6))  # 24 bytes
    assert not fits(torch.zeros(7, 8), torch.zeros(3, 10, 8))  # 40 bytes
    odd = torch.zeros(57)[1:].view(7, 8)  # begins 4 bytes too late
    assert not fits(odd, ok[1])
    close(
        grouped_linear(odd + 1, ok[1] + 1, torch.tensor([3, 0, 4])),
        torch.full((7, 12), 8.0),
    )


def test_without_the_kernel_the_layer_is_the_same(monkeypatch):
    loop, fast = pair(top_k=2, capacity_factor=0.7)
    x = tensor(B, T, D)
    with_kernel = fast(x)
    monkeypatch.delattr(F, "grouped_mm", raising=False)  # an older PyTorch
    close(fast(x), with_kernel)
    close(loop(x), with_kernel)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("few", range(1, E + 1))
def test_blocks_equal_computing_all(name, few, monkeypatch):
    """E = 5: blocks of 2, 3 and 4 leave a smaller one at the end."""
    loop, fast = pair(**CASES[name])
    served = []

    def spy(rows, weights, counts):
        served.append(len(weights))
        return grouped_linear(rows, weights, counts)

    monkeypatch.setattr(module, "experts_at_once", lambda *_: few)
    monkeypatch.setattr(module, "grouped_linear", spy)
    x = tensor(B, T, D, seed=1)
    close(fast(x), compute_all(loop, x))
    assert len(served) == 3 * math.ceil(E / few)  # gate, up and down
    assert sum(served) == 3 * E
    assert max(served) == few
    truth = gradients(loop, lambda x: compute_all(loop, x), x)
    got = gradients(fast, fast, x)
    for key, value in truth.items():
        close(got[key], value)


@pytest.mark.parametrize("few", [1, 2])
def test_blocks_without_tokens(few, monkeypatch):
    """An empty block, and all of them empty."""
    monkeypatch.setattr(module, "experts_at_once", lambda *_: few)
    loop, fast = pair(top_k=1)
    fast.router.selection_bias[2:] = -1e9
    x = tensor(B, T, D)
    y = fast(x)
    close(y, compute_all(loop, x))
    y.square().sum().backward()
    for p in fast.experts.parameters():
        assert (p.grad[2:] == 0).all()
        assert p.grad.isfinite().all()
    assert fast(torch.zeros(2, 0, D)).shape == (2, 0, D)


def test_second_gradients_through_blocks(monkeypatch):
    monkeypatch.setattr(module, "experts_at_once", lambda *_: 2)
    _, fast = pair(2, 3, 3)
    fast = fast.double()
    x = tensor(3, 2, dtype=torch.double).requires_grad_()
    assert torch.autograd.gradgradcheck(fast, x)


def test_how_many_experts_at_once(monkeypatch):
    monkeypatch.setattr(module, "HOT", 1000)
    slots = torch.arange(60)
    assert experts_at_once(slots, 6, 10) == 6  # 600 numbers fit
    assert experts_at_once(slots, 6, 20) == 5  # 200 for each expert
    assert experts_at_once(slots, 6, 51) == 1  # 510 for each
    assert experts_at_once(slots, 6, 9000) == 1  # one does not fit: still one
    assert experts_at_once(slots[:0], 6, 9000) == 6
    assert experts_at_once(slots.to("meta"), 6, 9000) == 6


def test_pack_copies_and_keeps_type_and_activation():
    layers = [
        fill(GatedFeedForward(D, FF, activation=F.gelu, bias=False), i)
        for i in range(3)
    ]
    packed = pack([layer.double() for layer in layers])
    assert packed.activation is F.gelu
    assert packed.up_proj.dtype == torch.float64
    for i, layer in enumerate(layers):
        assert torch.equal(packed.down_proj[i], layer.down_proj.weight)
    layers[0].up_proj.weight.data.zero_()
    assert packed.up_proj[0].abs().sum() > 0


# --- 3. Hugging Face --------------------------------------------------------


def mixtral_block(d, ff, e, k):
    from transformers import MixtralConfig
    from transformers.models.mixtral.modeling_mixtral import (
        MixtralSparseMoeBlock,
    )

    config = MixtralConfig(
        hidden_size=d,
        intermediate_size=ff,
        num_local_experts=e,
        num_experts_per_tok=k,
    )
    config._experts_implementation = "eager"
    return fill(MixtralSparseMoeBlock(config))


def from_mixtral(theirs, d, ff, e, k):
    """Their gate and up stand in one tensor: first halves, second halves."""
    ours = MoE(TopKRouter(d, e, top_k=k), GroupedExperts(e, d, ff))
    gate, up = theirs.experts.gate_up_proj.chunk(2, dim=1)
    with torch.no_grad():
        ours.router.weight.copy_(theirs.gate.weight)
        ours.experts.gate_proj.copy_(gate)
        ours.experts.up_proj.copy_(up)
        ours.experts.down_proj.copy_(theirs.experts.down_proj)
    return ours


@pytest.mark.parametrize("k", [1, 2, 3])
def test_parity_with_mixtral(k):
    theirs = mixtral_block(D, FF, E, k)
    ours = from_mixtral(theirs, D, FF, E, k)
    if k == 1:  # theirs divides one weight by itself; ours refuses to
        with pytest.raises(ValueError, match="no gradient reaches"):
            TopKRouter(D, E, top_k=1, normalize=True)
        ours.router.normalize = True
    x = tensor(B, T, D, seed=3).requires_grad_()
    a, b = ours(x), theirs(x)
    close(a, b)
    pull = torch.linspace(-1, 1, a.numel()).view(a.shape)
    (mine,) = torch.autograd.grad((a * pull).sum(), x, retain_graph=True)
    (other,) = torch.autograd.grad((b * pull).sum(), x, retain_graph=True)
    close(mine, other)
    (a * pull).sum().backward()
    (b * pull).sum().backward()
    close(ours.router.weight.grad, theirs.gate.weight.grad)
    close(
        torch.cat([ours.experts.gate_proj.grad, ours.experts.up_proj.grad], 1),
        theirs.experts.gate_up_proj.grad,
    )
    close(ours.experts.down_proj.grad, theirs.experts.down_proj.grad)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("padded", [False, True])
def test_balance_loss_is_mixtrals_over_k(k, padded):
    """Theirs counts tokens, ours slots: k times ours."""
    from transformers.models.mixtral.modeling_mixtral import (
        load_balancing_loss_func,
    )

    x = tensor(N, D, seed=4)
    routing = fill(TopKRouter(D, E, top_k=k))(x)
    mask, attention = None, None
    if padded:
        attention = torch.ones(B, T, dtype=torch.long)
        attention[0, 11:] = 0
        mask = attention.flatten().bool()
    theirs = load_balancing_loss_func((routing.logits,), E, k, attention)
    close(k * load_balancing_loss(routing, mask=mask), theirs)


def switch_block(d, ff, e, capacity):
    from transformers import SwitchTransformersConfig
    from transformers.models.switch_transformers import (
        modeling_switch_transformers as switch,
    )

    config = SwitchTransformersConfig(
        d_model=d,
        d_ff=ff,
        num_experts=e,
        expert_capacity=capacity,
        dropout_rate=0.0,
        router_jitter_noise=0.0,
    )
    config._experts_implementation = "eager"
    return fill(switch.SwitchTransformersSparseMLP(config).eval()), switch


@pytest.mark.parametrize("capacity", [1, 3, 64])
def test_parity_with_switch(capacity):
    """Top 1, plain probability, ReLU, and a capacity for each text."""
    theirs, _ = switch_block(D, FF, E, capacity)
    ours = MoE(
        # a factor that gives their number of seats for T tokens
        TopKRouter(D, E, top_k=1, capacity_factor=capacity * E / T),
        Experts(E, lambda: FeedForward(D, FF, activation=F.relu, bias=False)),
    )
    with torch.no_grad():
        ours.router.weight.copy_(theirs.router.classifier.weight)
        for i, expert in enumerate(ours.experts.experts):
            other = theirs.experts[f"expert_{i}"]
            expert.up_proj.weight.copy_(other.wi.weight)
            expert.down_proj.weight.copy_(other.wo.weight)
    x = tensor(B, T, D, seed=5).requires_grad_()
    expected = theirs(x)
    # they count seats text by text, we call by call
    got = torch.cat([ours(text[None]) for text in x])
    close(got, expected)
    assert (got.abs().amax(-1) == 0).any() == (capacity < 64)
    pull = torch.linspace(-1, 1, got.numel()).view(got.shape)
    leaves = [x, ours.router.weight]
    mine = torch.autograd.grad((got * pull).sum(), leaves)
    leaves = [x, theirs.router.classifier.weight]
    other = torch.autograd.grad((expected * pull).sum(), leaves)
    for a, b in zip(mine, other, strict=True):
        close(a, b)


def mixtral_model():
    """A tiny Mixtral, and our GPT with its weights by a plain list."""
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=29,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        num_local_experts=E,
        num_experts_per_tok=2,
        max_position_embeddings=32,
        sliding_window=None,
        tie_word_embeddings=False,
    )
    config._experts_implementation = "eager"
    theirs = fill(MixtralForCausalLM(config).eval())

    def sparse(d_model, d_ff, *, bias):
        return MoE(TopKRouter(d_model, E), GroupedExperts(E, d_model, d_ff))

    ours = GPT(
        GPTConfig.llama(
            29,
            32,
            d_model=24,
            d_ff=20,
            n_layers=2,
            n_heads=6,
            n_kv_heads=2,
            eps=config.rms_norm_eps,
            rope_base=config.rope_parameters["rope_theta"],
            tie_embeddings=False,
            feedforward=sparse,
        )
    ).eval()
    theirs_by_name, state = theirs.state_dict(), {}
    names = {
        "embed": "model.embed_tokens",
        "norm": "model.norm",
        "lm_head": "lm_head",
    }
    for i in range(2):
        mine, other = f"blocks.{i}", f"model.layers.{i}"
        names |= {
            f"{mine}.norm_attn": f"{other}.input_layernorm",
            f"{mine}.norm_ff": f"{other}.post_attention_layernorm",
            f"{mine}.ff.router": f"{other}.mlp.gate",
        }
        for p in "qkvo":
            names[f"{mine}.attn.{p}_proj"] = f"{other}.self_attn.{p}_proj"
        experts = f"{other}.mlp.experts"
        both = theirs_by_name.pop(f"{experts}.gate_up_proj")
        stacks = f"{mine}.ff.experts"
        gate, up = both.chunk(2, 1)
        state[f"{stacks}.gate_proj"], state[f"{stacks}.up_proj"] = gate, up
        state[f"{stacks}.down_proj"] = theirs_by_name.pop(
            f"{experts}.down_proj"
        )
        state[f"{mine}.ff.router.selection_bias"] = torch.zeros(E)
    for mine, other in names.items():
        state[f"{mine}.weight"] = theirs_by_name.pop(f"{other}.weight")
    assert not theirs_by_name  # every one of their tensors has its place
    ours.load_state_dict(state)
    return ours, theirs


def test_a_gpt_with_experts_is_mixtral():
    """The drop-in in a whole model: logits, gradients, and the losses."""
    ours, theirs = mixtral_model()
    ids = torch.randint(29, (B, T), generator=torch.manual_seed(1))
    with record_routing(ours) as routings:
        logits = ours(ids)
    expected = theirs(ids, output_router_logits=True)
    close(logits, expected.logits)
    assert len(routings) == 2
    for mine, other in zip(routings, expected.router_logits, strict=True):
        close(mine.logits, other)
    # theirs pools the layers before it multiplies, and counts tokens
    pooled = Routing(
        *(torch.cat(parts) for parts in zip(*(r[:3] for r in routings),
                                            strict=True))
    )  # fmt: skip
    close(2 * load_balancing_loss(pooled), expected.aux_loss)
    pull = torch.linspace(-1, 1, logits.numel()).view(logits.shape)
    (logits * pull).sum().backward()
    (expected.logits * pull).sum().backward()
    close(ours.embed.weight.grad, theirs.model.embed_tokens.weight.grad, 1e-4)
    close(
        ours.blocks[0].ff.router.weight.grad,
        theirs.model.layers[0].mlp.gate.weight.grad,
        1e-4,
    )


def test_router_losses_equal_those_of_switch():
    _, switch = switch_block(D, FF, E, 4)
    routing = fill(TopKRouter(D, E, top_k=1))(tensor(N, D, seed=6))
    logits = routing.logits.view(1, N, E)
    z = switch.router_z_loss_func(logits)
    close(router_z_loss(routing), torch.as_tensor(z))
    balance = switch.load_balancing_loss_func(
        logits.softmax(-1), routing.experts.view(1, N)
    )
    close(load_balancing_loss(routing), balance)


# --- 4. the router ----------------------------------------------------------


@pytest.mark.parametrize("k", range(1, E + 1))
def test_weights_are_probabilities_of_the_best(k):
    router = fill(TopKRouter(D, E, top_k=k, normalize=False))
    x = tensor(N, D)
    routing = router(x)
    p = (x @ router.weight.T).softmax(-1)
    best = p.sort(-1, descending=True)
    close(routing.weights, best.values[:, :k])
    assert torch.equal(routing.experts, best.indices[:, :k])
    assert routing.kept is None
    assert torch.equal(routing.assigned, routing.experts)
    if k > 1:
        router.normalize = True
        close(router(x).weights.sum(-1), torch.ones(N))
        # the same as a softmax over the chosen logits
        close(
            router(x).weights,
            router(x).logits.gather(1, routing.experts).softmax(-1),
        )


def test_normalising_is_the_default_except_for_one():
    assert TopKRouter(D, E).normalize
    assert not TopKRouter(D, E, top_k=1).normalize
    assert not TopKRouter(D, E, top_k=2, normalize=False).normalize


def test_the_bias_moves_the_choice_and_not_the_weights():
    router = fill(TopKRouter(D, E, top_k=2))
    x = tensor(N, D)
    before = router(x)
    router.selection_bias[4] = 1e6
    after = router(x)
    assert (after.experts[:, 0] == 4).all()
    assert torch.equal(after.logits, before.logits)
    chosen = after.logits.softmax(-1).gather(1, after.experts)
    close(after.weights, chosen / chosen.sum(-1, keepdim=True))


def test_tokens_do_not_meet():
    """Without a capacity a token's answer is its own, whoever is beside it."""
    for layer in pair():
        x = tensor(N, D)
        whole = layer(x)
        order = torch.randperm(N, generator=torch.manual_seed(1))
        close(layer(x[order]), whole[order])
        close(torch.cat([layer(token[None]) for token in x]), whole)


def test_renaming_the_experts_changes_nothing():
    _, fast = pair()
    other = copy.deepcopy(fast)
    order = torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        for p in other.parameters():
            p.copy_(p[order])
    x = tensor(B, T, D)
    close(other(x), fast(x))


# --- 5. capacity ------------------------------------------------------------


def seated(experts, n_experts, capacity):
    """The rule in plain words: first choices first, then by token."""
    left = [capacity] * n_experts
    kept = torch.zeros_like(experts, dtype=torch.bool)
    for k in range(experts.shape[1]):
        for n in range(experts.shape[0]):
            e = experts[n, k].item()
            if left[e]:
                left[e] -= 1
                kept[n, k] = True
    return kept


@given(
    n=st.integers(0, 11),
    e=st.integers(1, 6),
    k=st.integers(1, 3),
    capacity=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_within_capacity_equals_the_rule(n, e, k, capacity, seed):
    k = min(k, e)
    experts = tensor(n, e, seed=seed).topk(k).indices
    kept = within_capacity(experts, e, capacity)
    assert torch.equal(kept, seated(experts, e, capacity))


@pytest.mark.parametrize(
    ("factor", "n", "k", "seats"),
    [(1.0, 10, 1, 2), (1.0, 11, 1, 3), (1.25, 20, 2, 10), (0.01, 10, 1, 1)],
)
def test_seats_are_the_factor_times_the_fair_share_rounded_up(
    factor, n, k, seats
):
    router = TopKRouter(D, 5, top_k=k, capacity_factor=factor)
    with torch.no_grad():
        router.weight.zero_()[0] = 1.0
    routing = router(tensor(n, D).abs())  # expert 0 is everyone's first
    assert (routing.experts[:, 0] == 0).all()
    assert routing.kept[:, 0].sum() == min(seats, n)
    assert routing.kept[:seats, 0].all()


def test_all_to_one_expert_beyond_its_capacity():
    """Most get nothing; gradients are finite, and push the others in."""
    for layer in pair(top_k=1, capacity_factor=1.0):
        layer = copy.deepcopy(layer)
        with torch.no_grad():
            layer.router.weight.zero_()[2] = 1.0
        x = tensor(20, D, seed=7).abs().requires_grad_()
        with record_routing(layer) as routings:
            y = layer(x)
        assert (routings[0].experts == 2).all()
        served = y.abs().amax(-1) > 0
        assert served.tolist() == [True] * 4 + [False] * 16
        (y.square().sum() + balance_loss(routings)).backward()
        assert x.grad.isfinite().all()
        assert all(
            p.grad is None or p.grad.isfinite().all()
            for p in layer.parameters()
        )
        layer.zero_grad()
        with record_routing(layer) as routings:
            layer(x)
        balance_loss(routings).backward()
        move = -(x.detach().mean(0) @ layer.router.weight.grad.T)
        assert move[2] < 0  # down with the crowded one
        assert (move[[0, 1, 3, 4]] > 0).all()
        assert describe_routing(routings[0]) == (
            "20 tokens x 1 to 5 experts: the fullest is 2 with 5.00 of its "
            "fair share, 4 idle, 80.0% of the slots dropped"
        )


def test_dropped_slots_keep_the_other_expert():
    loop, fast = pair(top_k=2, capacity_factor=0.5)
    x = tensor(N, D)
    routing = loop.router(x)
    half = routing.kept.sum(1) == 1
    assert half.any()
    n = int(half.nonzero()[0])
    slot = int(routing.kept[n].nonzero()[0])
    expert = loop.experts.experts[routing.experts[n, slot]]
    alone = routing.weights[n, slot] * expert(x[n])
    close(loop(x)[n], alone)
    close(fast(x)[n], alone)
    assert routing.assigned[n, 1 - slot] == E


def test_first_choices_of_later_tokens_push_out_second_choices():
    experts = torch.tensor([[0, 1], [0, 1], [1, 0]])
    kept = within_capacity(experts, 2, 2)
    assert kept.tolist() == [[True, True], [True, False], [True, False]]


def test_with_one_choice_the_past_is_safe_from_the_future():
    _, fast = pair(top_k=1, capacity_factor=0.5)
    x = tensor(N, D)
    for seed in range(10):
        other = torch.cat([x[:-1], tensor(1, D, seed=seed)])
        close(fast(other)[:-1], fast(x)[:-1])


# --- 6. losses --------------------------------------------------------------


def routed(logits, k=2):
    top = logits.topk(k)
    return Routing(top.values, top.indices, logits)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_balance_loss_by_finite_differences(k):
    logits = tensor(N, E, dtype=torch.double).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: load_balancing_loss(routed(x, k)), logits
    )
    (got,) = torch.autograd.grad(load_balancing_loss(routed(logits, k)), logits)
    eps = 1e-6
    for n, e in ((0, 0), (5, 3), (33, 4)):
        up, down = logits.detach().clone(), logits.detach().clone()
        up[n, e] += eps
        down[n, e] -= eps
        slope = load_balancing_loss(routed(up, k)) - load_balancing_loss(
            routed(down, k)
        )
        assert abs(got[n, e].item() - slope.item() / (2 * eps)) < 1e-8


def test_balance_loss_by_loops():
    routing = routed(tensor(N, E))
    p = routing.logits.softmax(-1)
    total = 0.0
    for e in range(E):
        share = (routing.experts == e).sum().item() / (2 * N)
        total += share * p[:, e].mean().item()
    assert abs(load_balancing_loss(routing).item() - E * total) < 1e-6


def test_balance_loss_is_one_at_balance_and_e_at_collapse():
    even = torch.eye(E).repeat(3, 1)
    close(load_balancing_loss(routed(even, 1)), torch.tensor(1.0))
    one = torch.zeros(N, E)
    one[:, 2] = 100.0
    close(load_balancing_loss(routed(one, 1)), torch.tensor(float(E)))


def test_balance_loss_reaches_experts_that_nobody_chose():
    logits = tensor(N, E)
    logits[:, 1] = -5.0
    logits.requires_grad_()
    load_balancing_loss(routed(logits)).backward()
    assert (logits.grad[:, 1] < 0).all()


def test_balance_loss_counts_dropped_slots():
    x = tensor(N, D)
    router = fill(TopKRouter(D, E, top_k=2))
    free = load_balancing_loss(router(x))
    router.capacity_factor = 0.3
    assert not router(x).kept.all()
    close(load_balancing_loss(router(x)), free)


def test_masked_tokens_do_not_count():
    logits = tensor(N, E)
    mask = torch.arange(N) % 3 > 0
    masked = load_balancing_loss(routed(logits), mask=mask)
    close(masked, load_balancing_loss(routed(logits[mask])))
    assert abs(masked - load_balancing_loss(routed(logits))) > 1e-4


def test_z_loss():
    logits = tensor(N, E, dtype=torch.double).requires_grad_()
    by_hand = sum(
        math.log(sum(math.exp(v) for v in row)) ** 2 for row in logits.tolist()
    )
    loss = router_z_loss(routed(logits))
    assert abs(loss.item() - by_hand / N) < 1e-10
    assert torch.autograd.gradcheck(lambda x: router_z_loss(routed(x)), logits)
    assert router_z_loss(routed(torch.full((3, 4), -math.log(4)))) < 1e-10


def test_load_is_relative_to_the_fair_share():
    experts = torch.tensor([[0, 1], [0, 2], [0, 1]])
    routing = Routing(torch.ones(3, 2), experts, torch.zeros(3, 4))
    assert expert_load(routing).tolist() == pytest.approx([2, 4 / 3, 2 / 3, 0])
    assert "the fullest is 0 with 2.00" in describe_routing(routing)
    assert "1 idle, 0.0% of the slots dropped" in describe_routing(routing)


# --- 7. recording -----------------------------------------------------------


def test_recording_gives_each_call_in_order_and_leaves_nothing():
    first, second = pair()[1], pair(top_k=3)[1]
    model = nn.Sequential(first, nn.Sequential(second))
    before = {name: set(vars(m)) for name, m in model.named_modules()}
    x = tensor(B, T, D)
    model(x)
    with record_routing(model) as routings:
        assert routings == []
        model(x)
        assert [r.experts.shape[1] for r in routings] == [2, 3]
        model(x)
    assert len(routings) == 4
    model(x)
    assert len(routings) == 4
    assert {name: set(vars(m)) for name, m in model.named_modules()} == before
    assert not any(m._forward_hooks for m in model.modules())


def test_recorded_losses_reach_every_router():
    model = nn.Sequential(pair()[1], pair(top_k=1)[0])
    with record_routing(model) as routings:
        model(tensor(B, T, D))
    loss = balance_loss(routings)
    close(loss, sum(load_balancing_loss(r) for r in routings) / 2)
    loss.backward()
    for layer in model:
        assert layer.router.weight.grad.abs().sum() > 0


def test_recording_ends_when_the_block_fails():
    layer, seen = pair()[1], []

    def fail():
        with record_routing(layer) as routings:
            layer(tensor(B, T, D))
            seen.extend(routings)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert len(seen) == 1
    assert not layer.router._forward_hooks


def test_two_records_do_not_mix():
    layer = pair()[1]
    x = tensor(B, T, D)
    with record_routing(layer) as outer:
        layer(x)
        with record_routing(layer) as inner:
            layer(x)
        layer(x)
    assert (len(outer), len(inner)) == (3, 1)


def test_a_model_without_routers_records_nothing():
    with record_routing(nn.Linear(3, 3)) as routings:
        pass
    assert routings == []


# --- 8. initialisation, state, learning -------------------------------------


def test_initialisation():
    torch.manual_seed(0)
    router = TopKRouter(400, 60)
    assert abs(router.weight.std() * 20 - 1) < 0.02
    assert (router.selection_bias == 0).all()
    stack = GroupedExperts(6, 96, 160)
    for p in stack.parameters():
        expected = math.sqrt(2 / (96 + 160))
        for matrix in p:
            assert abs(matrix.std() / expected - 1) < 0.03
            assert matrix.abs().max() <= math.sqrt(3) * expected + 1e-6


def test_state_dict_round_trip_and_names():
    one, other = pair(shared=True)[1], pair(shared=True)[1]
    one.router.selection_bias[2] = 7.0
    fill(other, 9)
    names = {
        "router.weight",
        "router.selection_bias",
        *(f"experts.{n}_proj" for n in ("gate", "up", "down")),
        *(f"shared.{n}_proj.weight" for n in ("gate", "up", "down")),
        *(f"shared.{n}_proj.bias" for n in ("gate", "up", "down")),
    }
    assert set(one.state_dict()) == names
    other.load_state_dict(one.state_dict())
    x = tensor(B, T, D)
    assert torch.equal(other(x), one(x))


def test_learns_what_a_layer_of_equal_work_cannot():
    """Eight regions, a linear map in each: experts can divide them."""

    def learn(layer, seed):
        torch.manual_seed(seed)
        centres = 3 * F.one_hot(torch.arange(8), 8).float()
        maps = torch.randn(8, 8, 8) / 8**0.5
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        for step in range(301):
            region = torch.randint(8, (256,))
            x = centres[region] + 0.5 * torch.randn(256, 8)
            target = torch.einsum("nd,nde->ne", x - centres[region],
                                  maps[region])  # fmt: skip
            with record_routing(layer) as routings:
                loss = F.mse_loss(layer(x), target)
            if step == 300:
                return loss.item()
            if routings:
                loss = loss + 0.01 * balance_loss(routings)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return None

    torch.manual_seed(0)
    sparse = MoE(TopKRouter(8, 8, top_k=1), GroupedExperts(8, 8, 16))
    dense = GatedFeedForward(8, 16)
    sparse, dense = learn(sparse, 1), learn(dense, 1)
    assert sparse < 0.5 * dense
    assert sparse < 0.08


# --- 9. refusals ------------------------------------------------------------


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_more_choices_than_experts(self):
        refused(
            ValueError,
            "TopKRouter: top_k=9 exceeds n_experts=8: a token cannot use more "
            "experts than there are.",
            *(TopKRouter, 64, 8),
            top_k=9,
        )

    @pytest.mark.parametrize("factor", [0.0, -1.0, math.inf, math.nan])
    def test_capacity_factor_that_is_not_positive(self, factor):
        refused(
            ValueError,
            "TopKRouter: capacity_factor must be positive and finite, got "
            f"{factor}. With 1.0 every expert has its fair share of slots; "
            "None drops nothing.",
            *(TopKRouter, 64, 8),
            capacity_factor=factor,
        )

    @pytest.mark.parametrize(
        "sizes",
        [
            dict(d_model=0, n_experts=8, top_k=2),
            dict(d_model=64, n_experts=0, top_k=2),
            dict(d_model=64, n_experts=8, top_k=0),
        ],
    )
    def test_sizes_below_one(self, sizes):
        text = ", ".join(f"{k}={v}" for k, v in sizes.items())
        refused(
            ValueError,
            f"TopKRouter: sizes must be at least 1, got {text}.",
            TopKRouter,
            **sizes,
        )

    def test_a_router_that_cannot_learn(self):
        refused(
            ValueError,
            "TopKRouter: with top_k=1 a normalised weight is always 1, and no "
            "gradient reaches the router. Use normalize=False.",
            *(TopKRouter, 64, 8),
            top_k=1,
            normalize=True,
        )

    def test_router_on_another_width(self):
        refused(
            ValueError,
            "TopKRouter: x must have shape (N, D=8), got (3, 7). This router "
            "was built with d_model=8.",
            *(TopKRouter(8, 4), torch.zeros(3, 7)),
        )

    def test_router_and_experts_that_do_not_fit(self):
        refused(
            ValueError,
            "MoE: the router chooses among 4 experts, and there are 5.",
            *(MoE, TopKRouter(8, 4), GroupedExperts(5, 8, 12)),
        )

    def test_wrong_width(self):
        refused(
            ValueError,
            "MoE: x must have shape (..., D=8), got (2, 5, 7). This layer was "
            "built with d_model=8.",
            *(pair()[1], torch.zeros(2, 5, 7)),
        )

    def test_no_experts(self):
        refused(
            ValueError,
            "Experts: needs at least 1 expert, got n_experts=0.",
            *(Experts, 0, lambda: None),
        )
        refused(
            ValueError,
            "GroupedExperts: sizes must be at least 1, got n_experts=3, "
            "d_model=8, d_ff=0.",
            *(GroupedExperts, 3, 8, 0),
        )

    def test_layers_that_cannot_be_packed(self):
        def gated(d_ff=5, **options):
            return GatedFeedForward(8, d_ff, **options)

        refused(
            ValueError,
            "pack: needs layers of one size, got (d_model, d_ff) of "
            "[(8, 5), (8, 6)].",
            *(pack, [gated(bias=False), gated(6, bias=False)]),
        )
        refused(
            ValueError,
            "pack: needs layers of one size, got (d_model, d_ff) of [].",
            *(pack, []),
        )
        refused(
            ValueError,
            "pack: stacked experts have no biases: bias=False.",
            *(pack, [gated(), gated()]),
        )
        refused(
            ValueError,
            "pack: stacked experts have no dropout.",
            *(pack, [gated(bias=False, dropout=0.1)]),
        )

    def test_counts_of_another_length(self):
        refused(
            ValueError,
            "grouped_linear: counts must have shape (E=3,), got (2,).",
            *(grouped_linear, torch.zeros(4, 8), torch.zeros(3, 8, 8)),
            torch.tensor([2, 2]),
        )

    def test_capacity_below_one(self):
        refused(
            ValueError,
            "within_capacity: capacity must be at least 1, got 0.",
            *(within_capacity, torch.zeros(3, 1, dtype=torch.long), 4, 0),
        )

    def test_mask_of_another_length(self):
        refused(
            ValueError,
            "load_balancing_loss: mask must have shape (N=6,), got (5,).",
            *(load_balancing_loss, routed(torch.zeros(6, 4))),
            mask=torch.ones(5, dtype=torch.bool),
        )

    def test_nothing_but_padding(self):
        refused(
            ValueError,
            "load_balancing_loss: no token counts. Is everything padding?",
            *(load_balancing_loss, routed(torch.zeros(6, 4))),
            mask=torch.zeros(6, dtype=torch.bool),
        )

    def test_balance_of_nothing(self):
        refused(
            ValueError,
            "balance_loss: no routing was recorded. Call a model that has a "
            "TopKRouter inside `with record_routing(model)`. A compiled model "
            "does not call hooks that came later: record the original.",
            *(balance_loss, []),
        )


# --- 10. compile ------------------------------------------------------------


def test_compiles():
    """In a fresh interpreter: the import hook would break the graph.

    How many tokens an expert gets is known at run time only, so the graph may
    break; the numbers may not.
    """
    runs_apart("""
        import torch
        from litformer.moe import GroupedExperts, MoE, TopKRouter
        torch.manual_seed(0)
        layer = MoE(TopKRouter(8, 4), GroupedExperts(4, 8, 12))
        x = torch.randn(2, 17, 8)
        compiled = torch.compile(layer, backend="aot_eager")
        torch.testing.assert_close(compiled(x), layer(x))
        compiled(x).square().sum().backward()
        got = layer.experts.up_proj.grad.clone()
        layer.zero_grad()
        layer(x).square().sum().backward()
        torch.testing.assert_close(got, layer.experts.up_proj.grad)
    """)
