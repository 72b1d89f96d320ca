"""Hand what a chapter trained to a small program in the page.

A chapter's cell ends in

    export("attention-plane", tensors={"q": q, "k": k}, config={...},
           check={"weights": weights})

and the output of the cell carries it all: tensors as base64, settings, and
values that the page must find again when it computes them itself. So the
executed notebook is the only artefact, and a page can never show weights
from another run.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from bookkit.errors import BookError

__all__ = ["MIME", "Export", "decode", "export"]

MIME = "application/vnd.bookkit.widget+json"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# how each kind of number travels; the page's runtime.js knows the same names
TRAVEL = {"f": "float32", "i": "int32", "u": "int32", "b": "uint8"}


class Export:
    """The payload of a widget, displayable as the last value of a cell."""

    def __init__(self, payload: dict[str, Any]) -> None:
        self.payload = payload

    @property
    def size(self) -> int:
        """Bytes that the page loads."""
        return len(json.dumps(self.payload, separators=(",", ":")))

    def __repr__(self) -> str:
        tensors = self.payload["tensors"].values()
        numbers = sum(math.prod(t["shape"]) for t in tensors)
        return (
            f"widget {self.payload['name']}: {numbers:,} numbers, "
            f"{self.size / 1000:.1f} kB for the page"
        )

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict:
        """What Jupyter stores: the text for people, the rest for the page."""
        return {"text/plain": repr(self), MIME: self.payload}


def export(
    name: str,
    *,
    tensors: Mapping[str, Any],
    config: Mapping[str, Any] | None = None,
    check: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Export:
    """What the widget `name` needs to run a forward pass in the page.

    tensors: torch tensors, arrays or nested lists. Floats travel as fp32,
    with `half=True` as fp16 (half the download of a trained model, about
    three digits). config: settings. check: values that the page computes
    again from the tensors; it writes the greatest difference on its box,
    where the browser tests read it. Tensors in config and check become
    nested lists.

    Raises:
        BookError: a name that is no file name, a value that is not finite,
            too large for its format, or not a number.
    """
    if not NAME.fullmatch(name):
        raise BookError(
            f"widget {name!r}: the name becomes a file name and must be "
            "lower-case words joined by '-', like attention-plane."
        )
    return Export(
        {
            "name": name,
            "tensors": {
                key: _encode(f"widget {name}: tensor {key!r}", value, half)
                for key, value in tensors.items()
            },
            "config": _plain(f"widget {name}: config", config or {}),
            "check": _plain(f"widget {name}: check", check or {}),
        }
    )


def decode(tensor: Mapping[str, Any]) -> np.ndarray:
    """The array of one encoded tensor, as the page's runtime reads it."""
    raw = base64.b64decode(tensor["data"])
    dtype = np.dtype(tensor["dtype"]).newbyteorder("<")
    return np.frombuffer(raw, dtype).reshape(tensor["shape"])


def _array(who: str, value: Any) -> np.ndarray:
    """Any tensor as an array of numbers, all of them finite."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # numpy has no bfloat16
        small = value.is_floating_point() and value.itemsize < 4
        value = (value.float() if small else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different length
        raise BookError(f"{who}: not a tensor: {error}.") from None
    if array.dtype.kind not in TRAVEL:
        raise BookError(
            f"{who}: must hold real numbers, got {array.dtype}. Pass a "
            "tensor, an array or nested lists of numbers."
        )
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise BookError(
            f"{who}: not finite at index {bad}. A page cannot compute with "
            "it; replace masked scores before exporting."
        )
    return array


def _encode(who: str, value: Any, half: bool) -> dict[str, Any]:
    array = _array(who, value)
    dtype = TRAVEL[array.dtype.kind]
    if half and dtype == "float32":
        dtype = "float16"
    limits = np.finfo(dtype) if dtype[0] == "f" else np.iinfo(dtype)
    if array.size and not (
        limits.min <= array.min() and array.max() <= limits.max
    ):
        raise BookError(
            f"{who}: {np.abs(array).max():g} does not fit into {dtype}."
            + (" Export it with half=False." if half else "")
        )
    raw = array.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    return {
        "dtype": dtype,
        "shape": list(array.shape),
        "data": base64.b64encode(raw).decode(),
    }


def _plain(who: str, value: Any) -> Any:
    """A value as JSON can hold it: tensors become nested lists."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(f"{who}[{k!r}]", v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(f"{who}[{i}]", v) for i, v in enumerate(value)]
    array = _array(who, value)
    if array.dtype.kind == "f":
        # seven digits are all that fp32 holds, and shorter to send
        digits = np.vectorize(lambda x: float(f"{x:.7g}"), otypes=[float])
        array = digits(array)
    return array.tolist()
