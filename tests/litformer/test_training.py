"""The loop against a bare one, exact accumulation, and runs that stop.

The bare loop is written here in plain PyTorch and shares no code with `train`.
"""

import copy
import itertools
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from litformer import sealed
from litformer.checkpoints import load_checkpoint, save_checkpoint
from litformer.losses import cross_entropy
from litformer.optim import AdamW, decay_groups, warmup_linear
from litformer.runs import History, random_state, set_random_state
from litformer.sealed import CheckpointError, read_sealed, write_sealed
from litformer.training import TrainingDiverged, set_seed, train

V, D = 11, 6
QUIET = dict(progress=False)


def model(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Embedding(V, D), nn.Dropout(dropout), nn.Linear(D, V)
    )


def batches(n=12, seed=0, longest=9):
    """Batches of unequal size, the longer with padding."""
    make = torch.Generator().manual_seed(seed)
    out = []
    for i in range(n):
        x = torch.randint(V, (1 + i % 3, longest), generator=make)
        y = torch.randint(V, x.shape, generator=make)
        y[:, 1 + i % longest :] = -100
        out.append((x, y))
    return out


def token_loss(net, batch):
    x, y = batch
    return cross_entropy(net(x), y, reduction="sum"), (y != -100).sum()


def joined(parts):
    return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))


def weights(net):
    return nn.utils.parameters_to_vector(net.parameters()).detach()


# ------------------------------------------------------------- the loop


@pytest.mark.parametrize("clip", [None, 0.05, 100.0])
def test_train_is_a_bare_loop(clip):
    data, factor = batches(5), warmup_linear(3, 20)
    ours, theirs = model().double(), model().double()
    a = AdamW(ours.parameters(), lr=0.03)
    b = torch.optim.AdamW(theirs.parameters(), lr=0.03)
    history = train(
        ours, data, token_loss, a, steps=20, schedule=factor, clip_norm=clip,
        **QUIET,
    )  # fmt: skip
    assert len(history) == 20
    for step in range(20):
        loss_sum, tokens = token_loss(theirs, data[step % 5])
        b.zero_grad()
        (loss_sum / tokens).backward()
        norm = nn.utils.clip_grad_norm_(
            theirs.parameters(), clip or float("inf")
        )
        b.param_groups[0]["lr"] = 0.03 * factor(step)
        b.step()
        assert history.losses[step] == pytest.approx(
            (loss_sum / tokens).item(), rel=1e-9
        )
        assert history.norms[step] == pytest.approx(norm.item(), rel=1e-9)
        assert history.rates[step] == pytest.approx(0.03 * factor(step))
        assert history.tokens[step] == tokens
    torch.testing.assert_close(weights(ours), weights(theirs))
    assert a.param_groups[0]["lr"] == 0.03


@pytest.mark.parametrize("clip", [None, 0.05])
def test_accumulation_is_the_one_big_batch(clip):
    """Three micro-batches of 1, 4 and 9 tokens are one batch of 14."""
    data = batches(12)
    many, one = model().double(), model().double()
    found = train(
        many, data, token_loss, AdamW(many.parameters(), lr=0.05),
        steps=4, grad_accum=3, clip_norm=clip, **QUIET,
    )  # fmt: skip
    large = [joined(data[i : i + 3]) for i in range(0, 12, 3)]
    want = train(
        one, large, token_loss, AdamW(one.parameters(), lr=0.05),
        steps=4, clip_norm=clip, **QUIET,
    )  # fmt: skip
    torch.testing.assert_close(weights(many), weights(one))
    assert found.losses == pytest.approx(want.losses)
    assert found.norms == pytest.approx(want.norms)
    assert found.tokens == want.tokens
    assert found.batches == [3] * 4
    assert want.batches == [1] * 4
    # not so if each micro-batch counts alike
    wrong = model().double()
    optimizer = AdamW(wrong.parameters(), lr=0.05)
    for i in range(0, 12, 3):
        optimizer.zero_grad()
        for batch in data[i : i + 3]:
            loss_sum, tokens = token_loss(wrong, batch)
            (loss_sum / tokens / 3).backward()
        optimizer.step()
    assert (weights(wrong) - weights(one)).abs().max() > 1e-3


def test_one_empty_micro_batch_is_harmless():
    data = batches(3)
    x, y = data[1]
    data[1] = (x, torch.full_like(y, -100))
    many, one = model().double(), model().double()
    for net, parts, k in ((many, data, 3), (one, [joined(data)], 1)):
        optimizer = AdamW(net.parameters())
        train(net, parts, token_loss, optimizer, steps=2, grad_accum=k, **QUIET)
    torch.testing.assert_close(weights(many), weights(one))


def test_each_group_keeps_its_own_rate():
    net = model()
    decay, rest = decay_groups(net, 0.0)
    optimizer = torch.optim.SGD([{**decay, "lr": 0.5}, {**rest, "lr": 0.0}])
    before = [p.detach().clone() for p in net.parameters()]
    found = train(
        net, batches(), token_loss, optimizer, steps=3,
        schedule=lambda step: 0.5, **QUIET,
    )  # fmt: skip
    after = dict(zip(net.state_dict(), before, strict=True))
    for name, p in net.named_parameters():
        moved = not torch.equal(p, after[name])
        assert moved == (name == "2.weight")
    assert found.rates == [0.25] * 3
    assert [g["lr"] for g in optimizer.param_groups] == [0.5, 0.0]


def test_the_rate_comes_back_if_a_step_fails():
    net = model()
    optimizer = AdamW(net.parameters(), lr=0.5)
    optimizer.step = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        train(
            net, batches(), token_loss, optimizer, steps=1,
            schedule=lambda step: 0.1, **QUIET,
        )  # fmt: skip
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_old_gradients_do_not_count():
    clean, dirty = model(), model()
    dirty(torch.arange(V)).square().sum().backward()
    for net in (clean, dirty):
        train(
            net, batches(), token_loss, AdamW(net.parameters()), steps=2,
            **QUIET,
        )  # fmt: skip
    assert torch.equal(weights(clean), weights(dirty))


def test_on_step_sees_each_step_and_may_evaluate():
    net, seen, modes = model(dropout=0.5), [], []

    def loss(net, batch):
        modes.append(net.training)
        return token_loss(net, batch)

    def on_step(history):
        seen.append((len(history), history.losses[-1]))
        net.eval()

    found = train(
        net, batches(), loss, AdamW(net.parameters()), steps=4,
        on_step=on_step, **QUIET,
    )  # fmt: skip
    assert seen == list(zip(range(1, 5), found.losses, strict=True))
    assert modes == [True] * 4
    assert found.steps == [0, 1, 2, 3]


def test_batches_may_be_a_list_a_loader_or_endless():
    def paths():
        data = batches(5)
        yield data
        yield itertools.cycle(data)
        yield torch.utils.data.DataLoader(data, batch_size=None)

    ends = []
    for data in paths():
        net = model()
        train(net, data, token_loss, AdamW(net.parameters()), steps=8, **QUIET)
        ends.append(weights(net))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_batches_are_drawn_only_when_needed():
    drawn = []

    def stream():
        for i, batch in enumerate(itertools.cycle(batches())):
            drawn.append(i)
            yield batch

    net = model()
    train(
        net, stream(), token_loss, AdamW(net.parameters()), steps=3,
        grad_accum=2, **QUIET,
    )  # fmt: skip
    assert drawn == list(range(6))


def test_progress_is_shown_and_can_be_silenced(capsys):
    net = model()
    optimizer = AdamW(net.parameters())

    def slow(net, batch):
        import time

        time.sleep(0.3)
        return token_loss(net, batch)

    train(net, batches(), slow, optimizer, steps=6)
    shown = capsys.readouterr().err
    assert "step/s" in shown
    assert "loss " in shown
    train(net, batches(), slow, optimizer, steps=1, **QUIET)
    assert capsys.readouterr().err == ""


def test_train_learns():
    """x -> 3x + 1 mod 11 is a table of 11 rows: learned by heart, exactly."""
    net = model()
    x = torch.arange(V)[None]
    data = [(x, (3 * x + 1) % V)]
    found = train(
        net, data, token_loss, AdamW(net.parameters(), lr=0.05), steps=150,
        schedule=warmup_linear(10, 150), **QUIET,
    )  # fmt: skip
    assert found.losses[0] > 2.0
    assert found.losses[-1] < 0.05
    assert (net(x).argmax(-1) == data[0][1]).all()


def test_set_seed_seeds_all_three():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    set_seed(7)
    first = draw()
    assert draw() != first
    set_seed(7)
    assert draw() == first
    set_seed(2**40)  # numpy takes 32 bits only


# ------------------------------------------------------- refusals of train


def test_train_refuses(tmp_path, unchecked):
    net = model()
    optimizer = AdamW(net.parameters())

    def run(data=None, loss=token_loss, optimizer=optimizer, **options):
        data = batches() if data is None else data
        train(net, data, loss, optimizer, steps=20, **QUIET, **options)

    with pytest.raises(ValueError, match="batches ended after 12, and more"):
        run(iter(batches()))
    with pytest.raises(ValueError, match="batches ended after 0"):
        run([])
    with pytest.raises(TypeError, match="loss_fn must return .*got Tensor"):
        run(loss=lambda net, batch: token_loss(net, batch)[0])
    x, y = batches()[0]
    with pytest.raises(ValueError, match="hold 0 tokens that count"):
        run([(x, torch.full_like(y, -100))])
    with pytest.raises(ValueError, match="no parameter .* got a gradient"):
        run(optimizer=AdamW(model().parameters()))
    with pytest.raises(ValueError, match="grad_accum must be >= 1, got 0"):
        run(grad_accum=0)
    with pytest.raises(ValueError, match="clip_norm must be above 0, got 0"):
        run(clip_norm=0.0)
    (tmp_path / "old").mkdir()
    with pytest.raises(ValueError, match="exists already"):
        run(checkpoint=tmp_path / "old")
    with pytest.raises(ValueError, match="checkpoint_every=5 without"):
        run(checkpoint_every=5)
    with pytest.raises(ValueError, match="checkpoint_every must be >= 1"):
        run(checkpoint=tmp_path / "new", checkpoint_every=0)


# ------------------------------------------------------------ divergence


def diverging(tmp_path, loss, data=None, net=None, before=None, **options):
    """Run until it stops; return the error, and what the model was before."""
    net = net or model()
    kept = {}

    def on_step(history):
        kept["weights"] = weights(net).clone()
        if before:
            before(net, history)

    with pytest.raises(TrainingDiverged) as caught:
        train(
            net, data or batches(), loss, AdamW(net.parameters(), lr=1e-3),
            steps=30, checkpoint=tmp_path / "run", checkpoint_every=2,
            on_step=on_step, **QUIET, **options,
        )  # fmt: skip
    return caught.value, net, kept["weights"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_the_run(tmp_path, value):
    seen = itertools.count()

    def loss(net, batch):
        found, tokens = token_loss(net, batch)
        return found * (value if next(seen) == 11 else 1.0), tokens

    error, net, before = diverging(tmp_path, loss, grad_accum=2)
    assert f"the loss is {value} at step 5, batch 11" in str(error)
    assert "Data and parameters are finite" in str(error)
    assert f"checkpoint in {tmp_path / 'run'} is intact" in str(error)
    assert (error.step, error.batch) == (5, 11)
    assert error.data is not None
    assert len(error.history) == 5
    assert torch.equal(weights(net), before)
    other = model(1)
    history = load_checkpoint(
        tmp_path / "run", other, AdamW(other.parameters())
    )
    assert len(history) == 4
    assert weights(other).isfinite().all()


def test_it_names_bad_data(tmp_path):
    x = [torch.randn(4, 3) for _ in range(8)]
    x[5][2, 1] = torch.nan
    data = [{"x": (part,), "n": [1]} for part in x]
    error, _, _ = diverging(
        tmp_path,
        lambda net, batch: (net(batch["x"][0]).square().sum(), 4),
        data=data,
        net=nn.Linear(3, 2),
    )
    assert "step 5, batch 5. The batch holds NaN or infinity" in str(error)
    assert error.data is data[5]


def test_it_names_a_broken_parameter(tmp_path):
    def before(net, history):
        if len(history) == 3:
            net[2].bias.data[4] = torch.inf

    error, _, _ = diverging(tmp_path, token_loss, before=before)
    assert "Parameter 2.bias was not finite before this step" in str(error)


def test_it_names_a_rate_that_is_too_high(tmp_path):
    losses = iter([1.0, 1.0, 2.0, 9.0, float("inf")])

    def loss(net, batch):
        found, tokens = token_loss(net, batch)
        return found / found.detach() * next(losses) * tokens, tokens

    error, _, _ = diverging(tmp_path, loss)
    assert "had grown from 1 to 9" in str(error)
    assert "the rate, 0.001, is too high" in str(error)


def test_it_finds_a_gradient_that_is_no_number(tmp_path):
    """The root has a finite value and no finite slope at zero."""

    def loss(net, batch):
        found, tokens = token_loss(net, batch)
        bad = (net[2].bias - net[2].bias.detach())[0].abs().sqrt()
        return found + bad, tokens

    net = model()
    with pytest.raises(TrainingDiverged, match="the gradient is nan at") as e:
        train(net, batches(), loss, AdamW(net.parameters()), steps=3, **QUIET)
    assert "Its trace is in the gradient of 2.bias" in str(e.value)
    assert "There is no checkpoint" in str(e.value)


# ----------------------------------------------------------- checkpoints


def resumed(tmp_path, stop, *, dropout=0.3, accum=2, make=AdamW, total=9):
    """Weights and history of a run, without and with a stop in it."""
    ends = []
    for parts in ((total,), (stop, total)):
        place = tmp_path / f"run{len(parts)}"
        history = None
        for last, until in zip((None, *parts[:-1]), parts, strict=True):
            set_seed(5 if last is None else 99)  # another process
            net = model(dropout=dropout)
            optimizer = make(decay_groups(net, 0.1), lr=0.02)
            if last is not None:
                history = load_checkpoint(place, net, optimizer)
                assert len(history) == last
            history = train(
                net, batches(7), token_loss, optimizer, steps=until,
                schedule=warmup_linear(3, total), grad_accum=accum,
                history=history, checkpoint=place, **QUIET,
            )  # fmt: skip
        ends.append((weights(net), history, optimizer.state_dict()))
    return ends


@pytest.mark.parametrize("stop", [1, 4, 8])
@pytest.mark.parametrize(
    "make",
    [
        AdamW,
        torch.optim.AdamW,
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
        lambda p, lr: torch.optim.SGD(p, lr=lr),
    ],
    ids=["AdamW", "torch-AdamW", "momentum", "SGD"],
)
def test_a_resumed_run_is_the_run_to_the_last_bit(tmp_path, stop, make):
    (whole, long, a), (parts, pieces, b) = resumed(tmp_path, stop, make=make)
    assert torch.equal(whole, parts)
    assert long == pieces
    assert len(long) == 9
    assert a["param_groups"] == b["param_groups"]
    for x, y in zip(a["state"].values(), b["state"].values(), strict=True):
        for name in x:
            if isinstance(x[name], torch.Tensor):
                assert torch.equal(x[name], y[name])
            else:
                assert x[name] == y[name]


def test_a_loader_that_shuffles_by_a_generator_of_its_own(tmp_path):
    def loader():
        make = torch.Generator().manual_seed(3)
        return torch.utils.data.DataLoader(
            batches(7), batch_size=None, shuffle=True, generator=make
        )

    ends = []
    for stops in ((20,), (9, 20)):  # in the second pass over seven
        history = None
        for until in stops:
            net = model(dropout=0.2)
            optimizer = AdamW(net.parameters())
            place = tmp_path / str(len(stops))
            if history is None:
                set_seed(1)
            else:
                history = load_checkpoint(place, net, optimizer)
            history = train(
                net, loader(), token_loss, optimizer, steps=until,
                history=history, checkpoint=place, **QUIET,
            )  # fmt: skip
        ends.append(weights(net))
    assert torch.equal(*ends)


def test_checkpoints_are_written_when_asked(tmp_path):
    net, place, seen = model(), tmp_path / "deep" / "run", []

    def on_step(history):
        there = (place / "manifest.json").exists()
        seen.append(
            json.loads((place / "manifest.json").read_text())["step"]
            if there
            else None
        )

    train(
        net, batches(), token_loss, AdamW(net.parameters()), steps=7,
        checkpoint=place, checkpoint_every=3, on_step=on_step, **QUIET,
    )  # fmt: skip
    assert seen == [None, None, None, 3, 3, 3, 6]
    assert json.loads((place / "manifest.json").read_text())["step"] == 7
    assert [p.name for p in place.parent.iterdir()] == ["run"]


def test_random_state_covers_all_generators():
    random.gauss(0, 1)  # leaves half of a pair behind
    np.random.randn()
    state = json.loads(json.dumps(random_state()))

    def draw():
        return (
            [random.gauss(0, 1) for _ in range(3)],
            np.random.randn(3).tolist(),
            torch.randn(3).tolist(),
        )

    first = draw()
    set_random_state(state)
    assert draw() == first


def saved(tmp_path, net=None, steps=3):
    net = net or model()
    optimizer = AdamW(decay_groups(net, 0.1))
    history = train(net, batches(), token_loss, optimizer, steps=steps, **QUIET)
    place = tmp_path / "run"
    save_checkpoint(place, net, optimizer, history)
    return place, net, optimizer, history


def test_tied_weights_are_stored_once_and_stay_tied(tmp_path):
    def tied(seed):
        net = model(seed)
        net[2].weight = net[0].weight
        return net

    place, net, _, _ = saved(tmp_path, tied(0))
    files, facts = read_sealed(place)
    assert set(files["model.safetensors"]) == {"0.weight", "2.bias"}
    assert facts["also"] == {"2.weight": "0.weight"}
    other = tied(1)
    load_checkpoint(place, other, AdamW(decay_groups(other, 0.1)))
    assert torch.equal(weights(other), weights(net))
    assert other[2].weight is other[0].weight
    with pytest.raises(CheckpointError, match="2.weight is 0.weight in the"):
        load_checkpoint(place, model())


def test_no_pickle_and_a_manifest_that_can_be_read(tmp_path):
    place, _, _, _ = saved(tmp_path)
    names = {p.name for p in place.iterdir()}
    assert names == {
        "model.safetensors",
        "optimizer.safetensors",
        "manifest.json",
    }
    manifest = json.loads((place / "manifest.json").read_text())
    assert manifest["step"] == 3
    assert manifest["versions"]["torch"] == torch.__version__
    facts = manifest["files"]["model.safetensors"]
    assert facts["tensors"]["2.weight"] == f"float32 ({V}, {D})"
    assert facts["bytes"] == (place / "model.safetensors").stat().st_size
    assert manifest["optimizer"]["kind"] == "litformer.optim.AdamW"
    assert manifest["optimizer"]["params"][0] == ["2.weight"]


def test_weights_alone(tmp_path):
    place, net, _, history = saved(tmp_path)
    other = model(1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    assert load_checkpoint(place, other) == history
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(net), weights(other))


def everything(net, optimizer):
    state = optimizer.state_dict()["state"]
    return copy.deepcopy((net.state_dict(), state, random_state()))


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def refused(place, net, optimizer, message):
    """Refused with the reason, and nothing has changed."""
    before = everything(net, optimizer)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(place, net, optimizer)
    assert same(before, everything(net, optimizer))


FILES = ["model.safetensors", "optimizer.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused(tmp_path, name):
    place, net, optimizer, _ = saved(tmp_path)
    file = place / name
    good = file.read_bytes()
    for at in (9, len(good) // 2, len(good) - 1):
        bad = bytearray(good)
        bad[at] ^= 1
        file.write_bytes(bad)
        refused(place, net, optimizer, f"{name} is corrupt")
    file.write_bytes(good[:-7])
    size = len(good)
    refused(
        place, net, optimizer, f"{name} has {size - 7} bytes, .* says {size}"
    )
    file.write_bytes(b"")
    refused(place, net, optimizer, f"{name} has 0 bytes")
    file.unlink()
    refused(place, net, optimizer, f"{name} is missing")
    file.write_bytes(good)
    load_checkpoint(place, net, optimizer)


def test_a_damaged_manifest_is_refused(tmp_path):
    place, net, optimizer, _ = saved(tmp_path)
    file = place / "manifest.json"
    good = file.read_text()
    file.write_text(good[: len(good) // 2])
    refused(place, net, optimizer, "manifest.json is no manifest .*cut off")
    file.write_text("[1, 2]")
    refused(place, net, optimizer, "manifest.json is no manifest")
    file.write_text("{}")
    refused(place, net, optimizer, "manifest.json is no manifest")
    file.write_text(good.replace('"step": 3', '"step": 4'))
    refused(place, net, optimizer, "manifest.json was changed")
    file.unlink()
    refused(place, net, optimizer, "manifest.json does not exist")
    shutil.rmtree(place)
    refused(place, net, optimizer, "run does not exist")


def test_another_format_is_refused(tmp_path):
    place, net, optimizer, _ = saved(tmp_path)
    files, facts = read_sealed(place)
    write_sealed(place, files, facts | {"format": 2})
    refused(place, net, optimizer, "has format 2, not 1")


def test_another_model_is_refused(tmp_path):
    place, _, _, _ = saved(tmp_path)

    def case(net, message):
        refused(place, net, AdamW(decay_groups(net, 0.1)), message)

    wide = nn.Sequential(nn.Embedding(V, 8), nn.Dropout(), nn.Linear(8, V))
    case(
        wide,
        r"0.weight is float32 \(11, 6\) in the checkpoint, "
        r"float32 \(11, 8\) in the model \(and 1 more\)",
    )
    case(nn.Sequential(*model(), nn.Linear(V, 2)), "3.weight is not in the ch")
    no_bias = model()
    no_bias[2].register_parameter("bias", None)
    case(no_bias, "2.bias is not in the model")
    case(model().double(), r"0.weight is float32 \(11, 6\) in the ch")


def test_another_optimiser_is_refused(tmp_path):
    place, net, _, _ = saved(tmp_path)
    refused(
        place, net, torch.optim.AdamW(decay_groups(net, 0.1)), "kind was litf"
    )
    refused(place, net, AdamW(net.parameters()), "params was .* Build it in")


def test_a_folder_with_something_else_is_not_replaced(tmp_path):
    place, net, optimizer, history = saved(tmp_path)
    notes = place / "notes.txt"
    notes.write_text("seed 3 was the good one")
    with pytest.raises(CheckpointError, match=r"holds notes.txt, which is no"):
        save_checkpoint(place, net, optimizer, history)
    assert notes.read_text() == "seed 3 was the good one"
    with pytest.raises(CheckpointError, match="is a file. A checkpoint is a"):
        save_checkpoint(notes, net, optimizer, history)


class Killed(BaseException):
    """What a kill looks like from inside: nobody catches it."""


def kill_points(monkeypatch):
    """Let the n-th call that touches the disk be the last one of a process."""
    calls = {"n": 0, "at": None}

    def dying(function):
        def wrapper(*args, **kwargs):
            calls["n"] += 1
            if calls["n"] == calls["at"]:
                raise Killed
            return function(*args, **kwargs)

        return wrapper

    for owner, name in (
        (Path, "rename"),
        (Path, "mkdir"),
        (shutil, "rmtree"),
        (sealed.os, "fsync"),
        (sealed, "save_file"),
        (sealed.hashlib, "file_digest"),
    ):
        monkeypatch.setattr(owner, name, dying(getattr(owner, name)))
    return calls


def test_a_kill_at_any_moment_of_a_save_loses_nothing(tmp_path, monkeypatch):
    place, net, optimizer, history = saved(tmp_path, steps=3)
    old = weights(net).clone()
    train(
        net, batches(), token_loss, optimizer, steps=5, history=history, **QUIET
    )
    new = weights(net).clone()
    backup = tmp_path / "backup"
    shutil.copytree(place, backup)
    with monkeypatch.context() as patch:
        calls = kill_points(patch)
        save_checkpoint(place, net, optimizer, history)
        moments = calls["n"]
    assert moments >= 10
    found = []
    for moment in range(1, moments + 1):
        for leftover in tmp_path.glob("run*"):
            shutil.rmtree(leftover)
        shutil.copytree(backup, place)
        with monkeypatch.context() as patch:
            calls = kill_points(patch)
            calls["at"] = moment
            with pytest.raises(Killed):
                save_checkpoint(place, net, optimizer, history)
        other = model(1)
        again = AdamW(decay_groups(other, 0.1))
        steps = len(load_checkpoint(place, other, again))
        found.append(steps)
        want = {3: old, 5: new}[steps]
        assert torch.equal(weights(other), want), moment
        # and the next save cleans up after it
        save_checkpoint(place, net, optimizer, history)
        assert {p.name for p in tmp_path.iterdir()} == {"run", "backup"}
        assert len(load_checkpoint(place, other)) == 5
    assert found == sorted(found)
    assert set(found) == {3, 5}


def test_a_disk_that_is_full_leaves_the_old_one(tmp_path, monkeypatch):
    place, net, optimizer, history = saved(tmp_path)

    def full(*args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sealed, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(place, net, optimizer, history)
    assert load_checkpoint(place, net, optimizer) == history


def test_a_real_kill(tmp_path):
    """A process is killed in the midst of many saves; the run goes on."""
    import os
    import signal
    import subprocess
    import sys
    import time

    place = tmp_path / "run"
    code = f"""
import sys, torch
sys.path[:0] = {sys.path!r}
from torch import nn
from litformer.optim import AdamW
from litformer.training import train
net = nn.Linear(3, 2)
print("begun", flush=True)
train(net, [torch.ones(4, 3)], lambda net, x: (net(x).square().sum(), 4),
      AdamW(net.parameters()), steps=10**6, progress=False,
      checkpoint={str(place)!r}, checkpoint_every=1)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "begun\n"
        deadline = time.monotonic() + 60
        while not place.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.25)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    net = nn.Linear(3, 2)
    assert len(load_checkpoint(place, net, AdamW(net.parameters()))) >= 1


def test_history_is_lists_of_one_length():
    history = History()
    history.add(2.5, 0.1, 1.0, 7, 1)
    assert len(history) == 1
    assert history == History([2.5], [0.1], [1.0], [7], [1])
    with pytest.raises(ValueError, match="shorter"):
        history.add(2.5, 0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_train_and_resume_on_a_gpu(tmp_path):
    ends = []
    for stops in ((8,), (3, 8)):
        history, place = None, tmp_path / str(len(stops))
        for until in stops:
            set_seed(1)
            net = model(dropout=0.3).cuda()
            optimizer = AdamW(net.parameters())
            if history is not None:
                history = load_checkpoint(place, net, optimizer)
            history = train(
                net,
                [(x.cuda(), y.cuda()) for x, y in batches(5)],
                token_loss,
                optimizer,
                steps=until,
                history=history,
                checkpoint=place,
                **QUIET,
            )
        ends.append(weights(net))
    assert torch.equal(*ends)
