"""Run a chapter on the pretended GPU: `python chapter_on_gpu.py vit`.

Every cell runs in the order of the page, exercises aside. Of each training two
steps are taken, and their numbers stand for the rest: what is proved is that
nothing is on the wrong device, not what is learned. So what the hidden cells
assert may fail, but for devices that differ.
"""

import sys
import types
from pathlib import Path

import matplotlib

import litformer.training
from bookkit.book import Book
from pretend_gpu import pretended_gpu

STEPS = 2
LEFT_OUT = {"starter", "solution", "check", "raises-exception"}
_train, trained = litformer.training.train, []


def train(model, batches, loss_fn, optimizer, *, steps, on_step=None, **rest):
    """In place of `train`: few steps, and a history as long as asked for."""
    kinds = {p.device.type for p in model.parameters()}
    trained.append((type(model).__name__, *kinds))
    few = min(steps, STEPS)
    history = _train(model, batches, loss_fn, optimizer, steps=few, **rest)
    while len(history) < steps:
        last = (history.losses, history.rates, history.norms, history.tokens)
        history.add(*(values[-1] for values in last), history.batches[-1])
        if on_step is not None:
            on_step(history)
            model.train()
    return history


def run(name):
    """All cells in one namespace; a failure names its cell."""
    stub = types.ModuleType("myst_nb")  # it would want a kernel
    stub.glue = lambda name, value, display: None
    sys.modules["myst_nb"] = stub
    litformer.training.train = train
    matplotlib.use("agg")
    space = {"__name__": "__main__"}
    for cell in Book(Path(__file__).parents[1]).chapter(name).cells:
        if cell.is_code and not LEFT_OUT & set(cell.tags):
            code = compile(cell.source, cell.where(), "exec")
            try:
                exec(code, space)
            except AssertionError as error:
                if "test" not in cell.tags or "'device'" in str(error):
                    raise
    return space


if __name__ == "__main__":
    with pretended_gpu():
        run(sys.argv[1])
    print(f"trained: {trained}")
    where = {kind for _, *kinds in trained for kind in kinds}
    if where != {"cuda"}:
        sys.exit(f"trained on {sorted(where)}, not on cuda alone")
