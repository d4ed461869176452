"""A model as plain data: a graph of ops with ONNX's meaning, weights, named inputs, outputs and states.

    graph.py      Value, Node, State, Model; validation
    ops.py        the op vocabulary: attributes, and shapes out of shapes
    recurrent.py  recurrent nodes: their inputs and attributes resolved, and stacks with torch's parameter names
    file.py       the safetensors file: tensors as tensors, the graph as JSON in the metadata

To add an op: one entry in ops.py (vocabulary), one function in kernels/reference/ops.py (NumPy meaning) and, to run
it compiled, one emitter in plan/emit.py.
"""

from fastrnn.model.graph import Model, Node, State, Value

__all__ = ["Model", "Node", "State", "Value"]
