"""Recurrent layers that a file spells out become RNN, GRU and LSTM nodes: a Loop or Scan over one cell, cells one after another, a single cell.

A cell is taken for one only if it is, for all real numbers: see algebra.py and cell_steps.py. What else reads a layer's states finds them in
its outputs.
"""

from __future__ import annotations

from dataclasses import replace

from fastrnn.model import Graph, Model, Node
from fastrnn.model.edit import live
from fastrnn.model.graph import every_node
from fastrnn.plan.graph.algebra import Form
from fastrnn.plan.graph.chains import chains
from fastrnn.plan.graph.loops import loops
from fastrnn.plan.graph.placing import Layers
from fastrnn.plan.graph.reading import Reading

MOST_ROUNDS = 16  # layers on top of one another
ENDS = {"Tanh", "Sigmoid", "Relu", "HardSigmoid", "Softsign", "Elu", "LeakyRelu", "ThresholdedRelu", "Softplus", "Clip"}


def recognise(model: Model) -> Model:
    """The model with recurrent nodes where it spells layers out. Specs of the values stay."""
    ops = {node.op for node, _ in every_node(model.nodes)}
    if not ops & ENDS or not ops & {"MatMul", "Gemm"}:
        return model
    layers = Layers(model)
    nodes = _walk(layers, list(model.nodes), {}, set(model.output_names))
    return layers.result(nodes) if layers.placed else model


def _walk(layers: Layers, nodes: list[Node], forms: dict[str, Form], wanted: set[str]) -> list[Node]:
    """The nodes of a graph with layers in it recognised, and those in subgraphs. forms: of values around it."""
    reading = Reading(layers.weights, layers.specs, forms).read(nodes)
    for _ in range(MOST_ROUNDS):
        found = loops(layers, nodes, reading) or chains(layers, nodes, reading, 2)
        if found is None:
            break
        nodes = list(live(found, wanted)[0])
        reading = Reading(layers.weights, layers.specs, forms).read(nodes)
    nodes = chains(layers, nodes, reading, 1) or nodes
    result = []
    for node in nodes:
        if node.subgraphs:
            attributes = {
                k: replace(v, nodes=tuple(_walk(layers, list(v.nodes), reading.forms, set(v.outputs)))) if isinstance(v, Graph) else v
                for k, v in node.attributes.items()
            }
            node = replace(node, attributes=attributes)
        result.append(node)
    return result
