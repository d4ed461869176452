"""What a model and a session show of themselves."""

import re

import numpy as np
import pytest

import fastrnn as fr
import fastrnn.training as tr
from fastrnn.model import Graph, Model, Node, Value
from fastrnn.model.graph import every_node
from fastrnn.model.stack import StackOptions, stack_model

LINES, COLUMNS = 24, 250


def many_values(n: int) -> Model:
    """n inputs, nodes and outputs, with names as long as exporters make them."""
    names = [f"{'scope/' * 60}{k}" for k in range(n)]
    nodes = tuple(Node(("Tanh", "Relu", "Exp", "Neg")[k % 4], f"node {k}", (name,), (f"{name}/y",)) for k, name in enumerate(names))
    return Model(tuple(Value(name, "float32", ("B", 3)) for name in names), tuple(f"{name}/y" for name in names), nodes, {}, name="n" * 500)


def branches() -> Model:
    """An If whose branches hold a node each."""
    then, other = (Graph((Node(op, name, ("x",), (f"{name}.y",)),), (f"{name}.y",)) for op, name in (("Tanh", "inside"), ("Relu", "else <inside>")))
    node = Node("If", "choice", ("c",), ("y",), {"then_branch": then, "else_branch": other})
    return Model((Value("x", "float32", ("B", 3)), Value("c", "bool", ())), ("y",), (node,), {}, name="a & b")


def layers() -> Model:
    o = StackOptions("lstm", 3, 5, num_layers=3, bidirectional=True)
    return stack_model(o, {name: np.zeros(shape, np.float32) for name, shape in o.shapes().items()}, "net")


@pytest.mark.parametrize("model", [many_values(1), many_values(100), branches(), layers()], ids=["one", "hundred", "branches", "layers"])
def test_a_model_and_its_session_are_a_screenful_and_the_graph_is_all_of_it(model):
    session = fr.compile(model)
    for text in (repr(model), str(model), repr(session)):
        assert len(text.splitlines()) <= LINES and max(map(len, text.splitlines())) <= COLUMNS
    assert repr(session).startswith("Session: backend ") and repr(model) in repr(session)
    whole = str(model.graph)
    assert whole == repr(model.graph) and model.graph.nodes == model.nodes
    for name in (*model.input_names, *model.output_names, *model.weights, *(node.name for node, _ in every_node(model.nodes))):
        assert name in whole


def test_a_summary_counts_ops_inside_branches_too():
    assert "3 nodes" in repr(branches()) and all(f"1 {op}" in repr(branches()) for op in ("If", "Tanh", "Relu"))
    assert "... and 94 more" in repr(many_values(100)) and "25 Tanh" in repr(many_values(100))
    assert "h0 float32 (6, B, 5) optional  <- h_n" in repr(layers())


def test_notebooks_show_layers_networks_and_runs():
    layer = fr.GRU(3, 4, seed=0)
    assert (
        re.search(r"weight_hh_l0 +float32 +\(12, 4\) +48\n", layer._repr_html_())
        and "all of them" in layer._repr_html_()
        and "native" in layer._repr_html_()
    )
    net = tr.Sequential(tr.Embedding(7, 3), tr.Sequential(tr.LSTM(3, 4), tr.Tanh()), tr.Linear(4, 2), seed=0)
    html = net._repr_html_()
    assert (
        re.search("^1.0 +LSTM", html, re.MULTILINE)
        and re.search("^1.1 +Tanh", html, re.MULTILINE)
        and "2.bias" in html
        and f"{sum(a.size for a in net.parameters().values()):,}</pre>" in html
    )
    assert "weight" in net.layers[2]._repr_html_() and "Linear(4 -&gt; 2" in net.layers[2]._repr_html_()
    x = np.arange(12).reshape(4, 3) % 7
    history = tr.fit(net, tr.cross_entropy, (x, x % 2), (x, x % 2), optimiser=tr.Adam(net), epochs=2, metric=tr.accuracy)
    assert "2 epochs" in history._repr_html_() and "(best)" in history._repr_html_() and "metric" in history._repr_html_()
    assert "History of 0 epochs" in tr.History()._repr_html_()


def test_notebooks_show_the_same_text_escaped():
    model = branches()
    for shown in (model._repr_html_(), fr.compile(model)._repr_html_()):
        assert "a &amp; b" in shown and "<inside>" not in shown and shown.count("<pre>") == shown.count("</pre>") == 2
    assert "else &lt;inside&gt;" in model._repr_html_()
