"""A device that no machine has: tensors on it are computed on the CPU, and keep to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

#: What tensors say that they are on.
DEVICE = torch.device('cuda', 0)


@contextmanager
def on_another_device(module: nn.Module) -> Iterator[None]:
    """Compute as if a module were on a GPU.

    What is done with one of its tensors and one on the CPU fails, as it does there, and so does
    reading one without bringing it back first.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.is_elsewhere = True
    try:
        with _Devices():
            yield
    finally:
        for tensor in (*module.parameters(), *module.buffers()):
            del tensor.is_elsewhere


def is_elsewhere(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is on the device that no machine has."""
    return getattr(tensor, 'is_elsewhere', False)


class _Devices(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        places = {is_elsewhere(tensor) for tensor in tensors if tensor.dim()}
        if func == torch.Tensor.device.__get__:
            return DEVICE if is_elsewhere(args[0]) else torch.device('cpu')
        if func is torch.Tensor.numpy and True in places:
            raise TypeError('a tensor of another device has no array')
        if len(places) == 2 and func is not torch.Tensor.to:
            raise RuntimeError(f'{func.__name__} takes no tensors of two devices')
        there = True in places
        if func is torch.Tensor.cpu:
            return _marked(args[0].clone(), False)
        if DEVICE in (*args, kwargs.get('device')):
            args = tuple('cpu' if arg == DEVICE else arg for arg in args)
            kwargs['device'] = 'cpu'
            there = True
            if func is torch.Tensor.to:
                return _marked(args[0].clone(), True)
        return _marked(func(*args, **kwargs), there)


def _tensors(values) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _tensors(list(values.values()))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)


def _marked(result, there: bool):
    for tensor in _tensors(result):
        tensor.is_elsewhere = there
    return result
