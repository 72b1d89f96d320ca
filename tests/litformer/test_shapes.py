import time

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from litformer.shapes import check_shape


def test_letters_are_bound_and_passed_on():
    q, k = torch.zeros(2, 3, 5, 11), torch.zeros(2, 3, 7, 11)
    sizes = check_shape("attention", "q", q, "B H T Dh")
    assert sizes == dict(B=2, H=3, T=5, Dh=11)
    sizes = check_shape("attention", "k", k, "B H S Dh", **sizes)
    assert sizes == dict(B=2, H=3, T=5, Dh=11, S=7)


def test_the_given_sizes_are_not_changed():
    given = dict(D=11)
    check_shape("f", "x", torch.zeros(5, 11), "T D", **given)
    assert given == dict(D=11)


def test_wrong_size_names_it_and_ends_with_the_hint():
    x = torch.zeros(2, 5, 32)
    with pytest.raises(ValueError) as error:  # noqa: PT011 (compared below)
        check_shape(
            "MultiHeadAttention",
            "x",
            x,
            "B T D",
            D=64,
            hint="Was the layer built with d_model=32?",
        )
    assert str(error.value) == (
        "MultiHeadAttention: x must have shape (B, T, D=64), got (2, 5, 32). "
        "Was the layer built with d_model=32?"
    )


@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 5), (2, 3, 5, 7, 11)])
def test_wrong_rank(shape):
    with pytest.raises(
        ValueError, match=r"f: q must have shape \(B, H, T, Dh\), got"
    ):
        check_shape("f", "q", torch.zeros(shape), "B H T Dh")


def test_a_letter_that_comes_twice_must_agree():
    check_shape("f", "w", torch.zeros(2, 5, 5), "B T T")
    with pytest.raises(ValueError, match=r"\(B, T, T\), got \(2, 5, 7\)"):
        check_shape("f", "w", torch.zeros(2, 5, 7), "B T T")


def test_one_axis_is_written_as_a_tuple():
    with pytest.raises(ValueError, match=r"shape \(D=3,\), got \(5,\)\.$"):
        check_shape("f", "bias", torch.zeros(5), "D", D=3)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (2, 3, 5, 7)])
def test_leading_dots_stand_for_any_axes(shape):
    assert check_shape("f", "x", torch.zeros(shape), "... D", D=7) == dict(D=7)
    with pytest.raises(ValueError, match=r"shape \(\.\.\., D=11\), got"):
        check_shape("f", "x", torch.zeros(shape), "... D", D=11)


def test_leading_dots_with_too_few_axes():
    with pytest.raises(ValueError, match=r"\(\.\.\., T, D\), got \(7,\)"):
        check_shape("f", "x", torch.zeros(7), "... T D")


@pytest.mark.parametrize("value", [[[1.0]], np.zeros((1, 1)), None])
def test_not_a_tensor(unchecked, value):
    kind = type(value).__name__
    with pytest.raises(
        TypeError,
        match=rf"f: x must be a torch\.Tensor of shape \(T, D=1\), got {kind}"
        r"\. Wrap it in torch\.tensor\(\)\.",
    ):
        check_shape("f", "x", value, "T D", D=1)


def test_not_a_tensor_with_a_hint(unchecked):
    with pytest.raises(TypeError, match=r"got int\. Give token ids\.$"):
        check_shape("f", "x", 3, "T", hint="Give token ids.")


def test_it_costs_microseconds():
    """The bound is loose for slow machines; it guards the order."""
    q = torch.zeros(2, 3, 5, 11)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(200):
            check_shape("attention", "q", q, "B H T Dh", Dh=11)
        best = min(best, (time.perf_counter() - start) / 200)
    assert best < 20e-6


def test_annotations_are_checked_here():
    """The hook is on, or every other shape check of the suite is blind."""
    with pytest.raises(TypeCheckError):
        check_shape("f", "x", "no tensor", "T")
