"""Importers, by the files in which the model's vocabulary has the ops: control.py, elementwise.py, linear.py, normal.py, quantized.py, recurrent.py,
selecting.py, shaping.py; microsoft.py, ops that were made of several; and sequences.py, of which no node is left."""

from fastrnn.converters.onnx_import.ops import control, elementwise, linear, microsoft, normal, quantized, recurrent, selecting, sequences, shaping

__all__ = ["control", "elementwise", "linear", "microsoft", "normal", "quantized", "recurrent", "selecting", "sequences", "shaping"]
