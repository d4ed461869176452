"""A model as plain data: a graph of ops with ONNX's meaning, weights, named inputs, outputs and states.

    graph.py      Value, Node, Graph, State, Model; validation
    ops/          the op vocabulary: attributes, shapes out of shapes, and meaning in NumPy
    infer.py      dtypes, shapes and small values of a whole graph
    edit.py       changing a graph: free names, constants, nodes with their specs, what is live
    sizes.py      sizes that are symbols and numbers at once, so that one program serves all; polynomials.py: their arithmetic
    builder.py    a graph that grows node by node; stack.py: recurrent layers in it, with torch's options and parameter names
    recurrent.py  recurrent nodes: their inputs and attributes resolved
    small.py      weights of bfloat16 and int8, and what is multiplied by them, as numbers
    absent.py     stand-ins for weights that a session holds packed only
    show.py       a model as text: a screenful, all of it, or for a notebook
    file.py       the safetensors file: tensors as tensors, the graph as JSON in the metadata

To add an op: a shape function and a meaning in ops/ and, to run it compiled, one emitter in plan/emit/.
"""

from fastrnn.model.graph import Graph, Model, Node, State, Value

__all__ = ["Graph", "Model", "Node", "State", "Value"]
