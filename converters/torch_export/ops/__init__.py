"""Converters, by the files in which the model's vocabulary has the ops: elementwise.py, indexing.py, linear.py, normal.py, pooling.py, recurrent.py,
shaping.py; and filling.py, tensors made from sizes, and resizing.py, interpolation; functions.py, what is made of other functions; scattering.py, entries
joined at indices; ordering.py, sorts and what runs along an axis; diagonals.py, views taken entry by entry; algebra.py, factors of matrices; complex.py, complex numbers
as pairs, and complex_functions.py, functions of them; counting.py, histograms, bags and segments; losses.py, what stands for functions
that look into tensors."""

from fastrnn.converters.torch_export.ops import (
    algebra,
    complex,
    complex_functions,
    counting,
    diagonals,
    elementwise,
    filling,
    functions,
    indexing,
    linear,
    losses,
    normal,
    ordering,
    pooling,
    recurrent,
    resizing,
    scattering,
    shaping,
)

__all__ = ["algebra", "complex", "complex_functions", "counting", "diagonals", "elementwise", "filling", "functions", "indexing", "linear", "losses", "normal", "ordering", "pooling", "recurrent", "resizing", "scattering", "shaping"]  # fmt: skip
