"""`mask_tokens`: the statistics of 80/10/10, and what is refused."""

import math

import pytest
import torch

from litformer.masking import mask_tokens

V, MASK, SPECIAL = 23, 4, (0, 1, 2)
WORDS = [i for i in range(V) if i not in (0, 1, 2, 4)]  # 19 of them
OPTIONS = dict(vocab_size=V, mask_id=MASK, special=SPECIAL)


def drawn(shape=(997, 503), rate=0.15, seed=0):
    make = torch.Generator().manual_seed(seed)
    words = torch.tensor(WORDS)
    tokens = words[torch.randint(len(words), shape, generator=make)]
    return tokens, mask_tokens(tokens, **OPTIONS, rate=rate, generator=make)


def near(count, n, p):
    """Within four and a half standard deviations of a binomial count."""
    return abs(count - n * p) < 4.5 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("rate", [0.15, 0.4, 1.0])
def test_shares_are_those_of_the_rule(rate):
    tokens, (inputs, targets) = drawn(rate=rate)
    n, same = tokens.numel(), 1 / len(WORDS)
    chosen = targets != -100
    assert near(chosen.sum(), n, rate) or rate == 1.0
    assert rate < 1.0 or chosen.all()
    assert near((inputs == MASK).sum(), n, 0.8 * rate)
    other = (inputs != tokens) & (inputs != MASK)
    assert near(other.sum(), n, 0.1 * rate * (1 - same))
    stayed = chosen & (inputs == tokens)
    assert near(stayed.sum(), n, rate * (0.1 + 0.1 * same))


def test_random_words_are_uniform_over_the_words():
    """A chi-square over 19 words, against its own mean and deviation."""
    tokens, (inputs, _) = drawn(rate=1.0)
    moved = inputs[(inputs != tokens) & (inputs != MASK)]
    counts = torch.bincount(moved, minlength=V)
    assert counts[[0, 1, 2, MASK]].sum() == 0
    counts = counts[WORDS].double()
    expected = len(moved) / len(WORDS)
    chi = ((counts - expected) ** 2 / expected).sum().item()
    k = len(WORDS) - 1
    assert chi < k + 5 * math.sqrt(2 * k)


def test_choice_and_lot_are_independent_of_the_word():
    """Every word is chosen equally often: no word is safe."""
    tokens, (_, targets) = drawn()
    for word in WORDS:
        here = tokens == word
        assert near((targets[here] != -100).sum(), here.sum().item(), 0.15)


def test_targets_are_the_old_tokens_and_the_rest_is_untouched():
    tokens, (inputs, targets) = drawn((7, 11))
    chosen = targets != -100
    assert chosen.any()
    assert torch.equal(targets[chosen], tokens[chosen])
    assert torch.equal(inputs[~chosen], tokens[~chosen])


def test_special_tokens_are_never_chosen():
    tokens = torch.tensor([[1, 7, 8, 9, 2, 0, 0]] * 500)
    _, targets = mask_tokens(tokens, **OPTIONS, rate=1.0)
    assert (targets[:, [0, 4, 5, 6]] == -100).all()
    assert (targets[:, 1:4] != -100).all()


def test_a_mask_in_the_text_is_not_asked_about():
    """It would be asked to predict [MASK]."""
    tokens = torch.tensor([[7, MASK, 8]])
    assert mask_tokens(tokens, **OPTIONS, rate=1.0).targets[0, 1] == -100


def test_a_batch_of_nothing_but_padding_has_no_target():
    tokens = torch.zeros(3, 5, dtype=torch.long)
    inputs, targets = mask_tokens(tokens, **OPTIONS)
    assert torch.equal(inputs, tokens)
    assert (targets == -100).all()


def test_the_generator_decides():
    one, two, other = drawn(seed=5), drawn(seed=5), drawn(seed=6)
    assert torch.equal(one[1].inputs, two[1].inputs)
    assert not torch.equal(one[1].inputs, other[1].inputs)


def test_the_argument_stays():
    tokens = torch.full((5, 7), 9)
    mask_tokens(tokens, **OPTIONS, rate=1.0)
    assert (tokens == 9).all()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (dict(rate=0.0), ValueError, r"rate must lie in \(0, 1\], got 0\.0"),
        (dict(rate=1.5), ValueError, r"rate must lie in \(0, 1\], got 1\.5"),
        (dict(tokens=torch.zeros(3)), ValueError, "shape"),
        (dict(tokens=torch.zeros(2, 3)), TypeError, "must be integers"),
        (
            dict(tokens=torch.zeros(2, 3, dtype=torch.bool)),
            TypeError,
            "must be integers, got torch.bool",
        ),
        (
            dict(tokens=torch.tensor([[5, 23]])),
            ValueError,
            r"tokens must lie in 0 to 22, got 5 to 23\. Is it another",
        ),
        (dict(tokens=torch.tensor([[-1, 3]])), ValueError, "got -1 to 3"),
        (dict(mask_id=23), ValueError, "mask_id and special must lie"),
        (dict(special=(0, 99)), ValueError, "mask_id and special must lie"),
        (dict(special=range(23)), ValueError, "all 23 ids are special"),
    ],
)
def test_refusals(changes, error, says):
    options = dict(tokens=torch.tensor([[5, 6]]), **OPTIONS) | changes
    with pytest.raises(error, match=says):
        mask_tokens(options.pop("tokens"), **options)
