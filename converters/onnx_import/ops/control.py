"""If and Constant."""

from __future__ import annotations

import numpy as np
import onnx
from fastrnn.converters.onnx_import.registry import REQUIRED, Given, imports


@imports("If")
def if_(node: Given) -> None:
    """Both branches, which see what is around them."""
    branches = {}
    for name in ("then_branch", "else_branch"):
        graph = node.attribute(name, REQUIRED)
        if not isinstance(graph, onnx.GraphProto):
            raise node.invalid(f"{name} is no graph")
        branches[name] = node.graph.subgraph(graph)
    node.emit(**branches)


@imports("Constant")
def constant(node: Given) -> None:
    """A weight under the output's name."""
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    given = [a.name for a in node.proto.attribute]
    if len(given) != 1:
        raise node.invalid(f"it must have one attribute, got {given}")
    if given[0] == "value":
        array = node.graph.tensor(node.attribute("value"), node.where)
    elif given[0] in kinds:
        array = np.array(node.attribute(given[0]), kinds[given[0]])
    else:
        raise node.refuse(f"attribute {given[0]!r} is not supported")
    node.graph.names.weights[node.outputs[0]] = array
