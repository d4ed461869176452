"""Patterns that run better as another op.

    patterns.py   what a pattern is, and the walk that replaces them
    products.py, shapes.py, integers.py, and in apart.py ops without a kernel of their own, as others that have one

BatchNormalization behind Conv or ConvTranspose   into its weights; elsewhere one product and one sum
MatMul with a constant matrix, and an Add after   Gemm, whose FMA chains start at the bias
Gemm with a computed B or C                       MatMul, or Gemm, and what scales and adds behind it
a number that scales a MatMul of two computed     in front of it, on its rows: as many numbers as a row has, not as many as there are columns
Pow by 2                                          Mul
x Clip(x + 3, 0, 6) / 6                           a hard swish by its product with 1 / 6: no division
Concat of all that a Split gives                  what was split
GlobalAveragePool                                 ReduceMean
MaxPool, AveragePool of one channel, by windows   of as many channels as the first axis has: they are read side by side, not one by one
of one along the first axis
ConstantOfShape, Tile along axes of size 1        Expand, a view
QLinearConv, QLinearMatMul                        ConvInteger, MatMulInteger, their sums as bytes again
"""

from fastrnn.plan.graph.rewrites import apart, integers, products, shapes  # noqa: F401  (they register patterns)
from fastrnn.plan.graph.rewrites.patterns import REWRITES, rewrite

__all__ = ["REWRITES", "rewrite"]
