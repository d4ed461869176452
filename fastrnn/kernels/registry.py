"""Which kernels there are. Built-in tables load when their ISA is first asked for; others are registered."""

from __future__ import annotations

from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isa
from fastrnn.kernels.contract import Kernel

_registered: dict[tuple[str, str], dict[str, Kernel]] = {}


def register(kernel: Kernel) -> None:
    """Adds a kernel, or replaces the one of its name, backend and ISA. Plans made from then on may choose it."""
    if kernel.backend == "native":
        kernels("native", kernel.isa)  # the built-in table first, or it would stay hidden behind this one
    _registered.setdefault((kernel.backend, kernel.isa), {})[kernel.name] = kernel


def unregister(kernel: Kernel) -> None:
    """Takes a kernel out again; plans that chose it keep it."""
    _registered[kernel.backend, kernel.isa].pop(kernel.name)


def kernels(backend: str, isa_name: str) -> dict[str, Kernel]:
    """All kernels of a backend on an ISA, by name."""
    key = backend, isa_name
    if backend == "native" and key not in _registered:
        table = isa.load(isa_name)
        _registered[key] = {name: Kernel(name, backend, isa_name, table.LANES, run, work) for name, run, work in table.kernels()}
    return _registered.get(key, {})


def find(name: str, backend: str, isa_name: str) -> Kernel:
    """The kernel of that name, or UnsupportedModelError."""
    try:
        return kernels(backend, isa_name)[name]
    except KeyError:
        raise UnsupportedModelError(f"backend {backend!r} has no kernel {name!r} for ISA {isa_name!r}") from None
