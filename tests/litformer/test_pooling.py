"""Poolings against loops, and the laws of padding and of batches."""

import pytest
import torch
from torch import nn

from litformer.bert import Bert, BertConfig
from litformer.masks import padding_mask
from litformer.pooling import first_pool, max_pool, mean_pool, text_vectors

POOLS = [mean_pool, first_pool, max_pool]


def batch(seed=0):
    """Three texts of 7, 4 and 1 tokens, all numbers negative."""
    make = torch.Generator().manual_seed(seed)
    hidden = -1 - torch.rand(3, 7, 5, generator=make)
    return hidden, padding_mask(torch.tensor([7, 4, 1]), 7)


def by_hand(pool, vectors):
    """One text's tokens, (t, D), pooled by another way."""
    if pool is first_pool:
        return vectors[0]
    if pool is max_pool:
        return torch.stack([c.max() for c in vectors.T])
    return torch.stack([sum(c) / len(c) for c in vectors.T])


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("left", [False, True])
def test_against_one_text_at_a_time(pool, left):
    """Padding on either side, and numbers below zero."""
    hidden, mask = batch()
    if left:
        hidden, mask = hidden.flip(1), mask.flip(-1)
    real = mask[:, 0, 0]
    rows = [by_hand(pool, h[r]) for h, r in zip(hidden, real, strict=True)]
    torch.testing.assert_close(pool(hidden, mask), torch.stack(rows))


@pytest.mark.parametrize("pool", POOLS)
def test_without_a_mask_all_are_real(pool):
    hidden, _ = batch()
    everything = torch.ones(3, 1, 1, 7, dtype=torch.bool)
    torch.testing.assert_close(pool(hidden), pool(hidden, everything))


@pytest.mark.parametrize("pool", POOLS)
def test_what_stands_in_the_padding_does_not_matter(pool):
    """Not even infinity or NaN, which 0 * x would let through."""
    hidden, mask = batch()
    real = mask[:, 0, 0]
    expected = pool(hidden, mask)
    for junk in (99.0, torch.inf, torch.nan):
        filled = hidden.masked_fill(~real[..., None], junk)
        assert torch.equal(pool(filled, mask), expected)


@pytest.mark.parametrize("pool", POOLS)
def test_a_text_of_padding_only_is_zero_with_finite_gradients(pool):
    hidden, _ = batch()
    hidden.requires_grad_()
    out = pool(hidden, padding_mask(torch.tensor([7, 0, 3]), 7))
    assert (out[1] == 0).all()
    out.square().sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad[1] == 0).all()


def test_half_precision_does_not_overflow_in_the_sum():
    hidden = torch.full((1, 300, 2), 300.0, dtype=torch.float16)
    out = mean_pool(hidden)
    assert out.dtype == torch.float16
    assert out.tolist() == [[300.0, 300.0]]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("pool", POOLS)
def test_refusals(pool):
    hidden, mask = batch()
    name = pool.__name__
    with pytest.raises(ValueError, match=rf"{name}: hidden"):
        pool(hidden[0])
    with pytest.raises(ValueError, match=r"A table \(B, T\) becomes"):
        pool(hidden, mask[:, 0, 0])
    with pytest.raises(ValueError, match=r"\(B=3, 1, 1, T=7\)"):
        pool(hidden, mask[:2])
    with pytest.raises(TypeError, match=rf"{name}: mask must be bool.*float"):
        pool(hidden, mask.float())


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    made = Bert(BertConfig.nano(29, 13)).eval()
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(std=0.3)
    return made


TEXTS = [[1, 5, 2], [1, 7, 8, 9, 10, 11, 2], [1, 2], [1, 5, 2], [1, 28, 3, 2]]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 99])
def test_neither_batch_nor_order_matters(model, pool, batch_size):
    """Batch invariance, and the results stand where their texts do."""
    alone = torch.cat([text_vectors(model, [t], pool=pool) for t in TEXTS])
    got = text_vectors(model, TEXTS, pool=pool, batch_size=batch_size)
    torch.testing.assert_close(got, alone, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(5))
    back = text_vectors(model, TEXTS[::-1], pool=pool, batch_size=batch_size)
    torch.testing.assert_close(back.flip(0), alone, atol=1e-5, rtol=1e-5)


def test_other_padding_ids_do_not_matter(model):
    one = text_vectors(model, TEXTS, pad_id=0)
    two = text_vectors(model, TEXTS, pad_id=17)
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


def test_vectors_refusals(model):
    with pytest.raises(ValueError, match=r"text 1 has no tokens.*empty text"):
        text_vectors(model, [[1, 2], [], [1, 2]])
    with pytest.raises(ValueError, match="text_vectors: no texts"):
        text_vectors(model, [])
    with pytest.raises(ValueError, match="14 tokens exceed max_len=13"):
        text_vectors(model, [[1] * 14])
    with pytest.raises(ValueError, match=r"token 29 at row 0, place 1"):
        text_vectors(model, [[1, 29]])


def test_a_model_in_training_is_refused():
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"Call model\.eval\(\) first"):
        text_vectors(model, [[1, 2]])
