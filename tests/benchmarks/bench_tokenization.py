"""Our byte pairs in Python against Hugging Face's in Rust.

One thread on both sides. What is compared gives the same result on both: the
same number of entries, the same ids. Goals: to train 500 entries on 130 kB
within half a second, and to encode no slower than the library does.
"""

from pydoc_data.topics import topics

import pytest

from benchmarks.harness import compare, publish
from litformer.tokenizer import BPETokenizer, train_bpe

CORPUS = "\n".join(topics.values())
# the vocabulary comes through it; what it imports has no part in the speed
pretrained = pytest.importorskip("litformer.pretrained")


def train_theirs(text, vocab_size):
    """The library's trainer with the same settings."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    return tokenizer


def test_training_against_tokenizers():
    cases = {}
    for name, text, size in (
        ("130 kB, 500 entries", CORPUS[:130_000], 500),
        ("450 kB, 4096 entries", CORPUS[:450_000], 4096),
    ):
        assert train_bpe(text, size).vocab_size == size
        assert train_theirs(text, size).get_vocab_size() == size
        cases[name] = compare(
            {
                "ours": lambda t=text, n=size: train_bpe(t, n),
                "tokenizers": lambda t=text, n=size: train_theirs(t, n),
            },
            rounds=9,
        )
    assert cases["130 kB, 500 entries"]["ours"].ms < 500
    publish(
        "tokenization",
        "training",
        title="Training byte pairs",
        what="The reference of Python, cut by GPT-2's rule; `tokenizers` is "
        "Hugging Face's library, in Rust.",
        cases=cases,
        missed="Python against Rust, both with an index. A third of our time "
        "is the regular expression, the rest is Python's. The aim was half a "
        "second for the smaller case.",
    )


def smollm2_theirs():
    """The library's SmolLM2, from the same file."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    fields = pretrained.smollm2_file().fields
    names, merges = (
        fields[f"tokenizer.ggml.{key}"].contents()
        for key in ("tokens", "merges")
    )
    tokenizer = Tokenizer(
        models.BPE(
            {name: i for i, name in enumerate(names)},
            [tuple(merge.split(" ")) for merge in merges],
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer


def test_encoding_against_tokenizers():
    ours, theirs = pretrained.smollm2_tokenizer(), smollm2_theirs()
    ids = ours.encode(CORPUS)
    assert ids == theirs.encode(CORPUS).ids

    def fast():
        return theirs.encode_batch_fast([CORPUS], add_special_tokens=False)

    assert fast()[0].ids == ids
    fresh = iter(
        [
            BPETokenizer(ours.tokens, ours.merges, rule=ours.rule)
            for _ in range(24)
        ]
    )

    def forgetful():
        theirs.model._clear_cache()
        return theirs.encode(CORPUS).ids

    again = compare(
        {
            "ours": lambda: ours.encode(CORPUS),
            "tokenizers": lambda: theirs.encode(CORPUS).ids,
            "tokenizers, no offsets": lambda: fast()[0].ids,
        },
        rounds=9,
    )
    first = compare(
        {
            "ours": lambda: next(fresh).encode(CORPUS),
            "tokenizers": forgetful,
        },
        rounds=9,
        least_ms=0.0,
    )
    publish(
        "tokenization",
        "encoding",
        title="Encoding with SmolLM2's vocabulary",
        what="465 kB of the reference of Python, one text, one thread, the "
        "same ids. Both remember the words that they have met; the library "
        "also makes offsets and masks for each token, unless told not to.",
        cases={"words known": again, "words new": first},
    )
