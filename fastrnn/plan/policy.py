"""Which kernel, and how it is driven: candidates (what is legal), rank (preference), pick; each choice says why.

A number here carries the measurement behind it (one core of a Zen 4 at AVX-512 where no other is named, ratios within one run).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastrnn.cells import Cell
from fastrnn.errors import UnsupportedModelError
from fastrnn.kernels import isa, registry, roofline
from fastrnn.kernels.contract import Kernel, Key, as_key
from fastrnn.kernels.jit import compiler
from fastrnn.model.sizes import Whole, largest, less, smallest

BACKENDS = ("auto", "native", "jit", "reference")
# A call that is estimated above this gives up the GIL; below, giving it up costs more than it gives.
RELEASE_GIL_NS = 5_000.0
# What the estimate assumes one core does: float32 FMA out of cache, and weights streamed from L3.
FLOPS_PER_NS, BYTES_PER_NS, STEP_NS = 80, 60, 20
# A panel over x above this does not stay in L2 beside that over h, and is read once for so many rows, whose projections are 5 MB at H = 1024.
X_NEAR_BYTES, FAR_ROWS = 1 << 20, 288
# And this share of L2 is what it takes where that over h, of about its size, leaves it no room beside itself.
CROWDED = 3 / 8
# Panels over h, or of a dense layer, from this size on have tiles for weights from beyond L2, by lanes; L2 of 2 MB. Of the time without, LSTM: H = 320, AVX-512, 2 rows 0.90 to 1.0, 4 rows 0.86,
# 8 to 64 0.91 to 1.0; H = 256, AVX2, 1 and 2 rows, 1 to 5 steps 0.95 to 0.99, 5 and 6 rows 0.91, 0.93. With 16 lanes fewer than that have projections computed ahead (H = 256, one row, 400
# steps: 1.05 without).
FAR_BYTES = {8: 1 << 20, 16: 3 << 19}
# Units up to which both directions of a layer take their steps in turn.
IN_TURN_UNITS = 16


@dataclass(frozen=True)
class Choice:
    """A kernel for one direction of a node, or None for NumPy, and the reason."""

    kernel: Kernel | None
    why: str


def resolve_backend(backend: str) -> str:
    """The backend that "auto" stands for; FASTRNN_BACKEND pins it."""
    if backend not in BACKENDS:
        raise UnsupportedModelError(f"backend {backend!r} is unknown; known are {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = os.environ.get("FASTRNN_BACKEND") or "auto"
        if backend not in BACKENDS:
            raise UnsupportedModelError(f"FASTRNN_BACKEND={backend!r} is unknown; known are {', '.join(BACKENDS)}")
        backend = "native" if backend == "auto" else backend
    return backend


def candidates(key: Key | str, backend: str, isa_name: str = "") -> Iterator[Choice]:
    """Every kernel of that key, best first: the backend's own, then native, then NumPy; for the instruction set chosen now, if not said."""
    if backend == "reference":
        yield Choice(None, "backend='reference'")
        return
    chosen_isa, key = isa_name or isa.chosen(), as_key(key)
    for source in dict.fromkeys((backend, "native")):
        if (kernel := registry.kernels(source, chosen_isa).get(key)) is not None:
            yield Choice(kernel, f"{source} kernel for {chosen_isa}")
    yield Choice(None, f"no compiled kernel {str(key)!r}")


def pick(key: Key | str, backend: str, isa_name: str = "") -> Choice:
    """The best candidate."""
    return next(candidates(key, backend, isa_name))


def pick_cell(cell: Cell, backend: str, units: int, projected: int | None, precision: str = "float32") -> Choice:
    """The kernel of a recurrent cell for layers of H units (projected: P, or None). A recurrent layer never drops to NumPy unasked.

    Native kernels are of the built-in cells; any other is compiled, also where the backend is "native". Over small weights, all are native.
    """
    key = Key("recurrent" if cell.default else "general", cell.name, precision)
    if backend == "reference":
        return pick(key, backend)
    if backend == "native" and not cell.custom or precision != "float32":
        choice = pick(key, backend)
        if choice.kernel is None:
            raise UnsupportedModelError(f"backend {backend!r} has no kernel {str(key)!r}")
        return Choice(choice.kernel, f"{choice.why}; " + ("default activations" if cell.default else "options read at run time"))
    chosen_isa = isa.chosen()
    registered = registry.kernels("jit", chosen_isa).get(key)
    if registered:
        return Choice(registered, f"registered jit kernel for {chosen_isa}")
    return Choice(compiler.kernel_of(cell, chosen_isa, units, projected), f"compiled for {chosen_isa}")


def far(kernel: Kernel | None, nbytes: int) -> bool:
    """Whether a layer's tiles are those for weights from beyond L2, which the contract's `far` asks for: with a panel over h, or a dense layer's, of so many bytes."""
    return kernel is not None and kernel.far and kernel.key.dtype == "float32" and nbytes >= FAR_BYTES[kernel.lanes]


def chunk(kernel: Kernel | None, T: Whole, B: Whole, input_size: int, h_size: int, apart: bool, x_bytes: int, small: bool = False) -> Whole:
    """Steps whose input projection is hoisted out of the time loop at once; 0: none. What it is measured by: docs/design/plan.md.

    Hoisting turns time into rows of a register tile, which pays while the batch alone does not fill one and the input part is more than a few FMAs. With sixteen registers,
    weights of x and h together outgrow the cache that those of h stay in. Where the panel over x (x_bytes) fills L2 with that over h, four to eight rows would read both anew
    in every step; one that comes from L3 by itself is read once for many rows. apart: the cell has gates that see only x or only h, and products of any vectors
    (product.h) need the projections first. small: over int8 weights.
    """
    native = kernel is not None and kernel.backend == "native"
    far_x, many = native and x_bytes > X_NEAR_BYTES, native and kernel.lanes < 16 and h_size >= 64
    if small:  # whose kernels hoist anyway where there is more than a row
        return 0 if T < 4 or B < 1 else smallest(T, largest(1, (FAR_ROWS if far_x else 16) // B))
    if B < 1 or T < 1:
        return 0
    if input_size < 8 or T < 4:  # before the batch is looked at, which would divide programs for nothing
        return int(many and apart and B > 1)
    if far_x:
        return smallest(T, largest(1, FAR_ROWS // B))
    if B < 4:
        return smallest(T, 32)
    crowded = native and x_bytes >= CROWDED * roofline.cache_bytes().get("L2", X_NEAR_BYTES)
    if many or crowded and B <= 8:
        return smallest(T, largest(int(apart or crowded), (64 if crowded else 32) // B))
    return 0


def ahead(kernel: Kernel, T: Whole, B: Whole, hoisted: Whole, input_size: int, x_bytes: int, h_bytes: int) -> Whole:
    """1 or 0: whether the projections of the next chunk are computed beside the steps of one row, while those wait for the recurrent weights.

    x_bytes, h_bytes: of the panels over x and h. A step does not wait for weights that L1 holds, nor, swept to and fro, for half of twice as many. AVX2 has too few registers.
    """
    if (
        kernel.backend != "native"
        or kernel.lanes < 16
        or kernel.key.dtype != "float32"
        or isinstance(hoisted, int)
        and hoisted == 0
        or input_size < 24
        or x_bytes > X_NEAR_BYTES
        or h_bytes < 2 * roofline.cache_bytes()["L1"]
    ):
        return 0
    return less(hoisted, T) if B == 1 else 0


def in_turn(kernels: Sequence[Kernel | None], B: Whole, units: int) -> bool:
    """Whether one call does the steps of both directions of a layer, in turn: while the units of one end in functions, the products of the other go on.

    One row of few units waits for itself like this; more units keep the multipliers busy as they are, and both directions' weights at once leave the first cache, or the second.
    """
    return (
        isinstance(B, int)
        and B == 1
        and units <= IN_TURN_UNITS
        and kernels[0] is not None
        and kernels[0].backend == "native"
        and kernels == [kernels[0]] * 2
    )


def estimate_ns(flops: Whole, weight_bytes: Whole) -> Whole:
    """A rough time of one kernel call, for the decision on the GIL."""
    return STEP_NS + largest(flops // FLOPS_PER_NS, weight_bytes // BYTES_PER_NS)
