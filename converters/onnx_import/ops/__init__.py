"""Importers, by the files in which the model's vocabulary has the ops."""

from fastrnn.converters.onnx_import.ops import control, elementwise, linear, normal, recurrent, shaping

__all__ = ["control", "elementwise", "linear", "normal", "recurrent", "shaping"]
