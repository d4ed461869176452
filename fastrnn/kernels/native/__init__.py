"""C kernels behind Cython, compiled once for each instruction set from the same sources.

    args.h          the kernel contract (see ../contract.py)
    simd.h          the vector vocabulary, in the instructions of each set
    activations.h   tanh, sigmoid, exp and the rest, as fixed sequences of operations
    affine.h        the matrix driver: panels, and the chains of FMAs of a register tile
    tiles.h         covering blocks x rows with tiles, to and fro
    product.h       many rows times a panel: tiles of any vectors, units put together behind them
                    product_bfloat16.h, product_int8.h: over small weights; multiply.h: whichever it is; one_row.h: a step of a row over small weights
    quantize.h      rows of floats as integers, for int8 weights; simd_integers.h: the vectors of integers that they need
    ahead.h         input projections of later steps beside the steps of few rows
    rows.h          rows in time and batch, states in and out
    sync.h          how calls that run at once on several threads meet
    recurrence.h    the tiles of a cell, a template, and (time_loop.h) its steps; cell_*.h the pointwise part of each cell
    fpmode.h        denormals flushed, the caller's mode restored
    functions.h     log, sin, cos, pow, erf
    operations.h    elementwise operations, and programs of them
    chain.h         a program over arrays of any layout
    dense.h         dense layers, computed products, depthwise convolutions, a program behind them
    pool.h          maxima and means of windows
    grid.h          walks over arrays of any layout; copies. reduce.h: reductions, softmax. integers.h: integers, casts, moves by index
    bytes.h         bytes with a scale and a zero point, as quantized files have them: to and fro, exact products
    ops.h           packing of weights, sorting of lengths. probe.h: what the roofline is measured with
    table.h         the kernels by name; _avx512.pyx, _avx2.pyx, _neon.pyx, _baseline.pyx export it
    _cpu.pyx        what this CPU and operating system run; _invoke.pyx: kernels called from Python, by address

NEON has run only under emulation (.ci/neon), never on an ARM machine.
"""

from importlib.util import find_spec

if find_spec(f"{__name__}._cpu") is None:
    raise ImportError(f"nothing is compiled in {__path__[0]}: this is fastrnn's source folder, and if fastrnn is installed too, that lies behind it on the path. "
                      "Run from another folder (tests by `pytest`, not `python -m pytest`), or compile it here: pip install -e .")
