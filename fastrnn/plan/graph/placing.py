"""What is put in the place of cells that were found: recurrent nodes, and the views that bring values to their layout."""

from __future__ import annotations

import numpy as np

from fastrnn.model import Model, Node
from fastrnn.model.edit import Edit
from fastrnn.model.ops import ANY_DIM
from fastrnn.plan.graph.algebra import Vector
from fastrnn.plan.graph.cell_steps import CellStep


class Layers(Edit):
    """A model that gets recurrent layers; placed: whether it has got one."""

    def __init__(self, model: Model):
        super().__init__(model)
        self.placed = False
        self._digests: dict[int, bytes] = {}

    def digest(self, name: str) -> bytes:
        """Equal for weights of equal numbers; of another value its name."""
        array = self.weights.get(name)
        if array is None:
            return name.encode()
        if id(array) not in self._digests:
            from hashlib import sha256  # slow to import, and few models come here

            self._digests[id(array)] = sha256(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes()).digest()
        return self._digests[id(array)]

    def shaped(self, nodes: list[Node], name: str, value: str, shape: tuple) -> str | None:
        """The value with axes of size 1 put in or left out, None where that does not give the shape."""
        have = self.specs[value].shape
        if tuple(d for d in have if d != 1) != tuple(d for d in shape if d != 1) or ANY_DIM in have:
            return None
        ones = [k for k, d in enumerate(have) if d == 1]
        if have != shape and ones:
            value = self.node(nodes, "Squeeze", f"{name}.whole", (value, self.whole(f"{name}.axes", *ones)))[0]
        new = [k for k, d in enumerate(shape) if d == 1]
        if have != shape and new:
            value = self.node(nodes, "Unsqueeze", f"{name}.shaped", (value, self.whole(f"{name}.axes", *new)))[0]
        return value

    def value(self, nodes: list[Node], vector: Vector) -> str:
        """The name of a vector's value."""
        if vector.index is None:
            return vector.name
        at = self.weight(f"{vector.name}.at", np.array(vector.index))
        return self.node(nodes, "Gather", f"{vector.name}.entry", (vector.name, at), axis=vector.axis)[0]

    def layer(self, nodes: list[Node], step: CellStep, x: Vector, h: Vector, sequence: str, states: list[str], backwards: bool) -> list[str]:
        """The recurrent node over X (T, B, I): names of Y (T, 1, B, H), Y_h and, of an LSTM, Y_c (1, B, H)."""
        name, size = f"{step.result}.{step.op.lower()}", self.specs[step.result].shape[-1]
        arrays = step.weights(x, h, size, self.weights)
        w, r, b = (self.weight(f"{name}.{what}", a) for what, a in zip("WRB", arrays))
        attributes = step.attributes(size) | ({"direction": "reverse"} if backwards else {})
        self.placed = True
        return self.node(nodes, step.op, name, (sequence, w, r, b, "", *states), 3 if step.op == "LSTM" else 2, **attributes)

    def sequence(self, nodes: list[Node], source: str, axis: int, name: str) -> str | None:
        """A value of three axes with time first."""
        if len(self.specs[source].shape) != 3 or axis not in (0, 1):
            return None
        return self.node(nodes, "Transpose", f"{name}.time_first", (source,), perm=(1, 0, 2))[0] if axis else source
