"""Kernels: functions that compute, each behind the same C signature. Start at contract.py.

    contract.py   the argument struct, field by field, and what a kernel may rely on
    registry.py   which kernels there are; `register` adds one from anywhere (another compiler's function pointer serves)
    isas.py       THE table of instruction sets; isa.py: which of them this build holds and this CPU and operating system run
    native/       C behind Cython: one module per instruction set, the same sources
    jit/          any cell, compiled when it is first needed
    reference/    NumPy, from the cell's specification
    roofline.py   what a core multiplies and reads, measured, and the bound that follows

To add an instruction set, see isas.py.
"""
