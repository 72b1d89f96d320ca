"""Exercises that check themselves, and answer in words.

A check is a function whose parameters are the names that a learner defines:

    @exercise("attention.repair-the-cat")
    def repair_the_cat(repaired):
        expect_close(repaired(q, k, v), expected, on="three tokens")

`check("attention.repair-the-cat")` in a notebook finds `repaired` where it was
called, runs the function on it, and says what was expected, on which input,
what came, and the likely mistake. This module needs torch, numpy and the
standard library only, so that it works wherever the learner's code does.
"""

import contextlib
import copy
import difflib
import functools
import html
import importlib
import importlib.util
import inspect
import io
import linecache
import os
import pkgutil
import random
import re
import signal
import sys
import textwrap
import threading
import time
import types
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from bookkit import checks, progress

_TRANSPOSED = "It is the expected answer with its last two axes exchanged."
_ID = re.compile(r"([a-z][a-z0-9_]*)\.([a-z0-9]+(?:-[a-z0-9]+)*)")


class Wrong(Exception):
    """What a check raises when the learner's answer is not right yet.

    `message` says it in words. The rest is shown under it, one line each:
    the input (`on`), the `expected` and the actual (`got`) value as tensors,
    numbers or ready text, and the likely mistake (`hint`).
    """

    def __init__(
        self, message: str, *, on=None, expected=None, got=None, hint: str = ""
    ) -> None:
        self.message = message
        parts = {"Input": on, "Expected": expected, "Got": got}
        self.details = {k: show(v) for k, v in parts.items() if v is not None}
        if hint:
            self.details["Likely"] = hint
        super().__init__(_plain(message, self.details))


class CheckFailed(AssertionError):
    """A failed check in the executed book (`BOOKKIT_STRICT=1`)."""


class UnknownExercise(LookupError):
    """No check has this id."""


class _TimeUp(BaseException):
    """Not an `Exception`, so that a learner's `except` does not hide it."""


# ---------------------------------------------------------------- showing


def show(value) -> str:
    """`value`, short and readable: its shape, and four significant digits."""
    if isinstance(value, str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        value = torch.as_tensor(value)
    if isinstance(value, torch.Tensor):
        return _show_tensor(value)
    if isinstance(value, bool | int) or value is None or value is ...:
        return str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict) and all(isinstance(k, str) for k in value):
        return "\n".join(f"{k} = {show(v)}" for k, v in value.items())
    if isinstance(value, list | tuple) and any(
        isinstance(v, torch.Tensor | np.ndarray) for v in value
    ):
        return "\n".join(f"[{i}] {show(v)}" for i, v in enumerate(value))
    if isinstance(value, list | tuple):
        inner = ", ".join(show(v) for v in value)
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{comma})"
    if inspect.isfunction(value) or inspect.isclass(value):
        return f"{type(value).__name__} `{value.__name__}`"
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def _show_tensor(tensor: torch.Tensor, at: tuple[int, ...] = ()) -> str:
    """Shape and values; of a large stack the one matrix that holds `at`."""
    array = tensor.detach().cpu().resolve_conj().resolve_neg()
    kind = _dtype(tensor)
    array = array.float() if kind == "bfloat16" else array
    if array.dim() == 0:
        return _number(array.numpy()[()])
    head = f"shape {tuple(tensor.shape)}"
    if kind != "float32":
        head += ", bool, 1 = True" if kind == "bool" else f", {kind}"
    if array.numel() == 0:
        return f"{head}, empty"
    if array.dim() > 2 and array.numel() > 32:
        which = (*at, *(0 for _ in array.shape))[: array.dim() - 2]
        array = array[which]
        head += f"; of it {list(which)}"
    # a row longer than this would not fit beside its neighbours
    small = array.numel() <= 64 and max(array.shape) <= 8
    line = array.dim() == 1 and array.numel() <= 16
    text = functools.partial(
        np.array2string,
        array.numpy(),
        separator=" ",
        threshold=array.numel() if small or line else 0,
        edgeitems=3,
    )
    seen: list[str] = []  # a first pass, to learn how wide a column must be

    def note(v) -> str:
        seen.append(_number(v, bits=True))
        return seen[-1]

    text(formatter={"all": note})
    width = max(len(s) for s in seen)
    body = text(
        formatter={"all": lambda v: _number(v, bits=True).rjust(width)},
        max_line_width=10_000,
    )
    body = re.sub(r"\n{2,}", "\n", body)
    return f"{head}\n{body}" if "\n" in body else f"{head}: {body}"


def _number(value, *, bits: bool = False) -> str:
    if isinstance(value, np.bool_ | bool):
        return (".1"[int(value)]) if bits else str(bool(value))
    if isinstance(value, np.integer | int):
        return str(int(value))
    return f"{value:.4g}"


def _plain(message: str, details: dict[str, str]) -> str:
    lines = [message]
    for label, text in details.items():
        indent = "\n" + " " * (2 + 11)
        lines.append(f"  {label + ':':<11}" + text.replace("\n", indent))
    return "\n".join(lines)


# ------------------------------------------------------------ expectations


def expect_close(
    got, expected, *, on, hint: str = "", atol: float = 1e-5, rtol: float = 1e-5
) -> None:
    """Raise `Wrong` unless `got` is `expected` up to `atol + rtol * |it|`.

    Both may be tensors, arrays, numbers, or lists of numbers; `on` describes
    the input (text, or a dict of the tensors). Beside the `hint`, the message
    says what it can find out: a wrong shape, NaN, a constant factor, exchanged
    axes, and where the largest difference is.
    """
    want = _as_tensor(expected)
    have = _tensor_from(got, want, on=on, hint=hint)
    if have.shape != want.shape:
        _raise_shape(have, tuple(want.shape), on, hint, expected=want)
    if want.dtype == torch.bool or have.dtype == torch.bool:
        return expect_equal(have, want, on=on, hint=hint)
    a, b = have.detach().cpu().double(), want.detach().cpu().double()
    near = (a - b).abs() <= atol + rtol * b.abs()
    near &= b.isfinite()  # anything is within rtol * infinity
    near |= (a == b) | (a.isnan() & b.isnan())
    if near.all():
        return None

    def parts(bad: torch.Tensor) -> dict:
        return {"on": on, **_pair(want, have, bad)}

    if (bad := a.isnan() & ~b.isnan()).any():
        raise Wrong(
            f"Your answer holds NaN{_at(bad)}, where a number was expected.",
            **parts(bad),
            hint=hint or "0/0, inf - inf or 0 * inf happened on the way.",
        )
    if (bad := a.isinf() & ~b.isinf()).any():
        raise Wrong(
            f"Your answer is infinite{_at(bad)}, where a finite number was "
            "expected.",
            **parts(bad),
            hint=hint or "Was something divided by zero, or exp'ed too large?",
        )
    gap = torch.where(near, 0.0, (a - b).abs()).nan_to_num(posinf=1e300)
    i = gap.argmax().item()
    worst = torch.zeros_like(near).flatten()
    worst[i] = True
    worst = worst.view(a.shape)
    pair = (
        f"expected {_number(b.flatten()[i].item())}, "
        f"got {_number(a.flatten()[i].item())}."
    )
    if a.dim() == 0:
        raise Wrong(pair.capitalize(), on=on, hint=hint)
    count = int((~near).sum())
    raise Wrong(
        f"{count} of {a.numel()} numbers {'is' if count == 1 else 'are'} off. "
        f"The worst is{_at(worst)}: {pair}",
        **parts(worst),
        hint=" ".join(filter(None, [_pattern(a, b), hint])),
    )


def _pair(want: torch.Tensor, have: torch.Tensor, bad: torch.Tensor) -> dict:
    """Both answers, where the first True of `bad` can be seen."""
    at = tuple(bad.nonzero()[0].tolist()) if bad.dim() else ()
    return {
        "expected": _show_tensor(want, at),
        "got": _show_tensor(have, at),
    }


def expect_equal(got, expected, *, on, hint: str = "") -> None:
    """Raise `Wrong` unless `got` equals `expected` exactly.

    For masks, integers, strings, and containers of them.
    """
    if isinstance(expected, torch.Tensor | np.ndarray):
        want = _as_tensor(expected)
        have = _tensor_from(got, want, on=on, hint=hint)
        if have.shape != want.shape:
            _raise_shape(have, tuple(want.shape), on, hint, expected=want)
        if (have.dtype == torch.bool) != (want.dtype == torch.bool):
            raise Wrong(
                f"Expected a tensor of dtype {_dtype(want)}, "
                f"got {_dtype(have)}.",
                on=on,
                expected=want,
                got=have,
                hint=hint,
            )
        differ = have.detach().cpu() != want.detach().cpu()
        if not differ.any():
            return
        first = tuple(differ.nonzero()[0].tolist())
        pair = [_number(t[first].item()) for t in (want, have)]
        text = f"Expected {pair[0]}, got {pair[1]}."
        if differ.numel() > 1:
            text = (
                f"{int(differ.sum())} of {differ.numel()} entries differ. The "
                f"first is{_at(differ)}: expected {pair[0]}, got {pair[1]}."
            )
        pattern = ""
        if want.dtype == torch.bool and differ.all() and differ.numel() > 1:
            pattern = (
                "Every entry is inverted: here True means that a query may "
                "attend to a key."
            )
        elif _transposed(have, want):
            pattern = _TRANSPOSED
        if differ.dim() == 0:
            raise Wrong(text, on=on, hint=hint)
        raise Wrong(
            text,
            on=on,
            **_pair(want, have, differ),
            hint=" ".join(filter(None, [pattern, hint])),
        )
    if got is None and expected is not None:
        raise _none(on, expected, hint)
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    # True == 1 in Python; for a learner a yes and a number are not the same.
    mixed = (type(got) is bool) != (type(expected) is bool)
    if not mixed and _same(got, expected) and _float_for_int(got, expected):
        raise Wrong(
            "The value is right, and its type is not: whole numbers are "
            "asked for, as int.",
            on=on,
            got=repr(got),
            hint="Is there a `/` where `//` is meant? A float is exact up to "
            "2**53 only, and is no index.",
        )
    if mixed or not _same(got, expected):
        what = show(expected).splitlines()
        inline = len(what) == 1 and len(show(got).splitlines()) == 1
        raise Wrong(
            f"Expected {show(expected)}, got {show(got)}."
            if inline
            else "The answer is not the expected one.",
            on=on,
            expected=None if inline else expected,
            got=None if inline else got,
            hint=hint,
        )


def expect_shape(got, shape, *, on, hint: str = "") -> None:
    """Raise `Wrong` unless `got` is a tensor of this shape."""
    have = _tensor_from(got, torch.empty(shape), on=on, hint=hint)
    if tuple(have.shape) != tuple(shape):
        _raise_shape(have, tuple(shape), on, hint)


def _float_for_int(got, expected) -> bool:
    """Is there 3.0 where 3 is asked for? Inside of containers, too."""
    if isinstance(expected, list | tuple):
        return any(map(_float_for_int, got, expected))
    if isinstance(expected, dict):
        return any(_float_for_int(got[k], v) for k, v in expected.items())
    return type(expected) is int and isinstance(got, float)


def unchanged(function: Callable, *args, names: str, on) -> None:
    """Raise `Wrong` if a call writes into its arguments, where that matters.

    `names` are those of the first arguments, tensors or lists, as the learner
    knows them. Elsewhere a note says so, and the answer still counts.
    """
    bare = getattr(function, "__wrapped__", function)  # it is given no clones
    args = [_clone(a, {}) for a in args]
    before = [_version(a) for a in args]
    bare(*args)
    for name, old, now in zip(names.split(), before, args, strict=False):
        if _version(now) != old:
            raise Wrong(
                f"The answer is right, but `{name}` was changed in place.",
                on=on,
                hint="Leave the arguments alone: `x = x * 2` makes a new "
                "tensor, `x *= 2` and `x.mul_(2)` write into the old one.",
            )


def expect_dtype(got, dtype: torch.dtype, *, on, hint: str = "") -> None:
    """Raise `Wrong` unless `got` is a tensor of this number type."""
    have = _tensor_from(got, torch.empty((), dtype=dtype), on=on, hint=hint)
    if have.dtype != dtype:
        raise Wrong(
            f"Expected a tensor of dtype {str(dtype).removeprefix('torch.')}, "
            f"got {_dtype(have)}.",
            on=on,
            got=have,
            hint=hint,
        )


def expect_no_loop(function: Callable, few: tuple, many: tuple, *, on) -> None:
    """Raise `Wrong` if `function` calls torch more often for a larger input.

    `few` and `many` are its arguments, the second ones with longer axes. A
    loop over plain Python numbers is not seen.
    """
    calls = []
    for arguments in (few, many):
        with _Counts() as counts:
            function(*arguments)
        calls.append(counts.n)
    if calls[1] > calls[0]:
        raise Wrong(
            f"The answer is right, and there is a loop in it: it calls torch "
            f"{calls[0]} times for a small input and {calls[1]} times for a "
            "larger one.",
            on=on,
            hint="Let one tensor operation do what the loop does.",
        )


class _Counts(TorchFunctionMode):
    """How often torch is called, by functions and by methods."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.n += 1
        return func(*args, **(kwargs or {}))


def _same(got, expected) -> bool:
    try:
        return bool(got == expected)
    except Exception:  # comparing odd things may raise odd things
        return False


def _as_tensor(value) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, float):  # keep a Python float's own precision
        return torch.tensor(value, dtype=torch.float64)
    return torch.as_tensor(value)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _none(on, expected, hint: str) -> Wrong:
    return Wrong(
        "It returned None.",
        on=on,
        expected=expected,
        hint="Is the `return` missing? " + hint
        if hint
        else "Is the `return` missing?",
    )


def _tensor_from(got, want: torch.Tensor, *, on, hint: str) -> torch.Tensor:
    if isinstance(got, torch.Tensor):
        return got
    if got is None:
        raise _none(on, f"a tensor of shape {tuple(want.shape)}", hint)
    try:
        return _as_tensor(got)
    except Exception:  # torch raises many kinds here
        kind = type(got).__name__
        size = f" of {len(got)}" if isinstance(got, tuple | list) else ""
        raise Wrong(
            f"Expected a tensor, got a {kind}{size}.",
            on=on,
            expected=f"a tensor of shape {tuple(want.shape)}",
            got=got,
            hint=hint
            or (
                "Return one tensor, not several."
                if isinstance(got, tuple | list)
                else ""
            ),
        ) from None


def _raise_shape(have, shape: tuple, on, hint: str, *, expected=None) -> None:
    came = tuple(have.shape)
    pattern = ""
    if len(came) == len(shape) and len(came) > 1 and came != shape:
        if sorted(came) == sorted(shape):
            pattern = "The axes are all there, in another order."
        elif all(c in (s, 1) for c, s in zip(came, shape, strict=True)):
            pattern = "One axis was summed or averaged away."
    elif len(came) != len(shape):
        axes = "axis" if len(came) == 1 else "axes"
        pattern = f"It has {len(came)} {axes}, not {len(shape)}."
    raise Wrong(
        f"Expected shape {shape}, got {came}.",
        on=on,
        expected=expected,
        got=have if expected is not None else None,
        hint=" ".join(filter(None, [pattern, hint])),
    )


def _at(mask: torch.Tensor) -> str:
    """' at [0, 2]', the first place where `mask` holds; '' for a number."""
    if mask.dim() == 0:
        return ""
    return f" at {mask.nonzero()[0].tolist()}"


def _pattern(a: torch.Tensor, b: torch.Tensor) -> str:
    """What a numeric answer has in common with the expected one, in words."""
    if a.numel() == 1 or not (a.isfinite().all() and b.isfinite().all()):
        return ""
    if _transposed(a, b):
        return _TRANSPOSED
    for axis in range(a.dim()):
        if a.size(axis) > 1 and torch.allclose(a.flip(axis), b, atol=1e-6):
            return f"It is the expected answer in reverse order (axis {axis})."
    scale = b.abs().max()
    big = b.abs() > 1e-3 * scale
    if big.sum() > 1:
        ratio = a[big] / b[big]
        factor = ratio.mean()
        if torch.allclose(a, factor * b, atol=1e-4 * scale.item()):
            if factor.abs() > 1e-6:
                text = f"Every number is {_number(factor.item())} times the "
                return text + "expected one."
            return "Every number is zero."
    shift = (a - b).mean()
    if torch.allclose(a, b + shift, atol=1e-4 * max(scale.item(), 1e-6)):
        return f"Every number is off by {_number(shift.item())}."
    return ""


def _transposed(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (
        a.dim() > 1
        and a.shape == b.mT.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a.mT.double(), b.double(), atol=1e-6)
    )


# --------------------------------------------------------- what is ruled out


def without(
    function: Callable, *names: str, module: str = "", nan: bool = True
) -> Callable:
    """`function`, which raises `Wrong` once it calls what is ruled out.

    An exercise that says "without a softmax of torch" means it: `names` are
    functions and methods of torch, `module` one (or a package) whose functions
    may not be used either. With `nan=False` no operation may give a NaN on the
    way, not even one that is repaired afterwards.
    """

    @functools.wraps(function)
    def watched(*args, **kwargs):
        with _Without(names, module, nan):
            return function(*args, **kwargs)

    return watched


class _Without(TorchFunctionMode):
    """Sees each call into torch, of functions and of methods alike."""

    def __init__(self, names, module: str, nan: bool) -> None:
        super().__init__()
        self.names, self.module, self.nan = names, module, nan

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in self.names:
            raise Wrong(
                f"Your answer calls `{name}`, which this exercise rules out.",
                hint="Read the exercise again: it says what may not be used.",
            )
        if self.module and self._inside():
            raise Wrong(
                f"Your answer calls `{self.module}`, which this exercise "
                "rules out.",
                hint="Read the exercise again: it says what may not be used.",
            )
        result = func(*args, **(kwargs or {}))
        if not self.nan and _has_nan(result):
            raise Wrong(
                f"A NaN arises on the way, in `{name}`.",
                got=result,
                hint="Repairing it afterwards is too late: it hides every "
                "other NaN too. Arrange that it does not arise.",
            )
        return result

    def _inside(self) -> bool:
        frame = sys._getframe(2)
        while frame is not None:
            name = frame.f_globals.get("__name__") or ""
            if name == self.module or name.startswith(self.module + "."):
                return True
            frame = frame.f_back
        return False


def _has_nan(value) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and bool(value.isnan().any())
    )


# --------------------------------------------------------------- registry


@dataclass(frozen=True)
class Exercise:
    """One registered check: the names it needs and how to run it."""

    id: str
    names: tuple[str, ...]
    optional: frozenset[str]
    run: Callable
    seconds: float
    doc: str

    @property
    def chapter(self) -> str:
        """The chapter's name: the part of the id before the dot."""
        return self.id.split(".")[0]


_registry: dict[str, Exercise] = {}


def exercise(id: str, *, seconds: float = 30.0) -> Callable:
    """Register a check under `id`, `<chapter>.<slug>`.

    The parameters of the function are the names that the learner defines (one
    with a default may be missing). It may run for `seconds`. What it returns,
    if anything, is said when the learner has solved the exercise.
    """
    if not _ID.fullmatch(id):
        raise ValueError(
            f"exercise: the id must look like 'attention.repair-the-cat', "
            f"got {id!r}."
        )

    def register(function: Callable) -> Callable:
        other = _registry.get(id)
        if other and (other.run.__module__, other.run.__qualname__) != (
            function.__module__,
            function.__qualname__,
        ):
            raise ValueError(
                f"exercise: two checks are called {id!r}: "
                f"{other.run.__qualname__} and {function.__qualname__}."
            )
        doc = inspect.getdoc(function)
        if not doc:
            raise ValueError(
                f"exercise: {id!r} needs a docstring that says what is checked."
            )
        parameters = inspect.signature(function).parameters.values()
        _registry[id] = Exercise(
            id=id,
            names=tuple(p.name for p in parameters),
            optional=frozenset(
                p.name for p in parameters if p.default is not p.empty
            ),
            run=function,
            seconds=seconds,
            doc=doc,
        )
        return function

    return register


def checks_of(chapter: str) -> list[Exercise]:
    """The registered checks of a chapter, in the order they are written."""
    name = f"{checks.__name__}.{chapter}"
    if importlib.util.find_spec(name) is None:
        known = ", ".join(m.name for m in pkgutil.iter_modules(checks.__path__))
        raise UnknownExercise(
            f"check: no chapter {chapter!r} has checks. There are: {known}."
        )
    importlib.import_module(name)
    return [e for e in _registry.values() if e.chapter == chapter]


def find(id: str) -> Exercise:
    """The check called `id`, or an error that lists the nearest names."""
    if not isinstance(id, str):
        raise TypeError(
            f"check: give the id of an exercise, such as "
            f"'attention.repair-the-cat', got {type(id).__name__}."
        )
    chapter = id.split(".")[0]
    chapters = [m.name for m in pkgutil.iter_modules(checks.__path__)]
    if chapter in chapters:
        known = [e.id for e in checks_of(chapter)]
    else:
        known = [e.id for name in chapters for e in checks_of(name)]
    if id in known:
        return _registry[id]
    near = difflib.get_close_matches(id, known, n=3, cutoff=0.4)
    raise UnknownExercise(
        f"check: no exercise {id!r}. "
        + (
            f"Did you mean {' or '.join(map(repr, near))}?"
            if near
            else f"There are: {', '.join(known) or 'none'}."
        )
    )


# ----------------------------------------------------------------- result

_VERDICTS = {
    "solved": ("✓", "Solved", "#1a7f37"),
    "wrong": ("✗", "Not yet", "#c4432b"),
    "error": ("✗", "It stopped with an error", "#c4432b"),
    "unwritten": ("○", "Not written yet", "#7a7a7a"),
    "missing": ("○", "Nothing to check yet", "#7a7a7a"),
    "timeout": ("✗", "It takes too long", "#c4432b"),
}


@dataclass
class Result:
    """What a check says; rich in a notebook, plain elsewhere."""

    id: str
    status: str  # a key of _VERDICTS
    message: str = ""
    details: dict[str, str] = field(default_factory=dict)
    progress: str = ""  # "3 of 7 solved in this chapter"; empty in the book
    cause: BaseException | None = field(default=None, repr=False)

    @property
    def solved(self) -> bool:
        """True when the answer passed."""
        return self.status == "solved"

    def __bool__(self) -> bool:
        return self.solved

    @property
    def text(self) -> str:
        """All of it, as plain text."""
        mark, verdict, _ = _VERDICTS[self.status]
        head = f"{mark} {verdict}: {self.id}"
        body = _plain(self.message, self.details).strip("\n")
        return "\n".join(filter(None, [head, body, self.progress]))

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        # Only a border is coloured, and text inherits, so that it reads the
        # same in JupyterLab, Colab and on the site, light and dark.
        mark, verdict, colour = _VERDICTS[self.status]
        parts = [
            f'<p style="margin:0"><strong>{mark} {verdict}:</strong> '
            f"<code>{html.escape(self.id)}</code></p>"
        ]
        for paragraph in filter(None, self.message.split("\n\n")):
            parts.append(f'<p style="margin:.4em 0 0">{_rich(paragraph)}</p>')
        for label, value in self.details.items():
            many = "\n" in value or label == "Your line"
            tag = (
                '<pre tabindex="0" style="margin:.1em 0 0;padding:0;border:0;'
                'background:none;color:inherit;overflow-x:auto">'
                f"{html.escape(value)}</pre>"
                if many
                else f" {_rich(value)}"
            )
            parts.append(
                f'<div style="margin:.4em 0 0"><strong>{label}:</strong>'
                f"{tag}</div>"
            )
        if self.progress:
            parts.append(
                f'<p style="margin:.4em 0 0"><small>'
                f"{html.escape(self.progress)}</small></p>"
            )
        return (
            '<div class="bookkit-check" data-status="'
            f'{self.status}" style="border:1px solid currentColor;border-left:'
            f".4em solid {colour};border-radius:.3em;padding:.5em .8em;"
            'margin:.3em 0;max-width:48em">' + "".join(parts) + "</div>"
        )


def _rich(text: str) -> str:
    """Escaped text, with `names` in a code font."""
    safe = html.escape(text).replace("\n", "<br>")
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)


# ------------------------------------------------------------------ check


def check(id: str) -> Result:
    """Check the exercise `id` with what is defined where this is called.

    Raises:
        UnknownExercise: when no exercise is called so.
        CheckFailed: when it is not solved, in the executed book only
            (`BOOKKIT_STRICT=1`), where progress is not recorded either.
    """
    frame = sys._getframe(1)
    namespace = {**frame.f_globals, **frame.f_locals}
    result = examine(id, namespace, learner=frame.f_globals)
    if os.environ.get("BOOKKIT_STRICT") == "1":
        if not result.solved:
            raise CheckFailed(result.text) from result.cause
        return result
    result.progress = _record(result)
    if "IPython" not in sys.modules and not hasattr(sys, "ps1"):
        print(result)  # a plain script shows no value by itself
    return result


def _record(result: Result) -> str:
    """Note the attempt; the line of progress, or why there is none."""
    chapter = result.id.split(".")[0]
    try:
        if result.status not in ("missing", "unwritten"):
            progress.record(result.id, solved=result.solved)
        done = progress.solved()
    except progress.ProgressError as error:
        return f"Progress was not saved: {error}"
    ids = [e.id for e in checks_of(chapter)]
    count = sum(i in done for i in ids)
    line = f"{count} of {len(ids)} solved in this chapter"
    if result.solved and count == len(ids):
        return f"{line}: all of them!"
    return f"{line}."


def examine(id: str, namespace: dict, *, learner: dict | None = None) -> Result:
    """Run the check `id` on `namespace`; nothing is recorded or raised.

    `learner` is the globals of the learner's code, to tell her lines from ours
    in a traceback; `namespace` itself unless given.
    """
    found = find(id)
    learner = namespace if learner is None else learner
    names = [n for n in found.names if n not in namespace]
    missing = [n for n in names if n not in found.optional]
    if missing:
        what = " and ".join(f"`{n}`" for n in missing)
        plural = "that defines" if len(missing) == 1 else "that define"
        cell = "cell" if len(missing) == 1 else "cells"
        return Result(id, "missing", f"Run the {cell} {plural} {what} first.")
    values = {n: namespace[n] for n in found.names if n in namespace}
    for name, value in values.items():
        if value is ... or (value is None and name not in found.optional):
            text = f"`{name}` is still `{'...' if value is ... else None}`."
            return Result(id, "unwritten", text)
    calls = _Calls()
    values = {n: calls.guard(n, v) for n, v in values.items()}
    printed, warned = io.StringIO(), []
    try:
        with (
            _undisturbed(id),
            contextlib.redirect_stdout(printed),
            warnings.catch_warnings(record=True) as warned,
            _time_limit(found.seconds),
        ):
            warnings.simplefilter("always")
            praise = found.run(**values)
        if isinstance(praise, Result | bool) or praise is NotImplemented:
            praise = None
        result = Result(id, "solved", str(praise or ""))
    except Wrong as error:
        result = Result(id, "wrong", error.message, dict(error.details), "")
        result.cause = error
    except _TimeUp as error:
        result = _too_long(id, error, learner, found.seconds, calls)
    except Exception as error:
        result = _in_words(id, error, learner, calls)
    if calls.changed and not isinstance(result.cause, NotImplementedError):
        name, argument = calls.changed
        result.details["Note"] = (
            f"`{name}` changes its argument `{argument}` in place. A caller "
            "rarely expects that: work on a copy, or make a new one."
        )
    if warned:
        first = warned[0]
        text = f"{first.category.__name__}: {first.message}"
        short = textwrap.shorten(text, 200, placeholder=" ...")
        result.details["Warned"] = short
    if printed.getvalue().strip():
        lines = printed.getvalue().rstrip().splitlines()
        more = [f"... {len(lines) - 8} more lines"] if len(lines) > 8 else []
        result.details["Printed"] = "\n".join(
            [line[:120] for line in lines[:8]] + more
        )
    return result


class _Calls:
    """Watches the learner's functions: what they are given and give back.

    Each call gets clones of its tensors, so that a function that writes into
    its arguments cannot change what the check compares with afterwards.
    """

    def __init__(self) -> None:
        self.last: tuple[str, dict] | None = None  # the call that is running
        self.returned_none: str = ""
        self.changed: tuple[str, str] | None = None

    def guard(self, name: str, value):
        """A stand-in for the learner's `value` that cannot be disturbed."""
        if isinstance(value, torch.Tensor) and not value.requires_grad:
            return value.clone()
        if not isinstance(value, types.FunctionType | functools.partial):
            return value

        @functools.wraps(value)
        def guarded(*args, **kwargs):
            memo: dict[int, object] = {}
            args = [_clone(a, memo) for a in args]
            kwargs = {k: _clone(v, memo) for k, v in kwargs.items()}
            given = _named(value, args, kwargs)
            self.last = (name, given)
            before = {k: _version(v) for k, v in given.items()}
            shown = {k: show(v) for k, v in given.items()}
            self.last = (name, shown)
            result = value(*args, **kwargs)
            if result is ...:
                raise NotImplementedError
            for key, item in given.items():
                if _version(item) != before[key]:
                    self.changed = self.changed or (name, key)
            self.returned_none = name if result is None else ""
            self.last = None
            return result

        return guarded


def _clone(value, memo: dict):
    """A copy whose tensors can be written into; gradients still flow back."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, torch.nn.Module):
        return value
    if isinstance(value, torch.Tensor):
        memo[id(value)] = value.clone()
    elif type(value) in (list, tuple):
        memo[id(value)] = type(value)(_clone(v, memo) for v in value)
    elif type(value) is dict:
        memo[id(value)] = {k: _clone(v, memo) for k, v in value.items()}
    elif isinstance(value, np.ndarray | set | bytearray):
        memo[id(value)] = copy.deepcopy(value)
    else:
        return value
    return memo[id(value)]


def _version(value):
    """Changes whenever a tensor, a list or a dict is written into."""
    if isinstance(value, torch.Tensor) and not value.is_inference():
        return value._version
    if type(value) in (list, tuple):
        return [(id(v), _version(v)) for v in value]
    if type(value) is dict:
        return [(id(k), id(v), _version(v)) for k, v in value.items()]
    return None


def _named(function, args: list, kwargs: dict) -> dict:
    """The arguments of a call under the learner's own parameter names."""
    try:
        return inspect.signature(function).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):  # the call itself will say what is wrong
        return {str(i): a for i, a in enumerate(args)} | kwargs


@contextlib.contextmanager
def _undisturbed(id: str):
    """Seed for this check, and give the notebook its random state back."""
    seed = zlib.crc32(id.encode())
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
        yield
    finally:
        torch.set_grad_enabled(grad)
        torch.set_default_dtype(dtype)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


@contextlib.contextmanager
def _time_limit(seconds: float):
    """Interrupt an endless loop, where the system can (POSIX, main thread)."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_):
        raise _TimeUp

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, stop)
    # It fires again every second: a bare `except:` may swallow the first one.
    remaining, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if remaining:  # somebody else's timer: let it run on
            rest = max(remaining - (time.monotonic() - start), 0.01)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)


def _learner_line(error: BaseException, learner: dict) -> tuple[str, str]:
    """The learner's own last line in a traceback: (its text, where it is)."""
    found = ("", "")
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if trace.tb_frame.f_globals is learner:
            line = linecache.getline(code.co_filename, trace.tb_lineno).strip()
            number = trace.tb_lineno
            found = (line, f"line {number} of the cell, in `{code.co_name}`")
        trace = trace.tb_next
    return found


def _in_words(id: str, error: Exception, learner: dict, calls) -> Result:
    """A learner's exception, as a sentence rather than a traceback."""
    line, place = _learner_line(error, learner)
    given = calls.last[1] if calls.last else {}
    details = {"Input": show(given)} if given else {}
    if isinstance(error, NotImplementedError) and (
        not str(error) or "raise NotImplementedError" in line
    ):
        name = f"`{calls.last[0]}` is" if calls.last else "It is"
        return Result(id, "unwritten", f"{name} yours to write.", cause=error)
    kind = type(error).__name__
    # torch may add its own C++ stack, which helps nobody here
    said = str(error).split("\nException raised from ")[0].strip()
    text = f"{kind}: {said}" if said else kind
    if len(text) > 600:
        text = text[:597] + "..."
    if not place:
        # The check itself stumbled over the answer.
        if calls.returned_none:
            message = f"`{calls.returned_none}` returned None."
            details["Likely"] = "Is the `return` missing?"
        elif calls.last:
            message = f"`{calls.last[0]}` could not be called. {text}"
            details["Likely"] = "Compare its parameters with the starter's."
        else:
            message = f"Your answer could not be examined. {text}"
            details["Likely"] = (
                "It is not the kind of thing that was asked for: compare its "
                "type and shape with the exercise."
            )
        return Result(id, "error", message, details, cause=error)
    details["Your line"] = f"{line}\n({place})" if line else place
    if hint := _error_hint(error, said):
        details["Likely"] = hint
    return Result(id, "error", text, details, cause=error)


def _error_hint(error: Exception, said: str) -> str:
    """The usual reason for the errors that everybody meets."""
    if isinstance(error, RecursionError):
        return "The function calls itself without end."
    if isinstance(error, NameError):
        return "Was the cell that defines it run? Is it spelled so?"
    if "mat1 and mat2" in said or "must match the size of tensor" in said:
        return (
            "Two shapes do not fit. Print them just before this line; is a "
            "transpose missing?"
        )
    if (
        "can't allocate memory" in said
        or "Overflow when unpacking" in said
        or isinstance(error, MemoryError)
    ):
        return "The input is too large to build a table of it: use a formula."
    if "a leaf Variable that requires grad" in said:
        return "Change weights within `with torch.no_grad():`."
    if "Expected size for first two dimensions" in said:
        return "The inner sizes of a matrix product differ: transpose one."
    if "NoneType" in said:
        return "Something is None here: is a `return` missing?"
    return ""


def _too_long(id: str, error, learner: dict, seconds: float, calls) -> Result:
    line, place = _learner_line(error, learner)
    details = {}
    if calls.last and calls.last[1]:
        details["Input"] = show(calls.last[1])
    if place:
        details["Your line"] = f"{line}\n({place})" if line else place
    details["Likely"] = (
        "A loop that never ends, or a loop over single numbers where one "
        "tensor operation would do."
    )
    return Result(
        id,
        "timeout",
        f"The check was stopped after {seconds:g} seconds.",
        details,
        cause=error,
    )
