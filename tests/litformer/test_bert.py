"""BERT: Hugging Face's with the same weights, torch's encoder, and laws.

The weights of the references are drawn anew: their own initialisation has
zero biases and unit norms, which would hide a forgotten one.
"""

import pytest
import torch
import transformers
from torch import nn

from litformer.bert import Bert, BertConfig, MaskedLM, bert_names
from litformer.masks import padding_mask
from litformer.weight_map import load_named

V, N, D, H, F, L = 37, 19, 24, 3, 29, 3


def redraw(model, seed=1):
    """Every parameter random, norms and biases too."""
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=make) * 0.2)
    return model.eval()


def theirs(kind, attention="eager"):
    """A tiny random model of the reference library."""
    config = transformers.BertConfig(
        vocab_size=V,
        max_position_embeddings=N,
        hidden_size=D,
        num_attention_heads=H,
        intermediate_size=F,
        num_hidden_layers=L,
        attn_implementation=attention,
    )
    return redraw(kind(config))


def ours(kind=Bert, **changes):
    return kind(BertConfig(V, N, D, L, H, d_ff=F, dropout=0.0, **changes))


def inputs(seed=0):
    """Tokens, segments, a mask for lengths 7, 5 and 1."""
    make = torch.Generator().manual_seed(seed)
    tokens = torch.randint(V, (3, 7), generator=make)
    segments = torch.randint(2, (3, 7), generator=make)
    return tokens, segments, padding_mask(torch.tensor([7, 5, 1]), 7)


HEAD = {
    "cls.predictions.bias": "bias",
    "cls.predictions.transform.dense.weight": "dense.weight",
    "cls.predictions.transform.dense.bias": "dense.bias",
    "cls.predictions.transform.LayerNorm.weight": "norm.weight",
    "cls.predictions.transform.LayerNorm.bias": "norm.bias",
    "cls.predictions.decoder.weight": None,  # tied to the table of words
    "cls.predictions.decoder.bias": None,  # tied to cls.predictions.bias
}


def masked_lm():
    reference = theirs(transformers.BertForMaskedLM)
    table = {
        f"bert.{name}": rule and f"bert.{rule}"
        for name, rule in bert_names().items()
    } | HEAD
    state = reference.state_dict()
    return load_named(ours(MaskedLM), state, table).eval(), reference


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_hidden_states_of_every_layer_equal_hugging_face(attention):
    reference = theirs(transformers.BertModel, attention)
    model = load_named(ours(), reference.state_dict(), bert_names()).eval()
    tokens, segments, mask = inputs()
    real = mask[:, 0, 0]
    out = reference(
        tokens,
        attention_mask=real.long(),
        token_type_ids=segments,
        output_hidden_states=True,
    )
    seen = []
    for block in model.encoder.blocks:
        block.register_forward_hook(lambda m, i, o: seen.append(o))
    got = model(tokens, segments=segments, mask=mask)
    assert len(seen) == L == len(out.hidden_states) - 1
    for a, b in zip(seen, out.hidden_states[1:], strict=True):
        torch.testing.assert_close(a[real], b[real], atol=1e-5, rtol=1e-5)
    expected = out.last_hidden_state
    torch.testing.assert_close(got[real], expected[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_text_is_all_first_segment():
    reference = theirs(transformers.BertModel)
    model = load_named(ours(), reference.state_dict(), bert_names()).eval()
    tokens, _, _ = inputs()
    expected = reference(tokens).last_hidden_state
    torch.testing.assert_close(model(tokens), expected, atol=1e-5, rtol=1e-5)
    zeros = torch.zeros_like(tokens)
    torch.testing.assert_close(model(tokens, segments=zeros), expected)


def test_masked_lm_logits_and_gradients_equal_hugging_face():
    model, reference = masked_lm()
    tokens, segments, mask = inputs()
    real = mask[:, 0, 0]
    a = model(tokens, segments=segments, mask=mask)
    b = reference(
        tokens, attention_mask=real.long(), token_type_ids=segments
    ).logits
    assert a.shape == (3, 7, V)
    torch.testing.assert_close(a[real], b[real], atol=1e-5, rtol=1e-5)
    targets = tokens[real]
    for logits in (a, b):
        nn.functional.cross_entropy(logits[real], targets).backward()
    pairs = [
        (model.bert.embed.weight, "bert.embeddings.word_embeddings.weight"),
        (
            model.bert.segments.weight,
            "bert.embeddings.token_type_embeddings.weight",
        ),
        (model.dense.weight, "cls.predictions.transform.dense.weight"),
        (model.bias, "cls.predictions.bias"),
        (
            model.bert.encoder.blocks[0].attn.k_proj.weight,
            "bert.encoder.layer.0.attention.self.key.weight",
        ),
    ]
    named = dict(reference.named_parameters())
    for mine, name in pairs:
        assert mine.grad.abs().max() > 0
        torch.testing.assert_close(
            mine.grad, named[name].grad, atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_a_mistake_in_the_table_would_be_seen():
    """Keys and values have one shape; only numbers tell them apart."""
    reference = theirs(transformers.BertModel)
    swapped = dict(bert_names())
    key, value = (
        f"encoder.layer.*.attention.self.{x}.weight" for x in ("key", "value")
    )
    swapped[key], swapped[value] = swapped[value], swapped[key]
    model = load_named(ours(), reference.state_dict(), swapped).eval()
    tokens, _, _ = inputs()
    wrong = (model(tokens) - reference(tokens).last_hidden_state).abs().max()
    assert wrong > 1e-2


def test_a_missing_tensor_is_refused():
    state = theirs(transformers.BertModel).state_dict()
    del state["encoder.layer.1.output.dense.bias"]
    with pytest.raises(ValueError, match=r"blocks\.1\.ff\.down_proj\.bias"):
        load_named(ours(), state, bert_names())


def test_a_tensor_too_many_is_refused():
    state = theirs(transformers.BertModel).state_dict()
    state["encoder.layer.0.extra.weight"] = torch.zeros(1)
    with pytest.raises(ValueError, match=r"says nothing of.*extra"):
        load_named(ours(), state, bert_names())


def test_a_misshapen_tensor_is_refused():
    state = theirs(transformers.BertModel).state_dict()
    name = "encoder.layer.0.intermediate.dense.weight"
    state[name] = state[name].T
    with pytest.raises(ValueError, match=r"up_proj\.weight.*transposition"):
        load_named(ours(), state, bert_names())


@torch.no_grad()
def test_padding_changes_nothing():
    """One text, alone and beside longer ones."""
    model = redraw(ours())
    tokens, _, mask = inputs()
    together = model(tokens, mask=mask)
    torch.testing.assert_close(
        model(tokens[1:2, :5]), together[1:2, :5], atol=1e-5, rtol=1e-5
    )
    junk = tokens.clone()
    junk[1, 5:] = 3
    torch.testing.assert_close(model(junk, mask=mask)[1, :5], together[1, :5])
    assert not torch.allclose(model(junk)[1, :5], model(tokens)[1, :5])


def test_a_row_of_padding_only_is_finite():
    model = redraw(ours())
    tokens, _, _ = inputs()
    mask = padding_mask(torch.tensor([7, 0, 2]), 7)
    out = model(tokens, mask=mask)
    assert out.isfinite().all()
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_both_sides_are_read():
    """Every output moves when any input does."""
    model = redraw(ours())
    tokens, _, _ = inputs()
    before = model(tokens)
    for place in (0, 3, 6):
        other = tokens.clone()
        other[:, place] = (other[:, place] + 1) % V
        moved = (model(other) - before).abs().amax(-1)
        assert (moved > 1e-4).all()


@torch.no_grad()
def test_places_and_segments_matter():
    model = redraw(ours())
    tokens, segments, _ = inputs()
    order = torch.tensor([1, 0, 2, 3, 4, 5, 6])
    turned = model(tokens[:, order])[:, order]
    assert (turned - model(tokens)).abs().max() > 1e-2
    one, two = model(tokens), model(tokens, segments=segments)
    assert (one - two).abs().max() > 1e-2


def test_predict_in_the_gaps_equals_forward():
    model = redraw(ours(MaskedLM))
    tokens, _, mask = inputs()
    gaps = tokens % 3 == 0
    picked = model.predict(model.bert(tokens, mask=mask)[gaps])
    torch.testing.assert_close(picked, model(tokens, mask=mask)[gaps])


def test_the_table_of_words_is_one():
    """The head keeps no copy of it."""
    model = ours(MaskedLM)
    names = [n for n, p in model.named_parameters() if p.shape == (V, D)]
    assert names == ["bert.embed.weight"]
    tables = [n for n, v in model.state_dict().items() if v.shape == (V, D)]
    assert tables == names


def test_initialisation_is_that_of_the_table():
    torch.manual_seed(0)
    model = MaskedLM(BertConfig(997, 503, 128, 2, 4))
    for name, p in model.named_parameters():
        if "norm" in name:
            assert (p == float(name.endswith("weight"))).all(), name
        elif name.endswith("bias"):
            assert (p == 0).all(), name
        elif p.numel() > 1000:
            assert p.std().item() == pytest.approx(0.02, rel=0.05), name
            assert abs(p.mean().item()) < 0.001, name
    other = Bert(BertConfig(997, 53, 64, 1, 4, init_std=0.3))
    assert other.embed.weight.std().item() == pytest.approx(0.3, rel=0.05)


def test_dropout_acts_in_training_only():
    model = Bert(BertConfig.nano(V, N, dropout=0.5))
    tokens, _, _ = inputs()
    model.train()
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # published: BertForMaskedLM of bert-base-uncased
        (BertConfig.base(), 109_514_298),
        (BertConfig.minilm(), 22_565_376 + 384 * 384 + 3 * 384 + 30_522),
    ],
)
def test_presets_have_the_published_sizes(config, expected):
    with torch.device("meta"):
        model = MaskedLM(config)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_state_dict_round_trip():
    one, two = redraw(ours(MaskedLM)), ours(MaskedLM)
    two.load_state_dict(one.state_dict())
    tokens, _, mask = inputs()
    assert torch.equal(one(tokens, mask=mask), two.eval()(tokens, mask=mask))


@torch.no_grad()
def test_bfloat16_is_near():
    model = redraw(ours())
    tokens, _, mask = inputs()
    expected = model(tokens, mask=mask)
    got = model.bfloat16()(tokens, mask=mask)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=0.1, rtol=0.1)


def test_it_learns_to_fill_a_gap():
    """Five cycles of three tokens: two known ones determine the third."""
    torch.manual_seed(0)
    model = MaskedLM(BertConfig.nano(20, 5, n_layers=1))
    cycles = torch.arange(4, 19).view(5, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def loss():
        rows = cycles[torch.randint(5, (32,))]
        gap = torch.randint(3, (32, 1))
        logits = model(rows.scatter(1, gap, 3))
        logits = logits.take_along_dim(gap[..., None], 1)[:, 0]
        answers = rows.gather(1, gap)[:, 0]
        return nn.functional.cross_entropy(logits, answers)

    for _ in range(150):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss() < 0.05


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("tokens", "segments", "says"),
    [
        (torch.zeros(1, N + 1).long(), None, "20 tokens exceed max_len=19"),
        (torch.zeros(2, 0).long(), None, r"no tokens.*\[CLS\] and \[SEP\]"),
        (torch.zeros(5).long(), None, "Bert: tokens"),
        (torch.tensor([[1, V]]), None, "token 37 at row 0, place 1"),
        (torch.tensor([[1, -1]]), None, "token -1 at row 0, place 1"),
        (
            torch.zeros(2, 3).long(),
            torch.full((2, 3), 2),
            "segments must lie in 0 to 1, got 2 to 2",
        ),
        (torch.zeros(2, 3).long(), torch.zeros(2, 4).long(), "segments"),
    ],
)
def test_refusals(tokens, segments, says):
    with pytest.raises(ValueError, match=says):
        ours()(tokens, segments=segments)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(d_model=0), "d_model must be > 0"),
        (dict(n_layers=-1), "n_layers must be > 0"),
        (dict(n_segments=0), "n_segments must be > 0"),
        (dict(d_ff=0), "d_ff must be > 0"),
        (dict(eps=0.0), "eps must be > 0"),
        (dict(dropout=1.0), r"dropout must lie in \[0, 1\), got 1\.0"),
        (dict(dropout=-0.1), "dropout must lie"),
    ],
)
def test_config_refusals(changes, says):
    with pytest.raises(ValueError, match=says):
        BertConfig.base(**changes)


def test_heads_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="not divisible by n_heads=5"):
        Bert(BertConfig.nano(V, N, n_heads=5))
