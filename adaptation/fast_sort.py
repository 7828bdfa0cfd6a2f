"""Sorts that are several times as fast as torch's on a CPU. They change no number, and nothing else needs them read."""

import torch
from torch import Tensor


def ascending(x: Tensor) -> Tensor:
    """x.argsort(dim=-1, stable=True): x (..., n) -> the place of the k-th smallest for k = 0 .. n - 1.

    On a CPU torch's sort follows indices about; NumPy sorts plain integers several times as fast. So a float32 becomes
    the upper half of an integer that grows with it, and its place, which also breaks ties, the lower half.
    """
    x = x.detach()
    if not _numpy_is_faster(x):
        return x.argsort(dim=-1, stable=True)
    bits = (x.contiguous() + 0.0).view(torch.int32)  # -0.0 becomes 0.0, its equal
    bits ^= (bits >> 31) & 0x7FFFFFFF  # the bits of negative numbers grow as the number falls: turn them round
    keys = bits.long().bitwise_left_shift_(32).add_(torch.arange(x.shape[-1]))
    keys.numpy().sort(axis=-1)
    return keys.bitwise_and_(0xFFFFFFFF)


def sorted_values(x: Tensor) -> Tensor:
    """x.sort(dim=-1, stable=True).values: x (..., n) -> the k-th smallest for k = 0 .. n - 1, without a gradient.

    On a CPU NumPy sorts values twice as fast as places.
    """
    x = x.detach()
    if not _numpy_is_faster(x):
        return x.sort(dim=-1, stable=True).values
    if not x.all():  # zeros of both signs are equal, and stay in their order
        return x.gather(-1, ascending(x))
    x = x.clone(memory_format=torch.contiguous_format)
    x.numpy().sort(axis=-1)
    return x


def _numpy_is_faster(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32
