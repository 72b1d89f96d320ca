"""`Block`: torch's encoder and decoder layers, laws, seams and refusals."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import refused, runs_apart
from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.feedforward import FeedForward, GatedFeedForward
from litformer.kv_cache import KVCache
from litformer.norm import LayerNorm, RMSNorm
from litformer.positions import ALiBi, RotaryEmbedding, WithBias

B, T, S, H, DH, FF = 2, 5, 7, 3, 4, 29
D = H * DH


def tensor(*shape, seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)


def close(a, b, tol=1e-5):
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


def make_block(*, seed=0, cross=False, ff=None, attn=None, **options):
    """Random weights and biases: zeros and ones would hide mistakes."""
    block = Block(
        D,
        MultiHeadAttention(D, H) if attn is None else attn,
        FeedForward(D, FF) if ff is None else ff,
        cross_attn=MultiHeadAttention(D, H) if cross else None,
        **options,
    )
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in block.named_parameters():
            noise = torch.randn(p.shape, generator=make) / p.shape[-1] ** 0.5
            p.copy_(1 + noise if "norm" in name and "weight" in name else noise)
    return block


def names(block):
    """(their name, our tensors) for each parameter of torch's layers."""
    found = {}

    def attention(theirs, layer):
        three = layer.q_proj, layer.k_proj, layer.v_proj
        found[f"{theirs}.in_proj_weight"] = [p.weight for p in three]
        found[f"{theirs}.in_proj_bias"] = [p.bias for p in three]
        found[f"{theirs}.out_proj.weight"] = [layer.o_proj.weight]
        found[f"{theirs}.out_proj.bias"] = [layer.o_proj.bias]

    def pair(theirs, layer):
        found[f"{theirs}.weight"] = [layer.weight]
        found[f"{theirs}.bias"] = [layer.bias]

    attention("self_attn", block.attn)
    norms = [block.norm_attn, block.norm_ff]
    if block.cross_attn is not None:
        attention("multihead_attn", block.cross_attn)
        norms.insert(1, block.norm_cross)
    pair("linear1", block.ff.up_proj)
    pair("linear2", block.ff.down_proj)
    for i, norm in enumerate(norms, 1):
        pair(f"norm{i}", norm)
    return found


def theirs(block):
    """Torch's layer with the weights of a block of ours."""
    crosses = block.cross_attn is not None
    kind = nn.TransformerDecoderLayer if crosses else nn.TransformerEncoderLayer
    layer = kind(
        D,
        H,
        FF,
        dropout=block.dropout,
        activation=block.ff.activation,
        batch_first=True,
        norm_first=block.norm_first,
    )
    state = {name: torch.cat(ts) for name, ts in names(block).items()}
    layer.load_state_dict(state)
    return layer


# --- 1. oracle --------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
@pytest.mark.parametrize("kind", ["plain", "padded", "causal"])
@pytest.mark.parametrize("cross", [False, True])
def test_parity_with_torch_forward_and_gradients(
    norm_first, activation, kind, cross
):
    ff = FeedForward(D, FF, activation=activation)
    block = make_block(cross=cross, norm_first=norm_first, ff=ff)
    layer = theirs(block)
    inputs = [tensor(B, T, D)] + cross * [tensor(B, S, D, seed=1)]
    mine, other = (
        [x.clone().requires_grad_() for x in inputs] for _ in range(2)
    )
    options, their_options = {}, {}
    mask = torch.ones(B, T, dtype=torch.bool)
    mask[1, 3:] = False
    prefix = "tgt" if cross else "src"
    if kind == "padded":
        options["mask"] = mask[:, None, None]
        their_options[f"{prefix}_key_padding_mask"] = ~mask  # True = hidden
        if cross:
            far = torch.ones(B, S, dtype=torch.bool)
            far[0, 4:] = False
            options["context_mask"] = far[:, None, None]
            their_options["memory_key_padding_mask"] = ~far
    if kind == "causal":
        options["causal"] = True
        name = "tgt_mask" if cross else "src_mask"
        future = torch.ones(T, T, dtype=torch.bool).triu(1)
        their_options[name] = future
    out, expected = block(*mine, **options), layer(*other, **their_options)
    close(out, expected)
    up = tensor(B, T, D, seed=2)
    out.backward(up)
    expected.backward(up)
    for a, b in zip(mine, other, strict=True):
        close(a.grad, b.grad)
    reference = dict(layer.named_parameters())
    found = names(block)
    assert found.keys() == reference.keys()
    for name, tensors in found.items():
        grad = torch.cat([t.grad for t in tensors])
        close(grad, reference[name].grad)


def known_dropout(x, p=0.5, training=True, inplace=False):
    """A dropout whose mask depends on the shape alone.

    The real one draws in the order of the memory, which differs.
    """
    if p == 0 or not training:
        return x
    keep = tensor(*x.shape, seed=x.shape[-1]) > 0
    return x * keep / (1 - p)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("cross", [False, True])
def test_dropout_stands_where_torch_has_it(monkeypatch, cross, norm_first):
    block = make_block(cross=cross, dropout=0.4, norm_first=norm_first)
    block.ff.dropout = 0.4
    layer = theirs(block)
    layer.self_attn.dropout = 0.0  # weights are dropped inside other kernels
    if cross:
        layer.multihead_attn.dropout = 0.0
    inputs = [tensor(B, T, D)] + cross * [tensor(B, S, D, seed=1)]
    monkeypatch.setattr(F, "dropout", known_dropout)
    mine = block(*inputs)
    close(mine, layer(*inputs))
    block.eval()
    close(block(*inputs), layer.eval()(*inputs))
    assert not torch.allclose(mine, block(*inputs))


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("cross", [False, True])
def test_the_wiring_written_out(norm_first, cross):
    """Norms of two kinds, a gate, and no class of torch's."""
    ff = GatedFeedForward(D, FF)
    block = make_block(cross=cross, ff=ff, norm=RMSNorm, norm_first=norm_first)
    x, context = tensor(B, T, D), tensor(B, S, D, seed=1)
    steps = [(block.norm_attn, lambda y: block.attn(y, causal=True))]
    if cross:
        steps += [(block.norm_cross, lambda y: block.cross_attn(y, context))]
    steps += [(block.norm_ff, block.ff)]
    expected = x
    for norm, sublayer in steps:
        if norm_first:
            expected = expected + sublayer(norm(expected))
        else:
            expected = norm(expected + sublayer(expected))
    args = (x, context) if cross else (x,)
    close(block(*args, causal=True), expected)


# --- 2. laws ----------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [True, False])
def test_future_tokens_cannot_change_the_past(norm_first):
    block = make_block(norm_first=norm_first)
    x = tensor(B, T, D).requires_grad_()
    for t in range(T):
        out = (block(x, causal=True)[:, t] * tensor(D, seed=4)).sum()
        (grad,) = torch.autograd.grad(out, x)
        assert (grad[:, t + 1 :] == 0).all()
        assert (grad[:, : t + 1].abs().amax(-1) > 0).all()


@pytest.mark.parametrize("norm_first", [True, False])
def test_padding_and_the_batch_change_nothing(norm_first):
    block = make_block(norm_first=norm_first).double()
    x = tensor(B, T, D, dtype=torch.double)
    x[1, 3:] = 1e3  # whatever stands there
    mask = torch.ones(B, 1, 1, T, dtype=torch.bool)
    mask[1, ..., 3:] = False
    out = block(x, mask=mask)
    close(out[1, :3], block(x[1:, :3])[0], 1e-10)
    close(out[0], block(x[:1])[0], 1e-10)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("cross", [False, True])
@pytest.mark.parametrize("pieces", [[1] * 5, [3, 2], [1, 3, 1]])
@pytest.mark.parametrize("rotary", [False, True])
def test_cached_equals_uncached(norm_first, cross, pieces, rotary):
    turn = RotaryEmbedding(DH) if rotary else None
    attn = MultiHeadAttention(D, H, n_kv_heads=1, rotary=turn)
    block = make_block(attn=attn, cross=cross, norm_first=norm_first).double()
    x = tensor(B, T, D, dtype=torch.double)
    context = (tensor(B, S, D, seed=1, dtype=torch.double),) * cross
    whole = block(x, *context, causal=True)
    cache = KVCache()
    parts = [
        block(p, *context, causal=True, cache=cache) for p in x.split(pieces, 1)
    ]
    close(torch.cat(parts, 1), whole, 1e-10)
    assert len(cache) == T


def test_equivariant_without_positions():
    block = make_block().double()
    x = tensor(B, T, D, dtype=torch.double)
    order = torch.randperm(T, generator=torch.manual_seed(5))
    close(block(x[:, order]), block(x)[:, order], 1e-10)


def test_a_silent_pre_norm_block_is_the_identity():
    block = make_block()
    with torch.no_grad():
        for layer in (block.attn.o_proj, block.ff.down_proj):
            layer.weight.zero_()
            layer.bias.zero_()
    x = tensor(B, T, D)
    assert torch.equal(block(x), x)
    block.norm_first = False
    close(block(x), block.norm_ff(block.norm_attn(x)))


def test_nothing_is_left_behind_on_the_block():
    block = make_block()
    before = set(vars(block))
    block(tensor(B, T, D))
    assert set(vars(block)) == before


@pytest.mark.parametrize("norm_first", [True, False])
def test_state_round_trip(norm_first):
    block = make_block(cross=True, norm_first=norm_first)
    other = make_block(seed=1, cross=True, norm_first=norm_first)
    other.load_state_dict(block.state_dict())
    inputs = tensor(B, T, D), tensor(B, S, D, seed=1)
    assert torch.equal(other(*inputs), block(*inputs))
    assert {n.split(".")[0] for n in block.state_dict()} == {
        "norm_attn",
        "attn",
        "norm_cross",
        "cross_attn",
        "norm_ff",
        "ff",
    }


def test_runs_in_bf16():
    block, x = make_block(), tensor(B, T, D)
    expected = block(x)
    out = block.bfloat16()(x.bfloat16())
    assert out.dtype == torch.bfloat16
    close(out.float(), expected, 1e-1)


# --- 3. seams ---------------------------------------------------------------


def test_positions_reach_the_attention():
    attn = MultiHeadAttention(D, H, rotary=RotaryEmbedding(DH))
    block = make_block(attn=attn).double()
    x = tensor(B, T, D, dtype=torch.double)
    close(block(x, positions=torch.arange(9, 9 + T)), block(x), 1e-10)
    stretched = block(x, positions=3 * torch.arange(T))
    assert not torch.allclose(stretched, block(x), atol=1e-3)


def test_a_bias_comes_with_the_attention():
    attn = MultiHeadAttention(D, H, attend=WithBias(ALiBi(H)))
    biased, plain = make_block(attn=attn), make_block()
    x = tensor(B, T, D)
    assert not torch.allclose(biased(x), plain(x), atol=1e-3)


def test_a_context_of_another_width():
    block = Block(
        D,
        MultiHeadAttention(D, H),
        FeedForward(D, FF),
        cross_attn=MultiHeadAttention(D, H, d_context=17),
    )
    assert block(tensor(B, T, D), tensor(B, S, 17)).shape == (B, T, D)


@pytest.mark.parametrize(
    "norm",
    [
        LayerNorm,
        RMSNorm,
        nn.LayerNorm,
        partial(LayerNorm, eps=1e-12),
        lambda d_model: nn.Identity(),
    ],
)
def test_any_norm_of_a_width(norm):
    block = make_block(cross=True, norm=norm)
    assert block(tensor(B, T, D), tensor(B, S, D)).shape == (B, T, D)
    kept = {block.norm_attn, block.norm_cross, block.norm_ff}
    assert len(kept) == 3  # three norms, not one shared


class Scaled(nn.Module):
    """LayerScale: a sublayer's word, weighted for each coordinate."""

    def __init__(self, inner, scale):
        super().__init__()
        self.inner = inner
        self.scale = nn.Parameter(torch.full((D,), scale))

    def forward(self, *args, **options):
        return self.scale * self.inner(*args, **options)


def test_a_wrapped_sublayer_is_handed_what_the_block_was_given():
    attn = Scaled(MultiHeadAttention(D, H), 0.0)
    block = Block(D, attn, Scaled(FeedForward(D, FF), 0.0))
    x = tensor(B, T, D)
    assert torch.equal(block(x, causal=True), x)
    with torch.no_grad():
        attn.scale.fill_(2.0)
    expected = x + 2 * attn.inner(block.norm_attn(x), causal=True)
    close(block(x, causal=True), expected)
    assert not torch.allclose(block(x), expected)


class TwoExperts(nn.Module):
    """Each token to one of two feed-forward layers, chosen by its sign."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(FeedForward(D, FF) for _ in range(2))

    def forward(self, x):
        flat = x.flatten(0, 1)
        first = flat[:, 0] > 0
        out = torch.empty_like(flat)
        out[first] = self.experts[0](flat[first])
        out[~first] = self.experts[1](flat[~first])
        return out.view_as(x)


def test_experts_in_place_of_the_feed_forward():
    block = make_block(ff=TwoExperts())
    x = tensor(B, T, D)
    block(x).sum().backward()
    grads = [e.up_proj.weight.grad for e in block.ff.experts]
    assert all(g is not None for g in grads)


def test_a_mixer_that_knows_no_masks():
    """Any module will do, and one without `causal` says so if asked."""
    block = Block(D, nn.Linear(D, D), FeedForward(D, FF))
    assert block(tensor(B, T, D)).shape == (B, T, D)
    with pytest.raises(TypeError, match="causal"):
        block(tensor(B, T, D), causal=True)


# --- 4. errors --------------------------------------------------------------


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class Mean(nn.Module):
    """Would be broadcast to every token."""

    def forward(self, x):
        return x.mean(1, keepdim=True)


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_another_width(self):
        refused(
            ValueError,
            "Block: x must have shape (B, T, D=12), got (2, 5, 7). This block "
            "was built with d_model=12.",
            *(make_block(), tensor(B, T, 7)),
        )

    def test_no_batch(self):
        refused(
            ValueError,
            "Block: x must have shape (B, T, D=12), got (5, 12). This block "
            "was built with d_model=12.",
            *(make_block(), tensor(T, D)),
        )

    @pytest.mark.parametrize("dropout", [-0.1, 1.0])
    def test_dropout_outside(self, dropout):
        refused(
            ValueError,
            f"Block: dropout must lie in [0, 1), got {dropout}.",
            make_block,
            dropout=dropout,
        )

    def test_a_context_that_nobody_reads(self):
        refused(
            ValueError,
            "Block: got context=, but this block has no cross-attention to "
            "read it. Build it with cross_attn=.",
            *(make_block(), tensor(B, T, D), tensor(B, S, D)),
        )

    def test_a_context_mask_that_nobody_reads(self):
        refused(
            ValueError,
            "Block: got context_mask=, but this block has no cross-attention "
            "to read it. Build it with cross_attn=.",
            *(make_block(), tensor(B, T, D)),
            context_mask=torch.ones(T, S, dtype=torch.bool),
        )

    def test_no_context(self):
        refused(
            ValueError,
            "Block: this block has cross-attention and needs context=, such "
            "as the output of an encoder.",
            *(make_block(cross=True), tensor(B, T, D)),
        )

    def test_a_sublayer_that_returns_a_pair(self):
        refused(
            TypeError,
            "Block: the output of Pair must be a torch.Tensor of shape (B=2, "
            "T=5, D=12), got tuple. A sublayer returns one tensor, with the "
            "shape of its input.",
            *(make_block(ff=Pair()), tensor(B, T, D)),
        )

    def test_a_sublayer_whose_output_would_broadcast(self):
        refused(
            ValueError,
            "Block: the output of Mean must have shape (B=2, T=5, D=12), got "
            "(2, 1, 12). A sublayer returns one tensor, with the shape of its "
            "input.",
            *(make_block(attn=Mean()), tensor(B, T, D)),
        )


# --- 5. compile -------------------------------------------------------------


def test_compiles_without_a_graph_break():
    """In a fresh interpreter: the import hook would break the graph."""
    runs_apart("""
        import torch
        from litformer.attention import MultiHeadAttention
        from litformer.blocks import Block
        from litformer.feedforward import FeedForward, GatedFeedForward
        from litformer.norm import RMSNorm
        torch.manual_seed(0)
        x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
        encoder = Block(12, MultiHeadAttention(12, 3), FeedForward(12, 29))
        decoder = Block(12, MultiHeadAttention(12, 3),
                        GatedFeedForward(12, 16), norm=RMSNorm,
                        cross_attn=MultiHeadAttention(12, 3),
                        norm_first=False)
        for block, args in ((encoder, (x,)), (decoder, (x, context))):
            compiled = torch.compile(block, fullgraph=True,
                                     backend="aot_eager")
            torch.testing.assert_close(compiled(*args, causal=True),
                                       block(*args, causal=True))
    """)
