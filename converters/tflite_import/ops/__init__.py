"""Converters of operators: arithmetic.py (elementwise, reductions), matrix.py (products, windows), moving.py (shapes, slices, choices), recurrent.py, control.py (WHILE, IF, lists)."""

from fastrnn.converters.tflite_import.ops import arithmetic, control, matrix, moving, recurrent

__all__ = ["arithmetic", "control", "matrix", "moving", "recurrent"]
