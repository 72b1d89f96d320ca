# Written in chapters/training.md; edit it there, then run make export.
"""Checkpoints: all that a run needs in order to go on as if never stopped.

A sealed folder of three files: model.safetensors with the weights,
optimizer.safetensors with the optimiser's state and the history, and
manifest.json with step, shapes, options, random state and versions.
"""

import platform
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor, nn

from litformer.runs import History, random_state, set_random_state
from litformer.sealed import (
    CheckpointError,
    describe,
    read_sealed,
    write_sealed,
)

__all__ = ["load_checkpoint", "save_checkpoint"]


def _tensors_of(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The model's tensors by name, and the other names of shared ones."""
    tensors, names, also = {}, {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in names:
            also[name] = names[id(tensor)]
        else:
            names[id(tensor)] = name
            tensors[name] = tensor.detach()
    return tensors, also


def _who(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict:
    """What must be the same when a run goes on: the kind, and the order."""
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [group["params"] for group in optimizer.param_groups]
    kind = type(optimizer)
    return dict(
        kind=f"{kind.__module__}.{kind.__qualname__}",
        params=[[names.get(id(p), "?") for p in params] for params in groups],
    )


def _pack(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict]:
    """The optimiser's state: tensors, and the rest as JSON can hold it."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, entries in state["state"].items():
        for name, value in entries.items():
            kind = tensors if isinstance(value, Tensor) else numbers
            kind[f"{index}.{name}"] = value
    groups = state["param_groups"]
    options = [{k: v for k, v in g.items() if k != "params"} for g in groups]
    return tensors, dict(numbers=numbers, options=options)


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
) -> None:
    """Write all that a run needs to go on; replace what stood at `path`.

    A kill at any moment leaves a whole checkpoint, the old one or the new.

    Raises:
        CheckpointError: `path` holds anything but a checkpoint.
    """
    weights, also = _tensors_of(model)
    state, rest = _pack(optimizer)
    for entry in fields(history):
        values = torch.tensor(getattr(history, entry.name), dtype=torch.double)
        state[f"history.{entry.name}"] = values
    versions = dict(torch=torch.__version__, python=platform.python_version())
    facts = dict(
        format=1,
        step=len(history),
        also=also,
        optimizer=_who(optimizer, model) | rest,
        versions=versions,
        random=random_state(),
    )
    files = {"model.safetensors": weights, "optimizer.safetensors": state}
    write_sealed(Path(path), files, facts)


def _same(model: nn.Module, stored: dict[str, str]) -> None:
    """Names, dtypes and shapes must be those of the checkpoint."""
    tensors, also = _tensors_of(model)
    have = {name: describe(t) for name, t in tensors.items()} | also
    problems = [
        *(f"{n} is not in the checkpoint" for n in have if n not in stored),
        *(f"{n} is not in the model" for n in stored if n not in have),
        *(
            f"{n} is {stored[n]} in the checkpoint, {have[n]} in the model"
            for n in have
            if n in stored and have[n] != stored[n]
        ),
    ]
    if problems:
        more = f" (and {n} more)" if (n := len(problems) - 1) else ""
        raise CheckpointError(
            "load_checkpoint: this is not the model that was saved: "
            f"{problems[0]}{more}."
        )


def _unpack(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict
) -> None:
    """Give an optimiser the state that `_pack` took from another one."""
    state: dict[int, dict] = {}
    for name, value in {**tensors, **rest["numbers"]}.items():
        index, entry = name.split(".", 1)
        state.setdefault(int(index), {})[entry] = value
    groups = optimizer.state_dict()["param_groups"]
    for group, options in zip(groups, rest["options"], strict=True):
        for name, value in options.items():  # JSON knows no tuples
            group[name] = tuple(value) if isinstance(value, list) else value
    optimizer.load_state_dict(dict(state=state, param_groups=groups))


def load_checkpoint(
    path: str | Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
) -> History:
    """Put model, optimiser and chance back; return the history.

    Without an optimiser only the weights are loaded. Nothing is changed
    unless everything fits.

    Raises:
        CheckpointError: missing, cut off, changed, or of another model.
    """
    files, facts = read_sealed(Path(path))
    if facts.get("format") != 1:
        raise CheckpointError(
            f"load_checkpoint: {path} has format {facts.get('format')}, not 1."
        )
    weights, state = files["model.safetensors"], files["optimizer.safetensors"]
    _same(model, {n: describe(t) for n, t in weights.items()} | facts["also"])
    kept = facts["optimizer"]
    if optimizer is not None:
        for name, value in _who(optimizer, model).items():
            if kept[name] != value:
                raise CheckpointError(
                    f"load_checkpoint: the optimiser's {name} was "
                    f"{kept[name]}, got {value}. Build it in the same way."
                )
    history = History()
    for entry in fields(history):
        values = state.pop(f"history.{entry.name}").tolist()
        whole = entry.name in ("tokens", "batches")
        setattr(history, entry.name, [*map(int, values)] if whole else values)
    also = {name: weights[first] for name, first in facts["also"].items()}
    model.load_state_dict(weights | also)
    if optimizer is not None:
        _unpack(optimizer, state, kept)
        set_random_state(facts["random"])
    return history
