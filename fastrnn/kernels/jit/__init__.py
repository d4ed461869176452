"""Kernels of any cell, compiled when a plan first needs them: LLVM vectors for the tiles, and a time loop that comes with the package.

    recipe.py      what is compiled: the cell's traced instructions, sizes, the instruction set
    simd.py        the vector vocabulary: functions under construction, vectors of 8 or 16 floats
    functions.py   exp, tanh, sigmoid and the rest on vectors, with the native kernels' bits
    table.py       where a call's rows and scratch lie
    pointwise.py   the cell's own maths for one row and block
    tiles.py       register tiles: chains of fused multiply-adds, then the pointwise part; tiling.py says which
    kernel.py      a recipe as an LLVM module and as object code
    driver.h       the time loop, shared by all kernels; _driver.pyx: its address, and the layout of the tables that they share
    cache.py       object code on disk; loader.py: object code to addresses
    compiler.py    all of it together: a cell to a Kernel

The kernel contract and the layout of packed weights are the native kernels' (kernels/contract.py, native/products/affine.h), and so are the bits. No cell has
code of its own here. To add a function that cells may use: an entry in cells/maths.py and one in functions.py.
"""
