"""A pretended GPU, for machines without one: it computes, and is as strict.

    with pretended_gpu():
        model = GPT(config).to("cuda")
        model(tokens)  # RuntimeError: the tokens are on the CPU
        model(tokens.to("cuda"))

A tensor is on the GPU if its storage is marked so; its numbers are where they
always were. Every function of torch passes through `_Strict`, which looks
where the operands are, computes, and marks what comes out. What CUDA refuses
is refused in torch's own words:

- operands on two devices. Legal are a CPU tensor without axes, CPU indices
  into a GPU tensor, and copies from one to the other;
- a generator of the other device; `torch.Generator("cuda")` works within;
- `.numpy()`.

Both devices share the global state of chance, so that dropout and `randn` give
what they give on the CPU, and every result must equal the CPU's to the bit.
Not pretended: speed, memory, rounding, and what a kernel of CUDA refuses that
the CPU's takes. `torch.autocast("cuda")` is the CPU's.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
_Real, _real_autocast = torch.Generator, torch.autocast

# These may read one device and write the other.
_ACROSS = {
    *(Tensor.copy_, Tensor.data.__set__),
    *(torch._has_compatible_shallow_copy_type, torch.utils.swap_tensors),
}
_MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda, Tensor.type_as}
_BY_INDEX = {
    *(Tensor.__getitem__, Tensor.__setitem__),
    *(Tensor.index_put, Tensor.index_put_),
}
# Here even a tensor without axes must be on the device of the others.
_STRICTER = {torch.cat, torch.stack, torch.hstack, torch.vstack}
# Lengths of packed sentences stay on the CPU, whatever they belong to.
_PACKED = {
    *(torch._VF._pack_padded_sequence, torch._VF._pad_packed_sequence),
    *(torch._VF.lstm, torch._VF.gru),
}
_TO_NUMPY = {Tensor.numpy, Tensor.__array__}


def on_gpu(x: Tensor) -> bool:
    """Where a tensor is. Views and parameters share their storage's mark."""
    with torch._C.DisableTorchFunction():
        if x.layout is not torch.strided:
            return False
        return getattr(x.untyped_storage(), "on_gpu", False)


def _tensors(tree: object) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _is_cuda(device: object) -> bool:
    return device is not None and torch.device(device).type == "cuda"


class PretendedGenerator(_Real):
    """Says that it belongs to the GPU."""

    device = CUDA


class _Generator(_Real):
    """In place of `torch.Generator`: a real one, or a pretended one."""

    def __new__(cls, device="cpu"):
        return PretendedGenerator() if _is_cuda(device) else _Real(device)


def _autocast(device_type: str, *args, **kwargs) -> torch.autocast:
    """In place of `torch.autocast`."""
    kind = "cpu" if device_type == "cuda" else device_type
    return _real_autocast(kind, *args, **kwargs)


def _refuse_a_mixture(func, args, kwargs) -> None:
    """Operands on two devices, as CUDA says it."""
    operands = _tensors((args, kwargs))
    name = getattr(func, "__name__", "")
    if func in _BY_INDEX and on_gpu(args[0]):  # indices from anywhere
        operands = [args[0], *_tensors(args[2:])]
    if func is Tensor.__setitem__ and not _tensors(args[1]):
        return  # a slice is written by a copy
    if func in _PACKED:
        lengths = [x for x in operands if x.dtype == torch.int64]
        if any(map(on_gpu, lengths)):
            raise RuntimeError(
                "'lengths' argument should be a 1D CPU int64 tensor, but got "
                "1D cuda:0 Long tensor"
            )
        operands = [x for x in operands if x.dtype != torch.int64]
        if not all(x.is_contiguous() for x in operands[1:]):
            raise RuntimeError("rnn: hx is not contiguous")  # says cuDNN
    if len({on_gpu(x) for x in operands}) < 2:
        return
    written = [id(x) for x in _tensors(kwargs.get("out"))]
    if name.endswith("_") and not name.endswith("__"):
        written += [id(x) for x in _tensors(args[0])]
    for x in operands:
        number = not x.dim() and func not in _STRICTER and id(x) not in written
        if not on_gpu(x) and not number:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at "
                f"least two devices, cuda:0 and cpu! ({name})"
            )


def _refuse_a_generator(maker: torch.Generator, there: bool) -> None:
    if isinstance(maker, PretendedGenerator) != there:
        raise RuntimeError(
            f"Expected a '{'cuda' if there else 'cpu'}' device type for "
            f"generator but found '{maker.device.type}'"
        )


def _move(func, x: Tensor, *args, **kwargs) -> Tensor:
    """`.to` and its relatives: a copy, if it goes to the other device."""
    there = func is Tensor.cuda or (func is not Tensor.cpu and on_gpu(x))
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            there = on_gpu(value)
        elif isinstance(value, str | torch.device):
            there = _is_cuda(value)
    args = [CPU if isinstance(v, str | torch.device) else v for v in args]
    if "device" in kwargs:
        kwargs["device"] = CPU
    y = x.to(CPU) if func is Tensor.cuda else func(x, *args, **kwargs)
    if on_gpu(y) != there and y.data_ptr() == x.data_ptr():
        y = y.clone()
    if there:
        y.untyped_storage().on_gpu = True
    return y


class _Strict(TorchFunctionMode):
    """Every function of torch, as a machine with a GPU would take it."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in _MOVES:
            return _move(func, *args, **kwargs)
        ours = any(on_gpu(x) for x in _tensors((args, kwargs)))
        if ours and func == Tensor.device.__get__:
            return CUDA
        if ours and func == Tensor.is_cuda.__get__:
            return True
        if ours and func in _TO_NUMPY:
            raise TypeError(
                "can't convert cuda:0 device type tensor to numpy. Use "
                "Tensor.cpu() to copy the tensor to host memory first."
            )
        if ours and func is torch._C._nn._parse_to:  # module.to(tensor)
            return CUDA, *func(*args, **kwargs)[1:]
        if func in _ACROSS:
            return func(*args, **kwargs)
        if ours:
            _refuse_a_mixture(func, args, kwargs)
        there = ours
        if func in (torch.tensor, torch.as_tensor):  # a list: read to the CPU
            there = isinstance(args[0], Tensor) and on_gpu(args[0])
        if kwargs.get("device") is not None:
            there = _is_cuda(kwargs["device"])
            kwargs["device"] = CPU if there else kwargs["device"]
        if kwargs.get("generator") is not None:
            _refuse_a_generator(kwargs["generator"], there)
        result = func(*args, **kwargs)
        if there:
            for x in _tensors(result):
                if func not in _PACKED or x.dtype != torch.int64:
                    x.untyped_storage().on_gpu = True
        return result


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Within, `torch.cuda.is_available()`."""
    cuda = dict(
        is_available=lambda: True,
        is_initialized=lambda: True,
        is_bf16_supported=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        get_device_capability=lambda device=None: (9, 0),
        synchronize=lambda: None,
        manual_seed_all=lambda seed: None,
        get_rng_state_all=lambda: [torch.get_rng_state()],
        set_rng_state=lambda state, _=0: torch.set_rng_state(state),
    )
    patches = [mock.patch.object(torch.cuda, *pair) for pair in cuda.items()]
    patches += [
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(torch, "autocast", _autocast),
        mock.patch("torch.backends.cudnn.is_acceptable", return_value=False),
    ]
    with ExitStack() as stack:
        for patch in patches:
            stack.enter_context(patch)
        stack.enter_context(_Strict())
        yield
