"""The source of known chains: its probabilities, its samples, its floor."""

import math

import pytest
import torch

from litformer.mixture import MarkovMixture


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def source():
    return MarkovMixture(3, 11, 2, seed=5)


def test_each_symbol_has_different_successors_that_sum_to_one(source):
    assert source.successors.shape == (3, 11, 2)
    assert source.vocab_size == 14
    first, second = source.successors.unbind(-1)
    assert (first != second).all()
    assert ((source.successors >= 0) & (source.successors < 11)).all()
    total = source.probabilities.sum(-1)
    torch.testing.assert_close(total, torch.ones(3, 11))
    assert source.probabilities.min() > 0.1


def test_chains_differ_and_the_seed_decides():
    a, b, c = (MarkovMixture(3, 11, 2, seed=s) for s in (5, 5, 6))
    assert torch.equal(a.successors, b.successors)
    assert torch.equal(a.probabilities, b.probabilities)
    assert not torch.equal(a.successors, c.successors)
    assert not torch.equal(a.successors[0], a.successors[1])


def test_samples_follow_their_chain(source):
    texts = source.sample(200, 9, generator=seeded(1))
    assert texts.tokens.shape == texts.surprise.shape == (200, 9)
    assert torch.equal(texts.tokens[:, 0], texts.domain + 11)
    assert set(texts.domain.tolist()) == {0, 1, 2}
    torch.testing.assert_close(
        texts.surprise[:, 0], torch.full((200,), math.log(3))
    )
    torch.testing.assert_close(
        texts.surprise[:, 1], torch.full((200,), math.log(11))
    )
    for text, surprise, domain in zip(*texts, strict=True):
        for t in range(2, 9):
            now, after = text[t - 1], text[t]
            successors = source.successors[domain, now]
            assert after in successors
            p = source.probabilities[domain, now][successors == after]
            assert abs(surprise[t] + p.log().item()) < 1e-6


def test_branches_come_as_often_as_they_should(source):
    texts = source.sample(20_000, 3, generator=seeded(2))
    at = (texts.domain == 1) & (texts.tokens[:, 1] == 4)
    first = texts.tokens[at, 2] == source.successors[1, 4, 0]
    p = source.probabilities[1, 4, 0].item()
    error = 4 * math.sqrt(p * (1 - p) / at.sum().item())
    assert abs(first.float().mean().item() - p) < error


def test_the_same_generator_gives_the_same_texts(source):
    a, b = (source.sample(5, 6, generator=seeded(3)) for _ in range(2))
    assert torch.equal(a.tokens, b.tokens)
    c = source.sample(5, 6, generator=seeded(4))
    assert not torch.equal(a.tokens, c.tokens)


def by_enumeration(source, length):
    """Every text that can be, with its probability."""
    total = 0.0

    def follow(domain, now, p, left):
        nonlocal total
        if not left:
            return
        for branch in range(source.successors.shape[-1]):
            q = source.probabilities[domain, now, branch].item()
            total += p * q * -math.log(q)
            after = int(source.successors[domain, now, branch])
            follow(domain, after, p * q, left - 1)

    for domain in range(source.n_domains):
        for now in range(source.n_symbols):
            p = 1 / source.n_domains / source.n_symbols
            total += p * math.log(source.n_symbols)
            follow(domain, now, p, length - 2)
    return total / (length - 1)


@pytest.mark.parametrize("length", [2, 3, 6])
def test_floor_equals_enumeration(source, length):
    assert source.floor(length) == pytest.approx(
        by_enumeration(source, length), abs=1e-6
    )


def test_samples_surprise_by_the_floor(source):
    texts = source.sample(20_000, 12, generator=seeded(7))
    mean = texts.surprise[:, 1:].mean(1)
    error = 4 * (mean.std() / math.sqrt(len(mean))).item()
    assert abs(mean.mean().item() - source.floor(12)) < error


@pytest.mark.usefixtures("unchecked")
class TestErrors:
    @pytest.mark.parametrize(
        "sizes", [(0, 5, 2), (2, 0, 1), (2, 5, 0), (2, 5, 6)]
    )
    def test_sizes(self, sizes):
        k, s, r = sizes
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
            MarkovMixture(*sizes)
        assert str(caught.value) == (
            "MarkovMixture: needs sizes of at least 1 and no more branches "
            f"than symbols, got n_domains={k}, n_symbols={s}, n_branches={r}."
        )

    def test_a_text_without_a_symbol(self, source):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 (below)
            source.sample(3, 1)
        assert str(caught.value) == (
            "MarkovMixture: a text is a tag and at least one symbol, got "
            "length=1."
        )
