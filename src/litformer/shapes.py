"""Say which shape was expected, in letters and numbers, when one is wrong.

Every public function of the book checks its tensors here, so that a mistake
is reported at the door instead of ten frames down in a matrix product. The
letters are those of the notation page:

    B batch        T query length   S key length    D d_model
    H heads        G key heads      Dh head_dim     F d_ff
    V vocabulary   L layers         E experts       K top_k
    N tokens       P patches
"""

from torch import Tensor

__all__ = ["check_shape"]


def check_shape(
    who: str,
    name: str,
    tensor: Tensor,
    spec: str,
    /,
    *,
    hint: str = "",
    **sizes: int,
) -> dict[str, int]:
    """Check a tensor's shape against letters; return what each letter is.

    `spec` names the axes ("B H T Dh"). A letter in `sizes` must have that
    size, a letter that comes twice must have one size, and any other letter
    takes what it meets. A leading "..." stands for any number of axes. What
    is returned can be handed to the next check, so that letters agree across
    tensors (a letter that `spec` does not name is passed through):

        sizes = check_shape("attention", "q", q, "B H T Dh")
        sizes = check_shape("attention", "k", k, "B H S Dh", **sizes)

    It runs at each call of each layer, hence the plain loop: about one
    microsecond.

    Raises:
        TypeError: not a tensor.
        ValueError: wrong rank or size; the message ends with `hint`.
    """
    axes = spec.split()
    bound = sizes.copy()
    if isinstance(tensor, Tensor):
        shape = tensor.shape
        if axes[0] == "...":
            axes = axes[1:]
            shape = shape[max(0, len(shape) - len(axes)) :]
        if len(shape) == len(axes):
            for axis, size in zip(axes, shape):  # noqa: B905 (same length)
                if bound.setdefault(axis, size) != size:
                    break
            else:
                return bound
    raise _error(who, name, tensor, spec, hint, sizes)


def _error(who, name, tensor, spec, hint, sizes) -> Exception:
    """The exception for a tensor that failed, in the book's form."""
    wanted = ", ".join(
        f"{axis}={sizes[axis]}" if axis in sizes else axis
        for axis in spec.split()
    )
    if "," not in wanted:
        wanted += ","  # (D,) as Python writes it
    hint = f" {hint}" if hint else ""
    if not isinstance(tensor, Tensor):
        return TypeError(
            f"{who}: {name} must be a torch.Tensor of shape ({wanted}), got "
            f"{type(tensor).__name__}.{hint or ' Wrap it in torch.tensor().'}"
        )
    got = tuple(tensor.shape)
    return ValueError(
        f"{who}: {name} must have shape ({wanted}), got {got}.{hint}"
    )
