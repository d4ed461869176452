"""Importers, by the files in which the model's vocabulary has the ops: control.py, elementwise.py, linear.py, normal.py, quantized.py, recurrent.py,
selecting.py, shaping.py; and microsoft.py, ops that were made of several."""

from fastrnn.converters.onnx_import.ops import control, elementwise, linear, microsoft, normal, quantized, recurrent, selecting, shaping

__all__ = ["control", "elementwise", "linear", "microsoft", "normal", "quantized", "recurrent", "selecting", "shaping"]
