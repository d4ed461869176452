"""A graph that grows node by node: what importers, layers and networks to train make Models with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastrnn.model.graph import Node


class GraphBuilder:
    """Nodes and weights so far. Not for use by several threads at once."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op: str, name: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: Any) -> None:
        """Appends a node."""
        self.nodes.append(Node(op, name, tuple(inputs), tuple(outputs), attributes))

    def weight(self, name: str, array: np.ndarray) -> str:
        """Adds a weight and returns its name."""
        self.weights[name] = np.asarray(array, order="C")
        return name

    def whole(self, name: str, *values: int) -> str:
        """Adds a constant int64 (n,) and returns its name."""
        return self.weight(name, np.array(values, np.int64))
