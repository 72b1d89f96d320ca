# Written in chapters/gpt.md; edit it there, then run make export.
"""Weights stored in four or eight bits, decoded exactly.

A row of a matrix is cut into blocks of 32 numbers that share a scale. The
layouts are those of GGUF files.

Axes: R rows, N numbers in a row; bytes come as uint8.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from litformer.shapes import check_shape

__all__ = ["decode_q4_1", "decode_q8_0"]


def _blocks(who: str, data: Tensor, size: int) -> Tensor:
    """(R, bytes) -> (R, blocks, size)."""
    hint = "Bytes are uint8."
    if data.dtype != torch.uint8:
        raise TypeError(f"{who}: data must be uint8, got {data.dtype}.")
    check_shape(who, "data", data, "R bytes", hint=hint)
    if data.shape[1] % size:
        raise ValueError(
            f"{who}: a row of {data.shape[1]} bytes is not a whole number of "
            f"blocks of {size} bytes. Is it another type, or cut off?"
        )
    return data.unflatten(1, (-1, size))


def decode_q4_1(data: UInt8[Tensor, "R bytes"]) -> Float[Tensor, "R N"]:
    """Blocks of scale d, minimum m and 32 times 4 bits q: x = d q + m.

    Byte i of the last 16 holds number i in its low half and number i + 16 in
    its high half.

    Raises:
        ValueError, TypeError: bytes that are no whole blocks of 20.

    Source: the GGUF specification, and ggml's reference code.
    """
    blocks = _blocks("decode_q4_1", data, 20)
    halves = blocks[..., :4].contiguous().view(torch.float16).float()
    d, m = halves.split(1, dim=-1)
    packed = blocks[..., 4:]
    q = torch.cat([packed & 15, packed >> 4], dim=-1)
    return (d * q + m).flatten(1)


def decode_q8_0(data: UInt8[Tensor, "R bytes"]) -> Float[Tensor, "R N"]:
    """Blocks of a scale d and 32 signed bytes q: x = d q.

    Raises:
        ValueError, TypeError: bytes that are no whole blocks of 34.

    Source: the GGUF specification, and ggml's reference code.
    """
    blocks = _blocks("decode_q8_0", data, 34)
    d = blocks[..., :2].contiguous().view(torch.float16).float()
    return (d * blocks[..., 2:].contiguous().view(torch.int8)).flatten(1)
