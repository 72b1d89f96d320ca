"""The pretended GPU refuses what CUDA refuses, and computes all else."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from litformer.attention import MultiHeadAttention
from litformer.optim import AdamW
from pretend_gpu import on_gpu, pretended_gpu

MIXED = "Expected all tensors to be on the same device"


@pytest.fixture(autouse=True)
def _gpu():
    with pretended_gpu():
        yield


def there(*shape):
    return torch.ones(shape, device="cuda")


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: there(3) + torch.ones(3),
        lambda: torch.ones(3) * there(3),
        lambda: torch.ones(3) * there(),
        lambda: torch.ones(3).add_(there(3)),
        lambda: torch.zeros(()).add_(there()),
        lambda: torch.add(there(3), there(3), out=torch.ones(())),
        lambda: F.linear(there(2, 3), torch.ones(4, 3)),
        lambda: F.embedding(torch.tensor([1]), there(3, 2)),
        lambda: there(5, 7).masked_fill(torch.ones(5, 7).bool(), 0.0),
        lambda: torch.ones(3)[torch.tensor([0], device="cuda")],
        lambda: there(3).index_put_((torch.tensor([0]),), torch.ones(1)),
        lambda: torch.cat([there(3), torch.ones(3)]),
        lambda: torch.stack([there(3).sum(), torch.tensor(1.0)]),
        lambda: torch._foreach_add_([there(3)], [torch.ones(3)]),
        lambda: nn.Linear(3, 4)(there(2, 3)),
        lambda: nn.Linear(3, 4).to("cuda")(torch.ones(2, 3)),
        lambda: nn.GRU(3, 4)(there(2, 5, 3)),
        lambda: there(3).equal(torch.ones(3)),
    ],
)
def test_two_devices_are_refused(wrong):
    with pytest.raises(RuntimeError, match=MIXED):
        wrong()


def test_a_mask_left_behind_is_refused():
    """By our own check, which says what to do."""
    layer = MultiHeadAttention(12, 3).to("cuda")
    x, mask = there(2, 5, 12), torch.ones(5, 5, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"mask is on cpu, q on cuda:0. Move"):
        layer(x, mask=mask)
    assert layer(x, mask=mask.to("cuda")).is_cuda


@pytest.mark.parametrize(
    "draw",
    [
        lambda make: torch.rand(3, device="cuda", generator=make),
        lambda make: torch.multinomial(there(3), 1, generator=make),
        lambda make: there(3).uniform_(generator=make),
    ],
)
def test_a_generator_of_the_cpu_is_refused(draw):
    found = "Expected a 'cuda' device type for generator but found 'cpu'"
    with pytest.raises(RuntimeError, match=found):
        draw(torch.Generator())
    assert draw(torch.Generator("cuda").manual_seed(0)).is_cuda


def test_a_generator_of_the_gpu_is_refused_on_the_cpu():
    make = torch.Generator(device="cuda")
    assert make.device.type == "cuda"
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type"):
        torch.rand(3, generator=make)


@pytest.mark.parametrize("read", [lambda x: x.numpy(), np.asarray])
def test_numpy_is_refused(read):
    with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\) to copy"):
        read(there(3))
    read(there(3).cpu())


def test_lengths_of_sentences_stay_on_the_cpu():
    pack = nn.utils.rnn.pack_padded_sequence
    x, lengths = there(2, 3, 5), torch.tensor([3, 2])
    with pytest.raises(RuntimeError, match="should be a 1D CPU int64 tensor"):
        pack(x, lengths.to("cuda"), batch_first=True)
    packed = pack(x, lengths, batch_first=True)
    states, _ = nn.GRU(5, 7).to("cuda")(packed)
    back, again = nn.utils.rnn.pad_packed_sequence(states, batch_first=True)
    assert back.is_cuda
    assert not again.is_cuda
    assert again.tolist() == [3, 2]


def test_a_state_that_is_not_contiguous_is_refused():
    """The CPU would take it."""
    gru, state = nn.GRU(5, 7).to("cuda"), there(1, 7, 2).mT
    with pytest.raises(RuntimeError, match="rnn: hx is not contiguous"):
        gru(there(3, 2, 5), state)
    assert gru(there(3, 2, 5), state.contiguous())[0].is_cuda


def test_what_is_legal():
    x, index = there(3, 5), torch.tensor([2, 0])
    assert x[index].is_cuda
    assert (x * torch.tensor(2.0)).is_cuda
    assert x.new_zeros(2).is_cuda
    assert torch.zeros_like(x).device == torch.device("cuda", 0)
    assert not torch.zeros_like(x, device="cpu").is_cuda
    x[0] = torch.zeros(5)  # a slice: a copy
    x[index] = torch.tensor(7.0)
    assert x.copy_(torch.ones(3, 5)).is_cuda
    assert x.tolist() == [[1.0] * 5] * 3
    assert x.sum().item() == 15
    assert not torch.tensor([x[0, 0], x[0, 1]]).is_cuda
    assert torch.as_tensor(x[0]).is_cuda
    assert not torch.ones(3).copy_(x[:, 0]).is_cuda
    with torch.autocast("cuda", torch.bfloat16):
        assert (x @ x.mT).dtype == torch.bfloat16


def test_moving_copies_and_staying_does_not():
    here = torch.zeros(3)
    moved = here.to("cuda")
    moved += 1
    assert here.tolist() == [0, 0, 0]
    assert moved.to("cuda") is moved
    assert moved.cuda() is moved
    assert here.to("cpu") is here
    back = moved.cpu()
    back += 1
    assert moved.tolist() == [1, 1, 1]
    assert moved.view(1, 3).T.device.type == "cuda"
    assert here.to(moved).is_cuda
    assert here.double().to(moved).dtype == torch.float32
    assert here.type_as(moved).is_cuda
    assert moved.to(torch.float64).is_cuda
    assert copy.deepcopy(moved).is_cuda
    assert not on_gpu(here)
    assert not on_gpu(torch.zeros(3).to_sparse())


def test_a_module_moves_and_keeps_its_identity():
    model = nn.Sequential(
        nn.Embedding(7, 5), nn.Linear(5, 7), nn.BatchNorm1d(7)
    )
    model[1].weight = model[0].weight  # tied
    tied, optimizer = model[0].weight, AdamW(model.parameters())
    model.to("cuda")
    assert model[0].weight is tied is model[1].weight
    assert all(p.is_cuda for p in [*model.parameters(), *model.buffers()])
    loss = model(torch.arange(7, device="cuda")).square().sum()
    loss.backward()
    assert tied.grad.is_cuda
    before = tied.detach().clone()
    optimizer.step()
    assert not before.equal(tied.detach())
    assert all(s["mean"].is_cuda for s in optimizer.state.values())
    other = nn.Linear(3, 3).to(tied)
    assert other.weight.is_cuda
    assert not any(p.is_cuda for p in model.cpu().parameters())
    with pytest.raises(RuntimeError, match=MIXED):
        optimizer.step()  # its means stayed behind
