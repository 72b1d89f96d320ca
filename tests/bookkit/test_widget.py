"""What a chapter hands to a page: nothing is lost, and nothing bad passes."""

import json

import numpy as np
import pytest
import torch

from bookkit.book import BookError
from bookkit.widget import MIME, decode, export


def payload(**kinds) -> dict:
    return export("a-widget", **kinds).payload


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (torch.randn(2, 3, 5), "float32"),
        (torch.randn(7, dtype=torch.float64).float().double(), "float32"),
        (torch.arange(11) - 5, "int32"),
        (torch.tensor([[True, False, True]]), "uint8"),
        (torch.tensor(0.1), "float32"),
        (torch.zeros(0, 3), "float32"),
        (np.float32([1.5, -2]), "float32"),
        ([[1, 2], [3, 4]], "int32"),
    ],
)
def test_tensors_come_back_as_they_were(value, dtype):
    tensor = payload(tensors={"x": value})["tensors"]["x"]
    assert tensor["dtype"] == dtype
    np.testing.assert_array_equal(decode(tensor), np.asarray(value))


def test_half_keeps_three_digits_in_half_the_bytes():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    full = payload(tensors={"x": x})["tensors"]["x"]
    half = payload(tensors={"x": x}, half=True)["tensors"]["x"]
    assert half["dtype"] == "float16"
    np.testing.assert_allclose(decode(half), x, rtol=1e-3, atol=1e-7)
    assert not np.array_equal(decode(half), x)
    assert len(half["data"]) == pytest.approx(len(full["data"]) / 2, abs=4)


def test_half_leaves_integers_alone():
    tensor = payload(tensors={"x": torch.tensor([70_001])}, half=True)
    assert decode(tensor["tensors"]["x"]).tolist() == [70_001]


def test_bfloat16_and_gradients_travel():
    x = torch.tensor([1.0, 2.5], dtype=torch.bfloat16, requires_grad=True)
    assert decode(payload(tensors={"x": x})["tensors"]["x"]).tolist() == [
        1.0,
        2.5,
    ]


def test_a_view_travels_in_its_own_order():
    x = torch.arange(6.0).reshape(2, 3).T
    np.testing.assert_array_equal(
        decode(payload(tensors={"x": x})["tensors"]["x"]), x
    )


def test_config_and_check_become_plain_values():
    got = payload(
        tensors={},
        config={"tokens": ["a", "b"], "n": 2, "s": 0.5, "none": None},
        check={"w": torch.tensor([[1 / 3, 2 / 3]]), "m": torch.tensor([True])},
    )
    assert got["config"] == {
        "tokens": ["a", "b"],
        "n": 2,
        "s": 0.5,
        "none": None,
    }
    assert got["check"] == {"w": [[0.3333333, 0.6666667]], "m": [True]}


def test_the_cell_shows_words_and_stores_the_rest():
    shown = export("a-widget", tensors={"x": torch.zeros(3, 4)})
    bundle = shown._repr_mimebundle_()
    assert bundle[MIME] == json.loads(json.dumps(shown.payload))
    assert bundle["text/plain"] == (
        f"widget a-widget: 12 numbers, {shown.size / 1000:.1f} kB for the page"
    )
    assert shown.size < 250


@pytest.mark.parametrize(
    "name", ["", "Plane", "a b", "../plane", "a_b", "-a", "a-", "1a", "a.js"]
)
def test_refuses_a_name_that_is_no_file_name(name):
    with pytest.raises(BookError, match="the name becomes a file name"):
        export(name, tensors={})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("part", ["tensors", "config", "check"])
def test_refuses_what_is_not_finite(part, bad):
    value = torch.tensor([[0.0, 1.0], [bad, 3.0]])
    parts = {"tensors": {}} | {part: {"x": value}}
    with pytest.raises(BookError, match=r"'x'.*not finite at index \[1, 0\]"):
        export("a-widget", **parts)
    parts[part] = {"x": [0.0, bad]}
    with pytest.raises(BookError, match="not finite"):
        export("a-widget", **parts)


@pytest.mark.parametrize(
    ("value", "half", "message"),
    [
        (torch.tensor([70_000.0]), True, "70000 does not fit into float16"),
        (torch.tensor([2**40]), False, "does not fit into int32"),
        (torch.tensor([1e300], dtype=torch.float64), False, "fit into float32"),
        (torch.tensor([1j]), False, "must hold real numbers, got complex64"),
        (["word"], False, "must hold real numbers"),
        ([[1, 2], [3]], False, "not a tensor"),
    ],
)
def test_refuses_what_does_not_fit(value, half, message):
    with pytest.raises(BookError, match=message):
        export("a-widget", tensors={"x": value}, half=half)


def test_refuses_a_setting_that_is_no_value():
    with pytest.raises(BookError, match=r"config\['f'\]: must hold real"):
        export("a-widget", tensors={}, config={"f": object()})
