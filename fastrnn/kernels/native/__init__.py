"""C kernels behind Cython, compiled once for each instruction set from the same sources.

    args.h          the kernel contract (see ../contract.py)
    simd.h          the vector vocabulary, the only file that knows an instruction set
    activations.h   tanh, sigmoid, exp and the rest, as fixed sequences of operations
    affine.h        the matrix driver: chains of FMAs, register tiles
    rows.h          rows in time and batch, states in and out
    recurrence.h    the time loop, a template; cell_*.h the pointwise part of each cell
    ops.h           dense layer, elementwise activation, gather, sorting of lengths
    table.h         the kernels by name; _avx512.pyx, _avx2.pyx, _neon.pyx, _baseline.pyx export it
    _cpu.pyx        what this CPU and operating system run

NEON has run only under emulation (.ci/neon), never on an ARM machine.
"""
