"""A device that is not the CPU, on a machine that has none: refuses what a GPU refuses, and notes what delays one.

Its tensors say that they lie on `DEVICE`; their numbers are in the CPU's memory, where every operation is really
computed. `DEVICE` is one that torch can name everywhere and that nothing else here uses. Inside `pretended()`

    an operation on tensors of both devices is refused, but for what a GPU allows: a number (a tensor without
        dimensions) of the CPU where tensors are combined entry by entry, an index from the CPU, a copy
    NumPy is refused the device's tensors, by torch itself, as of any device but the CPU
    copies between the devices are noted, and all that the CPU waits for: a number, or how many there are

Backward passes are seen too, and what checkpointing computes again in them. What names CUDA, such as
`torch.cuda.mem_get_info`, is not. Outside `pretended()` nothing can be done with the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch._lazy.ts_backend
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = "lazy"
aten = torch.ops.aten
COPIES = (aten._to_copy.default, aten.copy_.default)
INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}  # a number, or a size, made of the data

torch._lazy.ts_backend.init()  # torch.tensor([...], device=DEVICE) begins with a tensor of that backend's own
torch._register_device_module(DEVICE, ModuleType("pretended"))  # where checkpointing looks for a state of randomness


class MixedDevices(RuntimeError):
    """What a GPU would refuse."""


class Pretended(Tensor):
    """Says that it lies on `DEVICE`, and holds a tensor of the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> Pretended:
        form = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        return Tensor._make_wrapper_subclass(cls, held.shape, **form, device=DEVICE)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def tolist(self) -> Any:
        """By way of the CPU, as from any device; torch's own refuses subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise MixedDevices(f"{function} of a tensor on {DEVICE}, outside of `pretended()`")


class pretended(TorchDispatchMode):
    """The device, while this context lasts; `notes` has a line for each copy and for whatever the CPU waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs, tensors = dict(kwargs or {}), []
        _each((args, [*kwargs.values()]), tensors.append)
        if function is aten.lift_fresh.default and tensors[0].device.type == DEVICE:
            self._note("copied to the device", "torch.tensor", tensors)
            return Pretended(tensors[0].cpu())
        there = [isinstance(x, Pretended) for x in tensors]
        _refuse_mixed(function, tensors, there)
        if kwargs.get("device") is not None:
            onto = torch.device(kwargs["device"]).type == DEVICE
            kwargs["device"] = torch.device("cpu")
        else:
            onto = there[0] if function is aten.copy_.default else any(there)
        self._note_delays(function, tensors, there, onto)
        known = {id(x.held): x for x in tensors if isinstance(x, Pretended)}  # an operation in place gives one back
        values = _each([*kwargs.values()], _held)
        result = function(*_each(args, _held), **dict(zip(kwargs, values, strict=True)))
        return _each(result, lambda x: known[id(x)] if id(x) in known else Pretended(x)) if onto else result

    def _note_delays(self, function: Any, tensors: list[Tensor], there: list[bool], onto: bool) -> None:
        """Note what costs a GPU time beside computing. onto: whether the result lies on the device."""
        if function in COPIES:
            if onto != there[-1]:
                self._note(f"copied to the {'device' if onto else 'CPU'}", function, tensors[-1:])
        elif function in INDEXED and there[0]:
            places = [x for x in tensors[1:] if x.dtype in (torch.bool, torch.uint8, torch.int32, torch.int64)]
            if not all(isinstance(x, Pretended) for x in places):
                self._note("copied to the device", function, places)
            if any(x.dtype in (torch.bool, torch.uint8) for x in places):
                self._note("waited", function, places)
        elif any(there) and WAITING & {*function.tags}:
            self._note("waited", function, tensors)

    def _note(self, what: str, function: Any, tensors: list[Tensor]) -> None:
        self.notes.append(f"{what}: {function} {', '.join(str(tuple(x.shape)) for x in tensors)}")


def _refuse_mixed(function: Any, tensors: list[Tensor], there: list[bool]) -> None:
    """Raise MixedDevices for tensors of both devices where a GPU refuses them."""
    if all(there) or not any(there) or function in COPIES:
        return
    strangers = [x for x, here in zip(tensors, there, strict=True) if not here]
    if torch.Tag.pointwise in function.tags and all(x.ndim == 0 for x in strangers):
        return
    if function in INDEXED and there[0] and (function is aten.index.Tensor or there[-1] or tensors[-1].ndim == 0):
        return
    where = (f"{tuple(x.shape)} on {DEVICE if here else 'the CPU'}" for x, here in zip(tensors, there, strict=True))
    raise MixedDevices(f"{function} of tensors on two devices: {', '.join(where)}")


def _held(x: Tensor) -> Tensor:
    return x.held if isinstance(x, Pretended) else x


def _each(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same lists and tuples, with every tensor in them changed."""
    if isinstance(tree, tuple | list):
        return type(tree)([_each(x, change) for x in tree])
    return change(tree) if isinstance(tree, Tensor) else tree
