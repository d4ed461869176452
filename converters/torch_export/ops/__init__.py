"""Converters, by the files in which the model's vocabulary has the ops."""

from fastrnn.converters.torch_export.ops import elementwise, filling, indexing, linear, normal, pooling, recurrent, resizing, shaping

__all__ = ["elementwise", "filling", "indexing", "linear", "normal", "pooling", "recurrent", "resizing", "shaping"]
