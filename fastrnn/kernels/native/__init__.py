"""C kernels behind Cython, compiled once for each instruction set from the same sources.

    args.h      the kernel contract (see ../contract.py)
    table.h     the kernels by name; _avx512.pyx, _avx2.pyx, _neon.pyx, _baseline.pyx export it
    vectors/    simd.h: the vector vocabulary, in the instructions of each set, and simd_integers.h, that of integers; activations.h: tanh, sigmoid, exp and the rest, as fixed
                sequences of operations; functions.h: log, sin, cos, pow, erf
    products/   affine.h: the matrix driver, panels and the chains of FMAs of a register tile; tiles.h: covering blocks x rows with tiles, to and fro; ahead.h: input projections of
                later steps beside the steps of one row; product.h: many rows times a panel, tiles of any vectors (product_tile.h), with product_far.h over weights from beyond L2, product_bfloat16.h and product_int8.h over small weights and
                multiply.h whichever it is; quantize.h: rows of floats as integers; dense.h: dense layers, computed products, a program behind them; depthwise.h; winograd.h: 3 x 3 taps
    cells/      rows.h: rows in time and batch, states in and out; recurrence.h: the tiles of a cell, a template, time_loop.h its steps, one_row.h a step of a row over small
                weights; cell_*.h: the pointwise part of each; sync.h: how calls that run at once on several threads meet
    arrays/     grid.h: walks over arrays of any layout, copies; chain.h: a program of elementwise operations (operations.h) over them; reduce.h: reductions, softmax; pool.h: maxima
                and means of windows; integers.h: integers, casts, moves by index; bytes.h: bytes with a scale and a zero point, exact products; ops.h: packing, sorting of lengths
    fpmode.h    denormals flushed, the caller's mode restored; probe.h: what the roofline is measured with
    system.h    what is asked of the operating system
    cpu.h, _cpu.pyx: what this CPU and operating system run; _invoke.pyx: kernels called from Python, by address

NEON has run only under emulation (.ci/neon), never on an ARM machine.
"""

from importlib.util import find_spec

if find_spec(f"{__name__}._cpu") is None:
    raise ImportError(
        f"nothing is compiled in {__path__[0]}: this is fastrnn's source folder, and if fastrnn is installed too, that lies behind it on the path. "
        "Run from another folder (tests by `pytest`, not `python -m pytest`), or compile it here: pip install -e ."
    )
