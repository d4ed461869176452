"""If, Loop, Scan and Constant."""

from __future__ import annotations

import numpy as np
import onnx

from fastrnn.converters.onnx_import.registry import REQUIRED, Given, imports
from fastrnn.model import Graph, Node


@imports("If")
def if_(node: Given) -> None:
    """Both branches, which see what is around them."""
    node.emit(**{name: _graph(node, name) for name in ("then_branch", "else_branch")})


def _graph(node: Given, name: str, body: bool = False) -> Graph:
    graph = node.attribute(name, REQUIRED)
    if not isinstance(graph, onnx.GraphProto):
        raise node.invalid(f"{name} is no graph")
    return node.graph.subgraph(graph, body)


@imports("Loop")
def loop(node: Given) -> None:
    """Its body is told the number of the run and the condition, and handed what the run before gave."""
    node.emit(body=_graph(node, "body", True))


@imports("Scan")
def scan(node: Given) -> None:
    """Before opset 9 over a batch of sequences: there the Scan of a row stands in a Scan over the rows."""
    body, n = _graph(node, "body", True), node.attribute("num_scan_inputs", REQUIRED)
    if node.opset >= 9:
        node.emit(
            body=body, num_scan_inputs=n, **node.given("scan_input_axes", "scan_output_axes", "scan_input_directions", "scan_output_directions")
        )
        return
    if node.input(0):
        raise node.refuse("sequence_lens are not supported")
    backwards = {"scan_input_directions": node.attribute("directions", [0] * n)}
    rows = [node.value(f"row.{k}") for k in range(len(node.inputs) - 1)]
    results = [node.value(f"result.{k}") for k in range(len(body.outputs))]
    inner = Node("Scan", node.graph.unique_node(f"{node.name}.row"), tuple(rows), tuple(results), {"body": body, "num_scan_inputs": n, **backwards})
    node.emit(inputs=node.inputs[1:], body=Graph((inner,), tuple(results), tuple(rows)), num_scan_inputs=len(rows))


@imports("Constant")
def constant(node: Given) -> None:
    """A weight under the output's name."""
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    given = [a.name for a in node.proto.attribute]
    if len(given) != 1:
        raise node.invalid(f"it must have one attribute, got {given}")
    if given[0] == "value":
        array = node.graph.tensor(node.attribute("value"), node.where)
        node.graph.names.note(node.outputs[0], node.attribute("value").data_type)
    elif given[0] in kinds:
        array = np.array(node.attribute(given[0]), kinds[given[0]])
    else:
        raise node.refuse(f"attribute {given[0]!r} is not supported")
    node.graph.names.weights[node.outputs[0]] = array
