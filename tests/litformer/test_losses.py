"""Losses against plain loops over probabilities."""

import math

import pytest
import torch
import torch.nn.functional as F

from litformer.losses import calibration, calibration_error, cross_entropy

B, T, V = 3, 5, 7


def example(seed=0, dtype=torch.float32):
    make = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(B, T, V, generator=make, dtype=dtype)
    targets = torch.randint(V, (B, T), generator=make)
    targets[0, 3:] = targets[2, 1:] = -100  # lengths 3, 5 and 1
    return logits, targets


def by_hand(logits, targets, smoothing):
    """-sum q ln p for each token, in double precision, number by number."""
    out = torch.zeros(B, T, dtype=torch.double)
    for b in range(B):
        for t in range(T):
            right = targets[b, t].item()
            if right == -100:
                continue
            scores = logits[b, t].double().tolist()
            total = sum(math.exp(s) for s in scores)
            for v, score in enumerate(scores):
                q = smoothing / V + (1 - smoothing) * (v == right)
                out[b, t] -= q * math.log(math.exp(score) / total)
    return out


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_cross_entropy_is_the_definition(smoothing):
    logits, targets = example()
    want = by_hand(logits, targets, smoothing)
    options = dict(smoothing=smoothing)
    got = cross_entropy(logits, targets, reduction="none", **options)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)
    got = cross_entropy(logits, targets, reduction="sum", **options)
    assert got.item() == pytest.approx(want.sum().item(), rel=1e-5)
    got = cross_entropy(logits, targets, **options)
    assert got.item() == pytest.approx(want.sum().item() / 9, rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_padding_is_as_if_it_were_not_there(smoothing):
    logits, targets = example()
    logits.requires_grad_()
    whole = cross_entropy(logits, targets, smoothing=smoothing)
    whole.backward()
    kept = targets != -100
    assert (logits.grad[~kept] == 0).all()
    assert (logits.grad[kept] != 0).all()
    alone = cross_entropy(logits[kept], targets[kept], smoothing=smoothing)
    torch.testing.assert_close(whole, alone)
    noisy = logits.detach().clone()
    noisy[~kept] = 1e4 * torch.randn_like(noisy[~kept])
    assert cross_entropy(noisy, targets, smoothing=smoothing) == whole


def test_cross_entropy_gradient_is_p_minus_q():
    logits, targets = example(dtype=torch.double)
    logits.requires_grad_()
    smoothing = 0.3
    cross_entropy(
        logits, targets, smoothing=smoothing, reduction="sum"
    ).backward()
    kept = targets != -100
    q = F.one_hot(targets[kept], V) * (1 - smoothing) + smoothing / V
    want = logits[kept].softmax(-1) - q
    torch.testing.assert_close(logits.grad[kept], want)


def test_another_padding_token():
    logits, targets = example()
    zero = targets.where(targets != -100, 0)
    real = targets.clone()
    real[zero == 0] = -100
    got = cross_entropy(logits, zero, ignore_index=0, smoothing=0.1)
    assert got == cross_entropy(logits, real, smoothing=0.1)


def test_half_precision_is_summed_in_fp32():
    logits, targets = example()
    low = logits.bfloat16()
    got = cross_entropy(low, targets)
    assert got.dtype == torch.float32
    assert got == cross_entropy(low.float(), targets)


def test_all_padding_is_nan_as_a_mean_and_zero_as_a_sum():
    logits = torch.zeros(2, 3, V)
    targets = torch.full((2, 3), -100)
    assert cross_entropy(logits, targets).isnan()
    assert cross_entropy(logits, targets, reduction="sum") == 0
    assert (cross_entropy(logits, targets, reduction="none") == 0).all()


def test_cross_entropy_refuses(unchecked):
    logits, targets = example()
    with pytest.raises(ValueError, match=r"targets must have .*\(3, 5\), got"):
        cross_entropy(logits, targets[:, :4])
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\): 1"):
        cross_entropy(logits, targets, smoothing=1.0)
    with pytest.raises(ValueError, match=r"Classes are 0 to V - 1 = 6"):
        cross_entropy(logits, torch.full((B, T), V))
    with pytest.raises(ValueError, match="not a valid value for reduction"):
        cross_entropy(logits, targets, reduction="median")


def test_calibration_counts_by_hand():
    """Four choices in known bins, and one that is padding."""
    p = torch.tensor([0.95, 0.91, 0.55, 0.59, 0.99])
    logits = torch.stack([p.log(), (1 - p).log()], -1)
    targets = torch.tensor([0, 1, 0, 1, -100])
    found = calibration(logits, targets, bins=10)
    assert found.count.tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 2]
    assert found.accuracy[9] == 0.5
    assert found.accuracy[5] == 0.5
    assert found.confidence[9].item() == pytest.approx(0.93)
    assert found.confidence[5].item() == pytest.approx(0.57)
    want = (2 * abs(0.93 - 0.5) + 2 * abs(0.57 - 0.5)) / 4
    assert found.error == pytest.approx(want)
    assert calibration_error(logits, targets) == pytest.approx(want)


def test_an_honest_model_is_calibrated_and_a_boaster_is_not():
    make = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20_000, V, generator=make)
    truth = torch.multinomial(logits.softmax(-1), 1, generator=make)[:, 0]
    assert calibration_error(logits, truth) < 0.012
    assert calibration_error(3 * logits, truth) > 0.15
    assert calibration_error(logits / 3, truth) > 0.15


def test_calibration_of_certainty_is_in_the_last_bin():
    logits = torch.tensor([[0.0, 1e4], [1e4, 0.0]])
    found = calibration(logits, torch.tensor([1, 1]), bins=4)
    assert found.count.tolist() == [0, 0, 0, 2]
    assert found.error == 0.5


def test_calibration_refuses(unchecked):
    logits, targets = example()
    with pytest.raises(ValueError, match="needs bins >= 1, got 0"):
        calibration(logits, targets, bins=0)
    with pytest.raises(ValueError, match="every target is padding"):
        calibration(logits, torch.full((B, T), -100))
    with pytest.raises(ValueError, match=r"calibration: targets must have"):
        calibration(logits, targets[:, :4])
