"""Which kernels there are. Built-in tables load when their ISA is first asked for; others are registered."""

from __future__ import annotations

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isa
from fastrnn.kernels.contract import Kernel, Key, as_key

_registered: dict[tuple[str, str], dict[Key, Kernel]] = {}


def register(kernel: Kernel) -> None:
    """Adds a kernel, or replaces the one of its key, backend and ISA. Plans made from then on may choose it."""
    if kernel.backend == "native":
        kernels("native", kernel.isa)  # the built-in table first, or it would stay hidden behind this one
    _registered.setdefault((kernel.backend, kernel.isa), {})[kernel.key] = kernel


def unregister(kernel: Kernel) -> None:
    """Takes a kernel out again; plans that chose it keep it."""
    _registered[kernel.backend, kernel.isa].pop(kernel.key)


def kernels(backend: str, isa_name: str) -> dict[Key, Kernel]:
    """All kernels of a backend on an ISA."""
    place = backend, isa_name
    if backend == "native" and place not in _registered:
        table = isa.load(isa_name)
        _registered[place] = {
            Key(*key): Kernel(Key(*key), backend, isa_name, table.LANES, run, work, far=True) for *key, run, work in table.kernels()
        }
    return _registered.get(place, {})


def find(key: Key | str, backend: str, isa_name: str) -> Kernel:
    """The kernel of that key (a string: of that role, for float32), or UnsupportedModelError."""
    try:
        return kernels(backend, isa_name)[as_key(key)]
    except KeyError:
        raise UnsupportedModelError(f"backend {backend!r} has no kernel {str(key)!r} for ISA {isa_name!r}") from None
