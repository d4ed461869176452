"""The kernel contract: ``void kernel(const Args *args)``, over one plain struct of pointers and sizes.

ARGS mirrors ``fr_args`` of native/args.h; `tests/kernels/test_contract.py` compares them field by field. A kernel gets valid
arguments, checks nothing, allocates nothing, keeps nothing, and may be called from many threads with different arguments.
The executor calls it without the GIL, with denormals flushed.

    T, B, I, H, P       time, batch, input, hidden, projected hidden (= H without a projection); kernels of other ops say what they count in them
    x, y                rows (t, b) of a (T, B) grid: x + t * x_t + b * x_b elements, y with y_t and y_b, features contiguous
    w_x, w_h, w_u, w_p  packed panels [unit block][k][gate][lane]: over x, h, a second phase's operand, a projection; in a last block of
                        at most half the lanes, two gates share a vector, and in native ones of 8 lanes the last of four gates lies apart (native/products/affine.h)
    bias                [unit block][accumulator][lane]: each FMA chain starts here, then x in order, then h in order; where two
                        accumulators share a vector, the first holds both
    peephole            [3][H padded to lanes] in the order i, f, o, or a custom cell's parameters; NULL without
    h0 (B, P), c0 (B, H)  initial states, their rows h0_b and c0_b elements apart (0: all rows share one); hn, cn the final ones, hn_b and cn_b apart,
                        which may be the same memory
    state_rows          NULL, or of each batch row how many elements behind h0, c0, hn and cn its own lie, in place of their strides: states of a pool, which are
                        read and written where they are. Native kernels of cells alone read it
    lengths, order      sorted descending, and the batch row that each belongs to; NULL when all rows have T steps
    keep                what the states of row (t, b) are multiplied by where they go into step t, at keep + t * keep_t + b * keep_b; 0 makes them zero, whatever
                        they were. In reverse, where they go from step t to the one before it in time; then keep of step 0 has no say. keep_b = 0: not at all
    work                as many bytes as the kernel's work_bytes(args) says, 64-byte aligned
    chunk               time steps whose input projection is computed at once (0: inside each step); changes no bit. Of a dense layer: segments
                        that a row of x lies in (0: one), whose offsets stand first in `axes`
    ahead               1, with a chunk: a chunk's projection is computed beside the steps of the chunk before, by kernels of 16 lanes; changes no bit
    sweep               steps that calls with these weights have done so far, which the executor counts: panels are read to and fro; changes no bit
    part, parts         the share of its units that a call computes where `parts` calls run at once, with one work space, and meet at `barrier`
    ready, done         counts of steps: of x that the call which makes it has finished, and of y that this one has, for layers that run at once
    beside              the arguments of another call of the same kernel, over the same rows, whose steps are done in turn with this one's: the other direction; changes no bit
    reverse             1: the steps go from the end; input_forget: 1 couples an LSTM's forget gate to its input gate
    clip, scale         bound of pre-activations, +inf without; the divisor of a reduction
    x2, axes            second operand, and T loops of (size, strides of y, x, x2) for kernels over arrays of any layout (native/arrays/grid.h)
                        of a custom cell, x2 + t * x2_t + b * x2_b are the scalars of a row and step; x3, x4 and on initial and final rows of states
                        from the third on, H floats each without gaps
    weights             of the panels: 0 float32, 1 bfloat16, 2 int8 (native/products/product_bfloat16.h and product_int8.h have their layouts)
    far                 1: panels of float32 over x and h, or a dense layer's, come from beyond L2; every gate of a block lies apart, [unit block][gate][k][lane]
                        (native/products/product_far.h). Not with `ahead`; for kernels that say they read it
    x_bits, h_bits, p_bits  of int8 weights: integers that x, what is made of h, and what is projected are rounded to, 8 or 14 (native/products/quantize.h)
    act                 f, g, h: code (the order of cells.ACTIVATIONS), alpha, beta
    x3 ... x8           more operands, of programs of operations (native/arrays/operations.h), whose instructions stand behind the loops in `axes`
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, NoReturn

import numpy as np

ACTIVATION = np.dtype([("kind", "i8"), ("alpha", "f4"), ("beta", "f4")])
ARGS = np.dtype(
    [(name, "i8") for name in ("T", "B", "I", "H", "P")]
    + [("x", "u8"), ("y", "u8")]
    + [(name, "i8") for name in ("x_t", "x_b", "y_t", "y_b")]
    + [(name, "u8") for name in ("w_x", "w_h", "w_u", "w_p", "bias", "peephole", "h0", "c0", "hn", "cn")]
    + [(name, "i8") for name in ("h0_b", "c0_b", "hn_b", "cn_b")]
    + [("state_rows", "u8"), ("lengths", "u8"), ("order", "u8"), ("keep", "u8"), ("keep_t", "i8"), ("keep_b", "i8"), ("work", "u8")]
    + [(name, "i8") for name in ("chunk", "ahead", "sweep", "part", "parts")]
    + [(name, "u8") for name in ("barrier", "ready", "done", "beside")]
    + [(name, "i8") for name in ("reverse", "input_forget")]
    + [("clip", "f4"), ("scale", "f4"), ("x2", "u8"), ("x2_t", "i8"), ("x2_b", "i8"), ("axes", "u8")]
    + [(f"x{k}", "u8") for k in range(3, 9)]
    + [(name, "i8") for name in ("weights", "far", "x_bits", "h_bits", "p_bits")]
    + [("act", ACTIVATION, 3)]
)
POINTERS = ("x", "y", "w_x", "w_h", "w_u", "w_p", "bias", "peephole", "h0", "c0", "hn", "cn", "state_rows", "lengths", "order", "keep", "work", "x2", "axes", "barrier", "ready", "done", "beside",
            *(f"x{k}" for k in range(3, 9)))  # fmt: skip

# Operations of a program, in the order of native/arrays/operations.h, and how many values each reads.
OPERATIONS = {
    "map": 1, "sigmoid": 1, "relu": 1, "plus": 1, "times": 1, "clip": 1, "sqrt": 1, "abs": 1, "sign": 1, "floor": 1, "ceil": 1, "round": 1, "erf": 1, "log": 1, "sin": 1, "cos": 1,
    "reciprocal": 1, "quotient": 1, "not": 1, "nonzero": 1, "hard_swish": 1, "add": 2, "sub": 2, "mul": 2, "div": 2, "prelu": 2, "power": 2, "fmod": 2, "min": 2,
    "max": 2, "at_least": 2, "at_most": 2, "equal": 2, "less": 2, "less_or_equal": 2, "greater": 2, "greater_or_equal": 2, "and": 2, "or": 2,
    "xor": 2, "where": 3,
}  # fmt: skip
# `to`, a, b and c number the values: a program's operands first, then its results.
INSTRUCTION = np.dtype([(name, "i8") for name in ("operation", "to", "a", "b", "c")] + [("act", ACTIVATION)])
MAX_VALUES = 24


class Key(NamedTuple):
    """What a kernel is found by.

    role: what it does; "recurrent" for a cell as it is (native: with the default activations and no option), "general" for one with every option read
    from the arguments. cell: of these, its name. dtype: of weights, or of what it reads; "bits8" to "bits64" where it only moves entries.
    """

    role: str
    cell: str = ""
    dtype: str = "float32"

    def __str__(self) -> str:
        """Short, for tables and messages: lstm, lstm_any, copy32, add_int64, chain."""
        name = f"{self.cell}_any" if self.role == "general" else self.cell or self.role
        return name + ("" if self.dtype == "float32" else self.dtype[4:] if self.dtype.startswith("bits") else f"_{self.dtype}")


def as_key(key: Key | str) -> Key:
    """The key; a string is the role of a kernel for float32."""
    return key if isinstance(key, Key) else Key(key)


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel: what it is found by, for which backend and ISA, how many lanes a unit block of its
    panels has, and the addresses of ``void run(const Args *)`` and ``int64_t work_bytes(const Args *)``,
    0 for a kernel that takes no work space; whether it reads the argument `far`, without which it gets none of those panels."""

    key: Key
    backend: str
    isa: str
    lanes: int
    run: int
    work_bytes: int
    far: bool = False

    @property
    def name(self) -> str:
        """The key as tables show it."""
        return str(self.key)

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"kernel {self.name!r} holds addresses of this process; pickle or copy the Session, layer or Model that uses it")
