"""The one registry of ONNX ops: an importer is a decorated function over a Given, which it turns into nodes.

To add an op: one function in ops/, one row in tests/rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, NodeProto, helper

from fastrnn.converters.foreign import options_of
from fastrnn.errors import InvalidModelError, UnsupportedModelError
from fastrnn.model import Node
from fastrnn.model.ops.foreign import PREFIX

# Why an op is refused that ONNX has.
REFUSED = {
    **dict.fromkeys(
        ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"), "it draws random numbers"
    ),
    **dict.fromkeys(("NonZero", "Compress", "Unique", "NonMaxSuppression"), "the size of its output depends on data"),
    **dict.fromkeys(("StringNormalizer", "StringConcat", "StringSplit", "RegexFullMatch"), "it works on text"),
    "SequenceMap": "it works on sequences of tensors",
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), "it works on optional values"),
}
IMPORTERS: dict[str, Callable[[Given], None]] = {}
REQUIRED = object()
MICROSOFT = "com.microsoft."  # in front of the op types of ONNX Runtime's own domain


def imports(*names: str):
    """Registers a function of a Given under op types, those of a domain but ONNX's own with that in front."""

    def register(function):
        for name in names:
            IMPORTERS[name] = function
        return function

    return register


@dataclass
class Given:
    """A node of the file: its op type, unique name, inputs and outputs by their names in the model ("" where omitted), and opset.

    graph: the importer.GraphImporter, which has constants, subgraphs and the list of nodes made so far.
    """

    proto: NodeProto
    name: str
    inputs: list[str]
    outputs: list[str]
    opset: int
    graph: Any
    used: set[str] = field(default_factory=set)
    made: int = 0

    @property
    def op(self) -> str:
        """The op type."""
        return self.proto.op_type

    @property
    def where(self) -> str:
        """How messages name the node."""
        return f"node {self.name!r} ({self.op})"

    def refuse(self, why: str) -> UnsupportedModelError:
        """The error for what fastrnn lacks."""
        return UnsupportedModelError(f"{self.where}: {why}")

    def invalid(self, why: str) -> InvalidModelError:
        """The error for what ONNX does not allow."""
        return InvalidModelError(f"{self.where}: {why}")

    def input(self, k: int) -> str:
        """Input k, "" where omitted."""
        return self.inputs[k] if k < len(self.inputs) else ""

    def attribute(self, name: str, default=None):
        """An attribute's value (bytes as text), or the default; REQUIRED raises InvalidModelError where it is missing."""
        self.used.add(name)
        for attribute in self.proto.attribute:
            if attribute.name == name:
                if attribute.ref_attr_name:
                    raise self.refuse(f"attribute {name!r} refers to a function's")
                if attribute.type == AttributeProto.UNDEFINED:
                    raise self.invalid(f"attribute {name!r} has no type")
                value = attribute.g if attribute.type == AttributeProto.GRAPH else helper.get_attribute_value(attribute)
                if isinstance(value, bytes):
                    return value.decode("utf-8", "replace")
                if isinstance(value, (list, tuple)) and value and isinstance(value[0], bytes):
                    return [v.decode("utf-8", "replace") for v in value]
                return list(value) if not isinstance(value, (int, float, str)) and hasattr(value, "__iter__") else value
        if default is REQUIRED:
            raise self.invalid(f"attribute {name!r} is missing")
        return default

    def has(self, name: str) -> bool:
        """Whether the file sets an attribute."""
        return any(attribute.name == name for attribute in self.proto.attribute)

    def given(self, *names: str) -> dict[str, object]:
        """Those of these attributes that the file sets."""
        return {name: self.attribute(name) for name in names if self.has(name)}

    def ignore(self, *names: str) -> None:
        """Marks attributes that have no meaning for inference."""
        self.used.update(names)

    def only(self, name: str, *values) -> None:
        """Raises unless an attribute is missing or has one of the values that fastrnn supports."""
        value = self.attribute(name, values[0])
        if value not in values:
            raise self.refuse(f"attribute {name!r} = {value!r} is not supported, only {' or '.join(map(repr, values))}")

    def constant(self, what: str, value, dtype) -> str:
        """Adds a constant beside the node and returns its name."""
        if dtype is np.int64 and any(not isinstance(v, int) for v in (value if isinstance(value, (list, tuple)) else [value])):
            raise self.invalid(f"attribute {what!r} must hold whole numbers, got {value!r}")
        return self.graph.add_weight(f"{self.name}.{what}", np.array(value, dtype))

    def foreign(self, opset: int = 0, **changed) -> None:
        """Leaves the node to the onnx package's reference implementation: its attributes as they are, or changed to what a later opset calls them."""
        options = {}
        for attribute in self.proto.attribute:
            value = self.attribute(attribute.name)
            if (
                isinstance(value, (list, tuple))
                and not all(isinstance(v, (int, float, str)) for v in value)
                or not isinstance(value, (int, float, str, list, tuple))
            ):
                raise self.refuse(f"attribute {attribute.name!r} is not supported")
            options[attribute.name] = value
        self.emit(PREFIX + self.op, opset=max(opset, self.opset), options=options_of(options | changed))

    def value(self, what: str) -> str:
        """A name for an intermediate value."""
        return self.graph.unique_value(f"{self.name}.{what}")

    def emit(self, op: str = "", inputs=None, outputs=None, **attributes) -> str:
        """Adds a node: the same op, inputs and outputs unless said otherwise. Returns its first output."""
        inputs, outputs = self.inputs if inputs is None else inputs, self.outputs if outputs is None else outputs
        while inputs and not inputs[-1]:
            inputs = inputs[:-1]
        name = self.name if self.made == 0 else self.graph.unique_node(f"{self.name}.{self.made}")
        self.made += 1
        self.graph.nodes.append(Node(op or self.op, name, tuple(inputs), tuple(outputs), attributes))
        return outputs[0]
