"""Converters, by the files in which the model's vocabulary has the ops: elementwise.py, indexing.py, linear.py, normal.py, pooling.py, recurrent.py,
shaping.py; and filling.py, tensors made from sizes, and resizing.py, interpolation."""

from fastrnn.converters.torch_export.ops import elementwise, filling, indexing, linear, normal, pooling, recurrent, resizing, shaping

__all__ = ["elementwise", "filling", "indexing", "linear", "normal", "pooling", "recurrent", "resizing", "shaping"]
