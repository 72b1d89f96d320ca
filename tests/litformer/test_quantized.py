"""Bits into numbers: exactly those that the reference decoder gives."""

import numpy as np
import pytest
import torch

from litformer.quantized import decode_q4_1, decode_q8_0


def packed(seed, rows, n, size):
    """Random blocks whose halves are ordinary numbers."""
    make = np.random.default_rng(seed)
    data = make.integers(0, 256, (rows, n, size), dtype=np.uint8)
    halves = 2 if size == 20 else 1
    scales = make.normal(size=(rows, n, halves)).astype(np.float16)
    data[..., : 2 * halves] = scales.view(np.uint8)
    return data.reshape(rows, -1)


@pytest.mark.parametrize(
    ("name", "size", "decode"),
    [("Q4_1", 20, decode_q4_1), ("Q8_0", 34, decode_q8_0)],
)
def test_equal_to_the_reference(name, size, decode):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    data = packed(0, 5, 3, size)
    expected = dequantize(data, GGMLQuantizationType[name])
    got = decode(torch.from_numpy(data))
    assert got.shape == (5, 96)
    assert got.dtype == torch.float32
    assert np.array_equal(got.numpy(), expected)


def test_q4_1_by_hand():
    """One block: the low halves are the first 16 numbers."""
    block = torch.zeros(1, 20, dtype=torch.uint8)
    block[0, :4] = torch.tensor([0.5, -1.0]).half().view(torch.uint8)
    block[0, 4] = 0xF3  # low 3, high 15
    x = decode_q4_1(block)
    assert x[0, 0] == 0.5 * 3 - 1
    assert x[0, 16] == 0.5 * 15 - 1
    assert (x[0, 1:16] == -1).all()


def test_q8_0_by_hand():
    """A byte above 127 is a negative number."""
    block = torch.zeros(1, 34, dtype=torch.uint8)
    block[0, :2] = torch.tensor([0.25]).half().view(torch.uint8)
    block[0, 2:5] = torch.tensor([1, 255, 128], dtype=torch.uint8)
    assert decode_q8_0(block)[0, :4].tolist() == [0.25, -0.25, -32.0, 0.0]


def test_a_part_of_a_matrix_can_be_decoded():
    """Rows that are a view into a larger tensor."""
    data = torch.from_numpy(packed(1, 6, 2, 20))
    assert torch.equal(decode_q4_1(data[2:4]), decode_q4_1(data)[2:4])


@pytest.mark.parametrize("decode", [decode_q4_1, decode_q8_0])
def test_bytes_that_are_cut_off(decode, unchecked):
    with pytest.raises(ValueError, match="not a whole number of blocks of"):
        decode(torch.zeros(2, 41, dtype=torch.uint8))
    with pytest.raises(TypeError, match="data must be uint8, got torch.int8"):
        decode(torch.zeros(2, 40, dtype=torch.int8))
    with pytest.raises(ValueError, match=r"data must have shape \(R, bytes\)"):
        decode(torch.zeros(40, dtype=torch.uint8))
