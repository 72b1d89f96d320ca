"""A table of names: applied whole, or refused with the model untouched."""

import pytest
import torch
from torch import nn

from litformer.pretrained import load_named
from litformer.weight_map import unfilled


class Model(nn.Module):
    """Two layers, a norm, a tied head, buffers of both kinds."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 3)
        self.blocks = nn.ModuleList(nn.Linear(3, 5) for _ in range(2))
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("scale", torch.ones(2))
        self.register_buffer("made", torch.ones(2), persistent=False)


TABLE = {
    "wte": "embed.weight",
    "h.*.w": ("blocks.*.weight", torch.t),
    "h.*.b": "blocks.*.bias",
    "scale": "scale",
    "h.*.mask": None,
}


def checkpoint():
    tensors = {"wte": torch.randn(7, 3), "scale": torch.randn(2)}
    for i in range(2):
        tensors[f"h.{i}.w"] = torch.randn(3, 5)
        tensors[f"h.{i}.b"] = torch.randn(5)
        tensors[f"h.{i}.mask"] = torch.ones(4)
    return tensors


def test_names_numbers_changes_and_tied_weights():
    tensors, model = checkpoint(), Model()
    assert load_named(model, tensors, TABLE) is model
    for i, block in enumerate(model.blocks):
        assert torch.equal(block.weight, tensors[f"h.{i}.w"].T)
        assert torch.equal(block.bias, tensors[f"h.{i}.b"])
    assert torch.equal(model.head.weight, tensors["wte"])
    assert model.head.weight is model.embed.weight
    assert torch.equal(model.scale, tensors["scale"])
    assert model.embed.weight.requires_grad


def test_one_of_theirs_becomes_several_of_ours():
    model = nn.ModuleDict({n: nn.Linear(3, 5, bias=False) for n in "qkv"})
    packed = torch.randn(15, 3)
    names = tuple(f"{n}.weight" for n in "qkv")
    load_named(model, {"qkv": packed}, {"qkv": (names, lambda x: x.chunk(3))})
    assert torch.equal(torch.cat([model[n].weight for n in "qkv"]), packed)
    with pytest.raises(ValueError, match="goes to 3 names.* returned 5"):
        load_named(
            model, {"qkv": packed}, {"qkv": (names, lambda x: x.chunk(5))}
        )


def test_two_stars_keep_their_order():
    model = nn.ModuleDict(
        {
            "a": nn.ModuleList(
                nn.ModuleList(nn.Linear(1, 1, bias=False) for _ in range(3))
                for _ in range(2)
            )
        }
    )
    tensors = {
        f"{i}/{j}": torch.full((1, 1), 10.0 * i + j)
        for i in range(2)
        for j in range(3)
    }
    load_named(model, tensors, {"*/*": "a.*.*.weight"})
    got = [[layer.weight.item() for layer in row] for row in model["a"]]
    assert got == [[0, 1, 2], [10, 11, 12]]
    with pytest.raises(ValueError, match="has more stars"):
        load_named(model, tensors, {"*/*": "a.*.*.*.weight"})


def test_a_dot_is_a_dot_and_a_star_is_a_number():
    """`h.*.b` is no pattern that swallows `h.0.attn.b` or `hx0xb`."""
    for name in ("h.0.attn.b", "hx0xb", "h.zero.b", "xh.0.b"):
        tensors = {**checkpoint(), name: torch.zeros(5)}
        with pytest.raises(ValueError, match="says nothing of"):
            load_named(Model(), tensors, TABLE)


def test_dtype_follows_the_model():
    tensors = {n: t.half() for n, t in checkpoint().items()}
    model = load_named(Model(), tensors, TABLE)
    assert model.embed.weight.dtype == torch.float32


def spoilt(**changes):
    """A checkpoint and a table with one thing wrong."""
    tensors, table = checkpoint(), dict(TABLE)
    for name, value in changes.pop("tensors", {}).items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    table |= changes.pop("table", {})
    return tensors, table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tensors": {"h.1.w": None}},
            r"Model: nothing fills 'blocks\.1\.weight'\. Is the file",
        ),
        (
            {"tensors": {"wte": None}},
            r"nothing fills 'embed\.weight', 'head\.weight'\.",
        ),
        (
            {"tensors": {f"extra.{i}": torch.ones(1) for i in range(5)}},
            r"says nothing of 'extra\.0', .* and 2 more\. Send each",
        ),
        (
            {"tensors": {"h.0.w": torch.ones(5, 3)}},
            r"'h\.0\.w' gives 'blocks\.0\.weight' of shape \(3, 5\), "
            r"expected \(5, 3\)\. A transposition is missing",
        ),
        (
            {"tensors": {"h.0.b": torch.ones(6)}},
            r"shape \(6,\), expected \(5,\)\. Was the model built",
        ),
        (
            {"tensors": {"h.2.b": torch.ones(5)}},
            r"has no 'blocks\.2\.bias', where 'h\.2\.b' should go",
        ),
        (
            {"table": {"scale": "scales"}},
            r"has no 'scales'.* nearest name is 'scale'",
        ),
        (
            {"table": {"h.*.mask": "blocks.*.bias"}},
            r"both 'h\.0\.b' and 'h\.0\.mask' go to 'blocks\.0\.bias'",
        ),
    ],
)
def test_refused_and_untouched(change, message):
    tensors, table = spoilt(**change)
    model = Model()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        load_named(model, tensors, table)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_model_without_parameters():
    with pytest.raises(ValueError, match="no parameters at all"):
        load_named(nn.ReLU(), {"a": torch.ones(1)}, {"a": "b"})


def test_unfilled_draws_nothing_and_is_over_at_its_end():
    state = torch.get_rng_state()
    with unfilled():
        model = Model()
    assert torch.equal(torch.get_rng_state(), state)
    load_named(model, checkpoint(), TABLE)
    assert all(p.isfinite().all() for p in model.parameters())
    Model()
    assert not torch.equal(torch.get_rng_state(), state)
