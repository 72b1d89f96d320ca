"""The tensors of an ONNX file, read without any package for ONNX.

An ONNX file is one protocol-buffer message, and such a message is a list of
fields. Each field is a key, field number times 8 plus kind, and a value: a
varint (kind 0), 8 bytes (1), 4 bytes (5), or a length and as many bytes (2),
which may be a message again. Here the fields that matter are the names, the
shapes and the raw numbers of tensors, and which node reads which tensor.

Source: the schema onnx.proto, and Protocol Buffers, "Encoding".
"""

import math
import mmap
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["onnx_tensors"]

# numbers of fields in onnx.proto
_GRAPH = 7  # of ModelProto
_NODE, _TENSOR = 1, 5  # of GraphProto
_NODE_INPUT, _NODE_NAME = 1, 3  # of NodeProto
_DIMS, _TYPE, _TENSOR_NAME, _RAW = 1, 2, 8, 9  # of TensorProto
_DTYPES = {1: torch.float32, 6: torch.int32, 7: torch.int64, 11: torch.float64}

Data = mmap.mmap | bytes
Span = tuple[int, int]  # where bytes begin and end


def onnx_tensors(path: Path) -> dict[str, Tensor]:
    """The trained tensors in an ONNX file, by name.

    An exporter that folds constants (a transposed weight, say) gives the
    result an anonymous name such as `onnx::MatMul_1966`. Such a tensor gets
    the name of the node that reads it, with dots: `encoder.query.MatMul`.

    Raises:
        ValueError: not an ONNX file, cut off, or a kind of tensor that is
            not read here.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # nothing can be mapped of an empty file
            raise ValueError(f"onnx_tensors: {path} is empty.") from None
        with data:
            try:
                return _tensors(data)
            except (IndexError, UnicodeDecodeError):
                raise ValueError(
                    f"onnx_tensors: {path} is no ONNX file, or it was cut "
                    "off: a field reaches beyond its end."
                ) from None
            except _Unreadable as error:
                raise ValueError(f"onnx_tensors: {path}: {error}") from None


class _Unreadable(Exception):
    """Something that this reader does not read."""


def _tensors(data: Data) -> dict[str, Tensor]:
    graphs = [v for n, v in _fields(data, (0, len(data))) if n == _GRAPH]
    if len(graphs) != 1:
        raise _Unreadable(f"expected one graph in it, found {len(graphs)}.")
    readers: dict[str, str] = {}
    found: dict[str, Tensor] = {}
    for number, span in _fields(data, graphs[0]):
        if number == _NODE:
            name, inputs = _node(data, span)
            for tensor in inputs:
                readers.setdefault(tensor, name)
        elif number == _TENSOR:
            name, tensor = _tensor(data, span)
            found[name] = tensor
    return {
        readers.get(n, n).strip("/").replace("/", ".") if "::" in n else n: t
        for n, t in found.items()
    }


def _node(data: Data, span: Span) -> tuple[str, list[str]]:
    """A node's name, and the names of what it reads."""
    name, inputs = "", []
    for number, value in _fields(data, span):
        if number == _NODE_NAME:
            name = _text(data, value)
        elif number == _NODE_INPUT:
            inputs.append(_text(data, value))
    return name, inputs


def _tensor(data: Data, span: Span) -> tuple[str, Tensor]:
    """A tensor's name and its numbers."""
    name, shape, kind, raw = "", [], 0, None
    for number, value in _fields(data, span):
        if number == _DIMS:  # one field a side, or all sides in one field
            shape += [value] if isinstance(value, int) else _packed(data, value)
        elif number == _TYPE:
            kind = value
        elif number == _TENSOR_NAME:
            name = _text(data, value)
        elif number == _RAW:
            raw = data[slice(*value)]
    if raw is None or kind not in _DTYPES:
        raise _Unreadable(
            f"tensor {name!r} has data type {kind}"
            + (", without raw data." if raw is None else ".")
            + f" Read are raw data of the types {sorted(_DTYPES)}."
        )
    dtype = _DTYPES[kind]
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise _Unreadable(
            f"tensor {name!r} of shape {tuple(shape)} and {dtype} has "
            f"{len(raw)} bytes."
        )
    flat = torch.frombuffer(bytearray(raw), dtype=dtype)  # little-endian
    return name, flat.reshape(shape)


def _fields(data: Data, span: Span) -> Iterator[tuple[int, int | Span]]:
    """(number, value) of each field; the value of bytes is where they are."""
    at, end = span
    while at < end:
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            size = {1: 8, 5: 4}.get(kind)
            if kind == 2:
                size, at = _varint(data, at)
            if size is None or at + size > end:
                raise IndexError
            value, at = (at, at + size), at + size
        yield key >> 3, value


def _varint(data: Data, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first; the 8th says: more."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _packed(data: Data, span: Span) -> list[int]:
    """Varints, one behind the other."""
    (at, end), found = span, []
    while at < end:
        value, at = _varint(data, at)
        found.append(value)
    return found


def _text(data: Data, span: Span) -> str:
    return data[slice(*span)].decode()
