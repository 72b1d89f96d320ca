# Written in chapters/training.md; edit it there, then run make export.
"""What a run is besides its weights: its history, and the state of chance."""

import base64
import random
from dataclasses import dataclass, field, fields

import numpy as np
import torch

__all__ = ["History", "random_state", "set_random_state"]


@dataclass
class History:
    """What each step did: lists of one length. `len` is the steps done."""

    losses: list[float] = field(default_factory=list)  # mean over its tokens
    rates: list[float] = field(default_factory=list)  # of the first group
    norms: list[float] = field(default_factory=list)  # before clipping
    tokens: list[int] = field(default_factory=list)  # that counted
    batches: list[int] = field(default_factory=list)  # micro-batches drawn

    def __len__(self) -> int:
        return len(self.losses)

    @property
    def steps(self) -> list[int]:
        """The numbers of the steps, from 0, for the x axis of a plot."""
        return list(range(len(self)))

    def add(self, *values: float | int) -> None:
        """Append one step: a value for each list, in their order."""
        for entry, value in zip(fields(self), values, strict=True):
            getattr(self, entry.name).append(value)


def _to_text(array: object) -> str:
    return base64.b64encode(np.asarray(array).tobytes()).decode()


def _to_array(text: str, dtype: type = np.uint8) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype).copy()


def random_state() -> dict:
    """The state of all global generators, as JSON can hold it."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    state = {
        "python": [version, _to_text(np.array(words, np.uint32)), gauss],
        "numpy": [name, _to_text(keys), *rest],
        "torch": _to_text(torch.get_rng_state()),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = [_to_text(s) for s in torch.cuda.get_rng_state_all()]
    return state


def set_random_state(state: dict) -> None:
    """Put all global generators back to where `random_state` found them."""
    version, text, gauss = state["python"]
    words = tuple(map(int, _to_array(text, np.uint32)))
    random.setstate((version, words, gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, _to_array(keys, np.uint32), *rest))
    torch.set_rng_state(torch.from_numpy(_to_array(state["torch"])))
    if torch.cuda.is_available():
        for device, text in enumerate(state.get("cuda", ())):
            torch.cuda.set_rng_state(torch.from_numpy(_to_array(text)), device)
