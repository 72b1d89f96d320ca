"""Foreign weights into our models: a table of names, applied or refused.

Every library has names of its own for the same matrices. The difference is
data, not code: a table from their names to ours. `load_named` applies one and
leaves nothing open: what the table does not explain is an error, before a
single number of the model has changed.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["Rule", "load_named", "unfilled"]

Change = Callable[[Tensor], Tensor | Sequence[Tensor]]
# our name; or names and what makes our tensors of theirs; or None: left out
Rule = str | None | tuple[str | tuple[str, ...], Change]


def load_named(
    model: nn.Module, tensors: Mapping[str, Tensor], table: Mapping[str, Rule]
) -> nn.Module:
    """Fill a model with tensors that have other names; return the model.

    The table's keys are their names, its values say what becomes of them:

        {"wte.weight": "embed.weight",
         "h.*.ln_1.weight": "blocks.*.norm_attn.weight",
         "h.*.mlp.c_fc.weight": ("blocks.*.ff.up_proj.weight", torch.t),
         "h.*.attn.c_attn.bias": (("blocks.*.attn.q_proj.bias",
                                   "blocks.*.attn.k_proj.bias",
                                   "blocks.*.attn.v_proj.bias"),
                                  lambda bias: bias.chunk(3)),
         "h.*.attn.masked_bias": None}

    A `*` stands for a number, the same on both sides. A pair holds our name
    and a function of their tensor; with several names the function returns as
    many tensors. None leaves a tensor out, knowingly. Every other tensor must
    be used, and every parameter and persistent buffer of the model must be
    filled (one of two tied names is enough). A tensor is cast to the dtype
    that the model has.

    Raises:
        ValueError: a tensor that is missing, unused, filled twice, of another
            shape, or sent to a name that the model has not. The model is then
            as it was.
    """
    who = f"load_named: {type(model).__name__}"
    slots = model.state_dict(keep_vars=True)
    rules = [(_pattern(theirs), rule) for theirs, rule in table.items()]
    sources: dict[str, str] = {}
    values: dict[str, Tensor] = {}
    unused = []
    for theirs, tensor in tensors.items():
        found = [(m, rule) for p, rule in rules if (m := p.fullmatch(theirs))]
        if not found:
            unused.append(theirs)
            continue
        match, rule = found[0]
        if rule is None:
            continue
        for ours, value in _targets(who, theirs, rule, match.groups(), tensor):
            _check(who, theirs, ours, value, slots, sources)
            sources[ours], values[ours] = theirs, value
    if unused:
        raise ValueError(
            f"{who}: the table says nothing of {_some(unused)}. Send each to "
            "a name of the model, or to None to leave it out."
        )
    _check_missing(who, slots, values)
    with torch.no_grad():
        for ours, value in values.items():
            slots[ours].copy_(value)
    return model


def _pattern(theirs: str) -> re.Pattern:
    """Their name as a pattern: each star is a number."""
    return re.compile(r"(\d+)".join(map(re.escape, theirs.split("*"))))


def _targets(who, theirs, rule, numbers, tensor):
    """Our names and the values for them, for one of their tensors."""
    if isinstance(rule, str):
        rule = (rule, lambda same: same)
    names, change = rule
    values = change(tensor)
    if isinstance(names, str):
        names, values = (names,), (values,)
    if len(names) != len(values):
        raise ValueError(
            f"{who}: {theirs!r} goes to {len(names)} names, but its function "
            f"returned {len(values)} tensors."
        )
    for name, value in zip(names, values, strict=True):
        parts = name.split("*")
        if len(parts) - 1 > len(numbers):
            raise ValueError(
                f"{who}: {name!r} has more stars than the name that it "
                f"belongs to, which {theirs!r} matched."
            )
        yield (
            "".join(
                part + number
                for part, number in zip(
                    parts, [*numbers[: len(parts) - 1], ""], strict=True
                )
            ),
            value,
        )


def _check(who, theirs, ours, value, slots, sources) -> None:
    """A name that the model has, empty so far, of the right shape."""
    if ours not in slots:
        near = difflib.get_close_matches(ours, slots, 1, cutoff=0)
        raise ValueError(
            f"{who} has no {ours!r}, where {theirs!r} should go. Its nearest "
            f"name is {near[0]!r}. Is the table for another configuration?"
            if near
            else f"{who} has no parameters at all."
        )
    if ours in sources:
        raise ValueError(
            f"{who}: both {sources[ours]!r} and {theirs!r} go to {ours!r}. "
            "Leave one out with None."
        )
    got, wanted = tuple(value.shape), tuple(slots[ours].shape)
    if got != wanted:
        hint = (
            "A transposition is missing."
            if got == wanted[::-1]
            else "Was the model built with the sizes of these weights?"
        )
        raise ValueError(
            f"{who}: {theirs!r} gives {ours!r} of shape {got}, expected "
            f"{wanted}. {hint}"
        )


def _check_missing(who, slots, values) -> None:
    """Every slot is filled, by its own name or by one that is tied to it."""
    filled = {id(slots[ours]) for ours in values}
    missing = [name for name, slot in slots.items() if id(slot) not in filled]
    if missing:
        raise ValueError(
            f"{who}: nothing fills {_some(missing)}. Is the file incomplete, "
            "or a line of the table missing?"
        )


def _some(names: list[str]) -> str:
    """A few names, and how many more."""
    shown = ", ".join(map(repr, names[:3]))
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class unfilled(TorchFunctionMode):
    """Within it, models are built without drawing random weights.

    For a model that `load_named` fills at once: it refuses to leave anything
    out, so no uninitialised number survives:

        with unfilled():
            model = GPT(config)
        load_named(model, tensors, table)
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        """Let every function of torch.nn.init return its tensor untouched."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)
