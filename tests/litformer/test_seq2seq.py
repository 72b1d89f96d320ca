"""`Encoder`, `Decoder`, `Seq2Seq`: against `nn.Transformer`, and laws.

The oracle has the weights of ours, copied name by name; outputs and the
gradients of every weight are compared.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import refused, runs_apart
from litformer.attention import MultiHeadAttention
from litformer.blocks import Block
from litformer.decoder import Decoder, Recall
from litformer.encoder import Encoder
from litformer.feedforward import FeedForward
from litformer.kv_cache import KVCache
from litformer.norm import LayerNorm, RMSNorm
from litformer.seq2seq import Memory, Seq2Seq, Seq2SeqConfig

B, S, T, H, DH, F_, L = 2, 7, 5, 3, 22, 29, 2
D = H * DH
SIZES = dict(
    source_vocab=23,
    target_vocab=19,
    d_model=D,
    n_heads=H,
    d_ff=F_,
    n_encoder_layers=L,
    n_decoder_layers=3,
    dropout=0.0,
    max_len=31,
)


def scramble(model, seed=0):
    """Random weights everywhere: zero biases would hide mistakes."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.copy_(torch.randn(p.shape, generator=make))
            else:
                p.copy_(torch.randn(p.shape, generator=make))
                p.mul_(p.shape[-1] ** -0.5)
    return model


def make_model(**changes):
    return scramble(Seq2Seq(Seq2SeqConfig(**(SIZES | changes)))).eval()


def batch(seed=1, b=B, s=S, t=T):
    dice = torch.Generator().manual_seed(seed)
    source = torch.randint(3, 23, (b, s), generator=dice)
    target = torch.randint(3, 19, (b, t), generator=dice)
    target[:, 0] = 1
    return source, target


def close(a, b, tol=1e-5):
    torch.testing.assert_close(a, b, atol=tol, rtol=tol)


# --- 1. oracle: nn.Transformer ----------------------------------------------
def names(cross):
    """Weights of their layer, and how ours makes each of them."""
    found = {}
    attentions = {"self_attn": "attn"}
    if cross:
        attentions["multihead_attn"] = "cross_attn"
    for theirs, ours in attentions.items():
        for kind in ("weight", "bias"):
            found[f"{theirs}.in_proj_{kind}"] = [
                f"{ours}.{n}_proj.{kind}" for n in "qkv"
            ]
            found[f"{theirs}.out_proj.{kind}"] = [f"{ours}.o_proj.{kind}"]
    norms = ["norm_attn", *(["norm_cross"] if cross else []), "norm_ff"]
    for i, ours in enumerate(norms, 1):
        for kind in ("weight", "bias"):
            found[f"norm{i}.{kind}"] = [f"{ours}.{kind}"]
    for theirs, ours in {"linear1": "up", "linear2": "down"}.items():
        for kind in ("weight", "bias"):
            found[f"{theirs}.{kind}"] = [f"ff.{ours}_proj.{kind}"]
    return found


def table(n_encoder, n_decoder, norms=True):
    """Every weight of nn.Transformer, and ours that it is made of."""
    found = {}
    for side, n, cross in (
        ("encoder", n_encoder, False),
        ("decoder", n_decoder, True),
    ):
        for i in range(n):
            for theirs, ours in names(cross).items():
                found[f"{side}.layers.{i}.{theirs}"] = [
                    f"{side}.blocks.{i}.{name}" for name in ours
                ]
        if norms:
            for kind in ("weight", "bias"):
                found[f"{side}.norm.{kind}"] = [f"{side}.norm.{kind}"]
    return found


class Stacks(nn.Module):
    """Our two stacks as nn.Transformer has them: with a last norm each."""

    def __init__(self, norm_first, activation):
        super().__init__()

        def block(cross):
            return Block(
                D,
                MultiHeadAttention(D, H),
                FeedForward(D, F_, activation=activation),
                cross_attn=MultiHeadAttention(D, H) if cross else None,
                norm_first=norm_first,
            )

        self.encoder = Encoder([block(False) for _ in range(L)], LayerNorm(D))
        self.decoder = Decoder([block(True) for _ in range(3)], LayerNorm(D))


def theirs_of(model, norm_first, activation, norms=True):
    """`nn.Transformer` with the weights of ours."""
    options = dict(
        activation=activation, batch_first=True, norm_first=norm_first
    )
    layer = nn.TransformerEncoderLayer(D, H, F_, 0.0, **options)
    encoder = nn.TransformerEncoder(
        layer, L, nn.LayerNorm(D), enable_nested_tensor=False
    )
    other = nn.Transformer(
        D, H, L, 3, F_, 0.0, custom_encoder=encoder, **options
    )
    if not norms:
        other.encoder.norm = other.decoder.norm = None
    ours = dict(model.named_parameters())
    with torch.no_grad():
        for name, p in other.named_parameters():
            parts = table(L, 3, norms)[name]
            p.copy_(torch.cat([ours[part] for part in parts]))
    assert {n for n, _ in other.named_parameters()} == set(table(L, 3, norms))
    return other


def same_gradients(model, other, norms=True):
    ours = dict(model.named_parameters())
    theirs = dict(other.named_parameters())
    for name, parts in table(L, 3, norms).items():
        mine = torch.cat([ours[part].grad for part in parts])
        scale = theirs[name].grad.abs().max().clamp(min=1.0)
        close(mine / scale, theirs[name].grad / scale)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("activation", [F.relu, F.gelu])
def test_both_stacks_equal_nn_transformer(norm_first, activation):
    model = scramble(Stacks(norm_first, activation))
    other = theirs_of(model, norm_first, activation)
    make = torch.Generator().manual_seed(2)
    x, y = (torch.randn(B, n, D, generator=make) for n in (S, T))
    x, y, x2, y2 = (a.clone().requires_grad_() for a in (x, y, x, y))
    real = torch.tensor([[True] * S, [True] * 4 + [False] * 3])
    mask = real[:, None, None, :]
    memory = model.encoder(x, mask=mask)
    out = model.decoder(y, memory, context_mask=mask)
    expected = other(
        x2,
        y2,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(T),
        tgt_is_causal=True,
        src_key_padding_mask=~real,  # True means the opposite there
        memory_key_padding_mask=~real,
    )
    close(out, expected)
    up = torch.randn(B, T, D, generator=make)
    out.backward(up)
    expected.backward(up)
    close(x.grad, x2.grad)
    close(y.grad, y2.grad)
    same_gradients(model, other)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_the_whole_model_equals_one_built_around_nn_transformer(
    norm_first, tied
):
    model = make_model(norm_first=norm_first, tie_embeddings=tied)
    other = theirs_of(model, norm_first, F.relu, norms=norm_first)
    source, target = batch()
    source[1, 4:] = 0
    table_in = model.source_embed.weight.detach().clone()
    table_out = model.target_embed.weight.detach().clone().requires_grad_()
    places = model.positions.table
    x = table_in[source] * math.sqrt(D) + places[:S]
    y = table_out[target] * math.sqrt(D) + places[:T]
    hidden = other(
        x,
        y,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(T),
        src_key_padding_mask=source == 0,
        memory_key_padding_mask=source == 0,
    )
    last = table_out if tied else model.lm_head.weight.detach()
    expected = hidden @ last.T
    logits = model(source, target)
    close(logits, expected)
    labels = torch.randint(3, 19, (B, T), generator=torch.manual_seed(3))
    F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    F.cross_entropy(expected.flatten(0, 1), labels.flatten()).backward()
    same_gradients(model, other, norm_first)
    close(model.target_embed.weight.grad, table_out.grad)


# --- 2. laws ----------------------------------------------------------------
@pytest.mark.parametrize("norm_first", [True, False])
def test_causality(norm_first):
    """What follows in the target cannot change a logit before it."""
    model = make_model(norm_first=norm_first).double()
    source, target = batch()
    before = model(source, target)
    for t in range(1, T):
        changed = target.clone()
        changed[:, t:] = (changed[:, t:] - 2) % 16 + 3
        assert (changed[:, t:] != target[:, t:]).all()
        after = model(source, changed)
        close(after[:, :t], before[:, :t], 1e-12)
        assert (after[:, t] - before[:, t]).abs().max() > 1e-6


def test_every_source_token_reaches_every_logit():
    model = make_model().double()
    source, target = batch()
    before = model(source, target)
    for s in range(S):
        changed = source.clone()
        changed[:, s] = (changed[:, s] - 2) % 20 + 3
        moved = (model(changed, target) - before).abs().amax(-1)
        assert (moved > 1e-9).all()


@pytest.mark.parametrize("norm_first", [True, False])
def test_padding_invariance(norm_first):
    model = make_model(norm_first=norm_first).double()
    source, target = batch()
    before = model(source, target)
    longer = F.pad(source, (0, 4))
    states, mask = model.encode(longer)
    close(states[:, :S], model.encode(source).states, 1e-12)
    assert mask[:, 0, 0].tolist() == [[True] * S + [False] * 4] * B
    close(model(longer, target), before, 1e-12)
    close(model(longer, F.pad(target, (0, 3)))[:, :T], before, 1e-12)


def test_batch_invariance():
    model = make_model().double()
    source, target = batch(b=3)
    source[0, 3:] = 0
    whole = model(source, target)
    for b in range(3):
        alone = model(source[b : b + 1], target[b : b + 1])
        close(alone, whole[b : b + 1], 1e-12)
    short = model(source[:1, :3], target[:1])
    close(short, whole[:1], 1e-12)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("pieces", [[1] * 5, [2, 3], [5], [1, 3, 1]])
def test_a_session_equals_the_whole(norm_first, pieces):
    model = make_model(norm_first=norm_first).double()
    source, target = batch()
    source[1, 4:] = 0
    memory = model.encode(source)
    whole = model.decode(target, memory)
    session, end = model.session(memory), 0
    for piece in target.split(pieces, dim=1):
        end += piece.shape[1]
        close(session.step(piece), whole[:, end - 1], 1e-12)
    assert {len(cache) for cache in session.caches} == {T}


def test_a_session_follows_a_search():
    model = make_model().double()
    source, _ = batch(b=1)
    memory = model.encode(source).repeat(3)
    target = torch.tensor([[1, 5, 6], [1, 7, 8], [1, 9, 10]])
    session = model.session(memory)
    session.step(target)
    session.reorder(torch.tensor([2, 0, 0]))
    after = torch.tensor([[1, 9, 10, 4], [1, 5, 6, 3], [1, 5, 6, 8]])
    got = session.step(after[:, 3:])
    close(got, model.decode(after, memory)[:, -1], 1e-12)


def test_a_session_makes_keys_of_the_context_once(monkeypatch):
    model = make_model()
    source, target = batch()
    memory = model.encode(source)
    calls = []
    for block in model.decoder.blocks:
        block.cross_attn.k_proj.register_forward_hook(
            lambda *_: calls.append(1)
        )
    session = model.session(memory)
    for token in target.split(1, dim=1):
        session.step(token)
    assert len(calls) == len(model.decoder.blocks)
    calls.clear()
    model.decode(target, memory)
    assert len(calls) == len(model.decoder.blocks)


@pytest.mark.parametrize("n_kv_heads", [1, 3])
def test_recall_equals_cross_attention(n_kv_heads):
    attn = scramble(
        MultiHeadAttention(D, H, n_kv_heads=n_kv_heads, d_context=13)
    )
    x, context = torch.randn(B, T, D), torch.randn(B, S, 13)
    mask = torch.tensor([5, 7])[:, None, None, None] > torch.arange(S)
    recall = Recall(attn, context)
    close(recall(x, context, mask=mask), attn(x, context, mask=mask))


def test_recall_keeps_mode_norms_and_training():
    blocks = [
        Block(
            D,
            MultiHeadAttention(D, H),
            FeedForward(D, F_),
            cross_attn=MultiHeadAttention(D, H, dropout=0.5),
            norm=RMSNorm,
            norm_first=False,
            dropout=0.25,
        )
    ]
    decoder = scramble(Decoder(blocks))
    x, context = torch.randn(B, T, D), torch.randn(B, S, D)
    torch.manual_seed(0)
    expected = decoder(x, context)
    twin = decoder.recall(context)
    torch.manual_seed(0)
    close(twin(x, context), expected)  # dropout acts, and alike
    decoder.eval()
    close(decoder.recall(context)(x, context), decoder(x, context))
    assert isinstance(decoder.blocks[0].cross_attn, MultiHeadAttention)
    assert decoder.recall(context).blocks[0].norm_cross is blocks[0].norm_cross


def test_decoder_with_caches_equals_without():
    decoder = make_model().decoder.double()
    x = torch.randn(B, T, D, dtype=torch.double)
    context = torch.randn(B, S, D, dtype=torch.double)
    caches = [KVCache() for _ in decoder.blocks]
    steps = [decoder(p, context, caches=caches) for p in x.split(1, 1)]
    close(torch.cat(steps, 1), decoder(x, context), 1e-12)


def test_a_mask_hides_target_tokens():
    """Packed or padded targets: `mask` is combined with the causal rule."""
    decoder = make_model().decoder.double()
    x = torch.randn(B, T, D, dtype=torch.double)
    context = torch.randn(B, S, D, dtype=torch.double)
    mask = torch.ones(T, T, dtype=torch.bool)
    mask[2:, 1] = False  # later tokens may not see token 1
    before = decoder(x, context, mask=mask)
    x[:, 1] += 1.0
    close(decoder(x, context, mask=mask)[:, 2:], before[:, 2:], 1e-12)


def test_memory_repeats_rows_in_place():
    states, mask = torch.arange(2.0).view(2, 1, 1), torch.ones(2, 1, 1, 1)
    memory = Memory(states, mask.bool()).repeat(2)
    assert memory.states.flatten().tolist() == [0, 0, 1, 1]
    assert memory.mask.shape == (4, 1, 1, 1)


def test_dropout_in_training_only():
    model = make_model(dropout=0.3)
    source, target = batch()
    assert torch.equal(model(source, target), model(source, target))
    model.train()
    assert not torch.equal(model(source, target), model(source, target))


# --- 3. initialisation and state --------------------------------------------
@pytest.mark.parametrize("tied", [True, False])
def test_initialisation_is_the_table_of_init_weights(tied):
    torch.manual_seed(0)
    config = Seq2SeqConfig(
        499, 601, 128, 4, 512, 1, 1, norm_first=True, tie_embeddings=tied
    )
    model = scramble(Seq2Seq(config))
    model.init_weights()
    for name, p in model.named_parameters():
        if "embed" in name:
            assert p.std().item() == pytest.approx(128**-0.5, rel=0.03), name
        elif p.ndim == 2:
            std = math.sqrt(2 / sum(p.shape))
            assert p.std().item() == pytest.approx(std, rel=0.03), name
            assert p.abs().max() <= math.sqrt(3) * std + 1e-6
        elif "norm" in name and "weight" in name:
            assert (p == 1).all(), name
        else:
            assert (p == 0).all(), name


def test_base_is_the_paper_and_tiny_is_small():
    base = Seq2SeqConfig.base(37_000, 37_000)
    assert (base.d_model, base.n_heads, base.d_ff) == (512, 8, 2048)
    assert (base.n_encoder_layers, base.n_decoder_layers) == (6, 6)
    assert not base.norm_first
    assert base.dropout == 0.1
    with torch.device("meta"):
        model = Seq2Seq(base)
    weights = sum(p.numel() for p in model.parameters())
    # the paper shares one table of 37 000 rows and counts 65 million
    assert weights - 37_000 * 512 == pytest.approx(65e6, rel=0.04)
    tiny = Seq2Seq(Seq2SeqConfig.tiny(35, 39, dropout=0.2))
    assert tiny.config.dropout == 0.2
    assert tiny.config.norm_first
    assert 5e5 < sum(p.numel() for p in tiny.parameters()) < 6e5


def test_state_dict_round_trip_and_no_hidden_copies():
    model, other = make_model(), make_model()
    scramble(other, seed=5)
    other.load_state_dict(model.state_dict())
    source, target = batch()
    assert torch.equal(model(source, target), other(source, target))
    pointers = [p.data_ptr() for p in model.state_dict().values()]
    assert len(pointers) == len({*pointers})  # nothing is stored twice
    assert "lm_head.weight" in make_model(tie_embeddings=False).state_dict()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_runs_in_the_dtype_of_its_weights(dtype):
    model = make_model(norm_first=True)
    source, target = batch()
    expected = model(source, target)
    out = model.to(dtype)(source, target)
    assert out.dtype == dtype
    tol = 0.3 if dtype == torch.bfloat16 else 1e-4
    assert (out.float() - expected).abs().mean() < tol


# --- 4. learning ------------------------------------------------------------
def test_learns_to_reverse_in_a_hundred_and_fifty_steps():
    torch.manual_seed(0)
    config = Seq2SeqConfig.tiny(13, 13, d_model=32, d_ff=64)
    model = Seq2Seq(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    dice = torch.Generator().manual_seed(0)
    for step in range(150):
        optimizer.param_groups[0]["lr"] = 5e-3 * min(step / 20, 1)
        source = torch.randint(3, 13, (64, 5), generator=dice)
        target = F.pad(source.flip(1), (1, 0), value=1)
        logits = model(source, target[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05


# --- 5. error messages ------------------------------------------------------
@pytest.mark.usefixtures("unchecked")
class TestErrors:
    def test_source_over_max_len(self):
        source, target = batch(s=37)
        refused(
            ValueError,
            "Seq2Seq: 37 source tokens exceed max_len=31. Shorten the source, "
            "or build the model with a larger max_len.",
            *(make_model(), source, target),
        )

    def test_target_over_max_len(self):
        source, target = batch(t=32)
        refused(
            ValueError,
            "Seq2Seq: 32 target tokens exceed max_len=31. Shorten the target, "
            "or build the model with a larger max_len.",
            *(make_model(), source, target),
        )

    def test_session_over_max_len(self):
        model = make_model()
        source, target = batch(t=31)
        session = model.session(model.encode(source))
        session.step(target)
        refused(
            ValueError,
            "Seq2Seq: 32 target tokens (31 cached + 1 new) exceed max_len=31. "
            "Shorten the target, or build the model with a larger max_len.",
            *(session.step, target[:, :1]),
        )

    def test_empty_source(self):
        source, target = batch()
        source[1] = 0
        refused(
            ValueError,
            "Seq2Seq: source 1 of 2 is empty: it has 7 places and no token "
            "other than padding (pad_id=0). There is nothing to read.",
            *(make_model(), source, target),
        )
        with pytest.raises(ValueError, match="source 0 of 2 .* has 0 places"):
            make_model()(source[:, :0], target)

    def test_empty_target(self):
        source, target = batch()
        model = make_model()
        message = (
            "Seq2Seq: the target is empty. It starts with bos_id=1, and each "
            "place predicts the token that follows."
        )
        refused(ValueError, message, model, source, target[:, :0])
        session = model.session(model.encode(source))
        refused(ValueError, message, session.step, target[:, :0])

    def test_token_out_of_vocabulary(self):
        source, target = batch()
        target[1, 2] = 19
        with pytest.raises(
            ValueError, match="token 19 at row 1, place 2 .* ids are 0 to 18"
        ):
            make_model()(source, target)

    def test_width_not_divisible(self):
        refused(
            ValueError,
            "Seq2SeqConfig: d_model=64 is not divisible by n_heads=6, and "
            "must be.",
            *(Seq2SeqConfig, 23, 19, 64, 6),
        )

    def test_odd_width(self):
        refused(
            ValueError,
            "Seq2SeqConfig: d_model=63 is odd. Each position takes pairs of a "
            "sine and a cosine.",
            *(Seq2SeqConfig, 23, 19, 63, 7),
        )

    @pytest.mark.parametrize(
        "name",
        "source_vocab target_vocab d_model n_heads d_ff max_len "
        "n_encoder_layers n_decoder_layers".split(),
    )
    def test_sizes_below_one(self, name):
        refused(
            ValueError,
            f"Seq2SeqConfig: {name} must be at least 1, got 0.",
            *(Seq2SeqConfig,),
            **(SIZES | {name: 0}),
        )

    @pytest.mark.parametrize("p", [-0.1, 1.0])
    def test_dropout_that_is_no_probability(self, p):
        refused(
            ValueError,
            f"Seq2SeqConfig: dropout must lie in [0, 1), got {p}.",
            *(Seq2SeqConfig,),
            **(SIZES | {"dropout": p}),
        )

    @pytest.mark.parametrize(
        "changes",
        [{"pad_id": 1}, {"eos_id": 19}, {"bos_id": -1}, {"eos_id": 0}],
    )
    def test_special_ids(self, changes):
        ids = tuple(
            (SIZES | dict(pad_id=0, bos_id=1, eos_id=2) | changes)[name]
            for name in ("pad_id", "bos_id", "eos_id")
        )
        refused(
            ValueError,
            "Seq2SeqConfig: pad_id, bos_id and eos_id must be three different "
            f"ids of both vocabularies, 0 to 18, got {ids}.",
            *(Seq2SeqConfig,),
            **(SIZES | changes),
        )

    def test_no_blocks(self):
        refused(
            ValueError,
            "Encoder: needs at least one block, got none.",
            *(Encoder, []),
        )
        refused(
            ValueError,
            "Decoder: needs at least one block, got none.",
            *(Decoder, []),
        )

    def test_wrong_number_of_caches(self):
        decoder = make_model().decoder
        refused(
            ValueError,
            "Decoder: needs one cache for each of its 3 blocks, got 2.",
            *(decoder, torch.randn(B, T, D), torch.randn(B, S, D)),
            caches=[KVCache(), KVCache()],
        )

    def test_recall_of_another_context(self):
        decoder = make_model().decoder
        x, context = torch.randn(B, T, D), torch.randn(B, S, D)
        twin = decoder.recall(context)
        refused(
            ValueError,
            "Recall: keys and values were made for another context. Call "
            "decoder.recall(context) with the one that is read.",
            *(twin, x, context.clone()),
        )


# --- 6. compile -------------------------------------------------------------
def test_compiles_without_a_graph_break():
    """In a fresh interpreter: the import hook would break the graph."""
    runs_apart("""
        import torch
        from litformer.seq2seq import Seq2Seq, Seq2SeqConfig
        torch.manual_seed(0)
        config = Seq2SeqConfig.tiny(23, 19, d_model=16, d_ff=32)
        model = Seq2Seq(config).eval()
        source = torch.randint(3, 19, (2, 7))
        source[1, 4:] = 0
        target = torch.randint(3, 19, (2, 5))
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(source, target),
                                   model(source, target))
    """)
