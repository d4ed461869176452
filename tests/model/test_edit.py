"""The room where graphs are changed: names, specs, what is live, and that the model that is changed stays as it was."""

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.model import Graph, Model, Node, State, Value
from fastrnn.model.edit import Edit, changed, fresh, live
from fastrnn.model.ops import Spec
from fastrnn.plan.graph.fold import fold
from fastrnn.plan.graph.rewrites import rewrite


@pytest.fixture
def model():
    nodes = (Node("Relu", "a", ("x",), ("r",)), Node("Neg", "b", ("r",), ("y",)), Node("Add", "c", ("r", "w"), ("z",)))
    return Model((Value("x", "float32", ("B", 3)),), ("y", "z"), nodes, {"w": np.ones(3, np.float32)}, (State("x", "y"),))


def test_names_are_free_of_values_and_of_nodes(model):
    edit = Edit(model)
    assert edit.fresh("n") == "n" and edit.fresh("n") == "n'" and edit.fresh("a") == "a'" and edit.fresh("r") == "r'"
    assert edit.fresh("part", ".0", ".1") == "part" and edit.fresh("part.1") == "part.1'"
    assert fresh("x", {"x", "x'", "x''.next"}, ".next") == "x'''"
    nodes: list[Node] = []
    assert edit.node(nodes, "Split", "s", ("x", edit.whole("s.sizes", 1, 2)), 2, axis=1) == ["s.0", "s.1"] and edit.specs["s.1"].shape == ("B", 2)
    assert edit.node(nodes, "Relu", "a", ("s.0",)) == ["a''"] and edit.specs["a''"] == Spec("float32", ("B", 1))


def test_what_is_changed_stays_as_it_was(model):
    before = dict(model.specs), dict(model.weights), model.nodes
    edit = Edit(model)
    nodes = list(model.nodes)
    edit.node(nodes, "Mul", "d", ("x", edit.weight("two", np.float32(2))))
    result = edit.result(nodes, output_names=("d",), states=())
    assert [node.name for node in result.nodes] == ["d"] and set(result.weights) == {"two"} and result.specs["d"].shape == ("B", 3)
    assert (dict(model.specs), dict(model.weights), model.nodes) == before
    rewrite(fold(model, {"x": (2, 3)}))
    assert (dict(model.specs), dict(model.weights), model.nodes) == before


def test_live_keeps_what_is_needed_and_empties_what_is_not():
    split = Node("Split", "s", ("x",), ("p", "q"), {"num_outputs": 2})
    nodes, read = live([split, Node("Relu", "r", ("p",), ("y",)), Node("Neg", "n", ("q",), ("z",))], {"y"})
    assert [(node.name, node.outputs) for node in nodes] == [("s", ("p", "")), ("r", ("y",))] and read == {"x", "p", "y"}


def test_states_go_with_their_inputs_and_replace_checks_again(model):
    from dataclasses import replace

    assert changed(model, nodes=model.nodes).states == model.states and changed(model, inputs=()).states == ()
    with pytest.raises(fr.InvalidModelError, match="'c'.*'w'.*not defined"):
        replace(changed(model, name="other"), weights={})


def test_runs_laid_out_take_no_name_that_is_there():
    """A loop whose runs index what they take: a value that has the index's name keeps its own number."""
    body = Graph(
        (Node("Concat", "grow", ("s", "row"), ("s2",), {"axis": 0}), Node("Unsqueeze", "as_row", ("e", "axes"), ("row",)))[::-1], ("s2",), ("s", "e")
    )
    scan = Node("Scan", "scan", ("start", "xs"), ("all",), {"body": body, "num_scan_inputs": 1})
    taken = "scan.1.e.index"
    nodes = (scan, Node("Add", "sum", ("all", taken), ("y",)))
    model = Model(
        (Value("xs", "float32", (3, 2)),),
        ("y",),
        nodes,
        {taken: np.array(7, np.float32), "start": np.zeros((0, 2), np.float32), "axes": np.array([0])},
    )
    x = np.random.default_rng(0).standard_normal((3, 2)).astype(np.float32)
    assert np.array_equal(fr.compile(model).run({"xs": x})["y"], x + np.float32(7))
