"""RNN, GRU and LSTM."""

from __future__ import annotations

from fastrnn.cells.activations import with_parameters
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.converters.onnx_import.registry import Given, imports
from fastrnn.errors import UnsupportedModelError


def recurrent_attributes(node: Given, kind: str) -> dict[str, object]:
    """A layer's attributes; the three lists of activations become one."""
    attributes = node.given("hidden_size", "direction", "clip", "layout", "linear_before_reset", "input_forget")
    if attributes.get("clip") == float("inf"):
        del attributes["clip"]  # which is none
    directions = 2 if node.attribute("direction", "forward") == "bidirectional" else 1
    names = node.attribute("activations")
    alphas, betas = node.attribute("activation_alpha", []), node.attribute("activation_beta", [])
    for key, values in (("activation_alpha", alphas), ("activation_beta", betas)):
        if not isinstance(values, list) or not all(isinstance(v, (int, float)) for v in values):
            raise node.invalid(f"attribute {key!r} must hold numbers, got {str(values)[:200]!r}")
    if names is not None or alphas or betas:
        names = names or [activation.kind for activation in DEFAULT_ACTIVATIONS[kind]] * directions
        try:
            attributes["activations"] = tuple(with_parameters(names, alphas, betas))
        except UnsupportedModelError as error:
            raise node.refuse(str(error)) from error
    return attributes


@imports("RNN", "GRU", "LSTM")
def recurrent(node: Given) -> None:
    """As they are."""
    node.emit(**recurrent_attributes(node, node.op.lower()))
