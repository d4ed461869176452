"""What a module holds: kept before it is run, compared, and put back."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import torch

ATOMS = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.MethodType,
         torch.dtype, torch.device, torch.Size)  # fmt: skip
Restore = Callable[[], None]
Changed = Callable[[], bool]


class Kept:
    """The attributes of a module and its parts, and what lists, dicts, arrays, tensors and plain objects among them hold.

    Copies every tensor, so it takes the module's memory once more while it lives. What closures and globals hold is beyond it.
    """

    def __init__(self, module: torch.nn.Module):
        self._spaces = []  # (the dict that holds attributes, how callers write what is before their names, what it held)
        for path, part in module.named_modules():
            where = "self." + (f"{path}." if path else "")
            self._spaces += [(space, where, dict(space)) for space in (part.__dict__, part._parameters, part._buffers)]
        self._seen: dict[int, object] = {id(held): held for held in (*module.modules(), *(space for space, _, _ in self._spaces))}
        self._inside: dict[str, list[tuple[Changed, Restore]]] = {}
        for _, where, before in self._spaces:
            for name, value in before.items():
                self._inside.setdefault(where + name, []).extend(self._held(value))

    def changed(self) -> list[str]:
        """Names of the attributes that are no longer what they were, new ones among them: self.hidden, self.encoder.state."""
        names = [name for name, checks in self._inside.items() if any(changed() for changed, _ in checks)]
        for space, where, before in self._spaces:
            names += [where + n for n in {**before, **space} if n not in before or n not in space or not _same(before[n], space[n])]
        return list(dict.fromkeys(names))

    def numbers(self) -> list[str]:
        """Names of numbers that are no longer what they were."""
        return [
            where + n
            for space, where, before in self._spaces
            for n, value in before.items()
            if isinstance(value, (int, float)) and n in space and not _same(value, space[n])
        ]

    def restore(self, but: str | None = None) -> None:
        """Everything as it was; but: the name of an attribute to leave as it is."""
        for space, where, before in self._spaces:
            left = {n: v for n, v in space.items() if where + n == but}
            space.clear()
            space.update(before | left)
        for name, checks in self._inside.items():
            if name != but:
                for changed, restore in checks:
                    if changed():
                        restore()

    def _held(self, value) -> Iterator[tuple[Changed, Restore]]:
        """Checks of what a value holds, each object once."""
        if isinstance(value, ATOMS) or id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, torch.Tensor):
            if value.layout is torch.strided and not value.is_meta and not value.is_quantized:
                yield _tensor(value)
        elif isinstance(value, np.ndarray):
            copy = value.copy()
            yield (lambda: value.tobytes() != copy.tobytes()), (lambda: np.copyto(value, copy))
        elif isinstance(value, dict):
            before = dict(value)
            yield (
                (lambda: list(before) != list(value) or any(not _same(a, value[k]) for k, a in before.items())),
                (lambda: (value.clear(), value.update(before))),
            )
            yield from self._each(before.values())
        elif isinstance(value, (list, deque)):
            items = list(value)
            yield (lambda: len(items) != len(value) or not all(map(_same, items, value))), (lambda: (value.clear(), value.extend(items)))
            yield from self._each(items)
        elif isinstance(value, set):
            members = set(value)
            yield (lambda: members != value), (lambda: (value.clear(), value.update(members)))
        elif isinstance(value, (tuple, frozenset)):
            yield from self._each(value)
        elif isinstance(getattr(value, "__dict__", None), dict):
            yield from self._held(value.__dict__)

    def _each(self, values) -> Iterator[tuple[Changed, Restore]]:
        for value in values:
            yield from self._held(value)


def _same(a, b) -> bool:
    """Whether an attribute holds the same object, or an equal number or text."""
    return a is b or type(a) is type(b) and isinstance(a, (str, bytes, int, float, complex, torch.Size)) and (a == b or a != a and b != b)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)


def _tensor(tensor: torch.Tensor) -> tuple[Changed, Restore]:
    """A tensor's own memory and its content."""
    data, copy = tensor.data, tensor.detach().clone()

    def changed() -> bool:
        here = tensor.data
        return here.data_ptr() != data.data_ptr() or here.shape != copy.shape or not torch.equal(_bytes(here), _bytes(copy))

    def restore() -> None:
        with torch.no_grad():
            data.copy_(copy)
            tensor.data = data

    return changed, restore
