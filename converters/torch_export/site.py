"""One operator of an exported program, as its converter sees it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from fastrnn.converters.torch_export.registry import Size, Tensor, settled
from fastrnn.errors import UnsupportedModelError
from fastrnn.model import Node

ASSUMED = "the program was captured for sizes with"  # how the refusal of other sizes begins
LAST = np.iinfo(np.int64).max  # as the end of a slice: to the end
_FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)\n\s*([^\n]*)')


def user_line(node) -> str:
    """Where in the caller's source an fx node comes from; empty where that is not known."""
    frames = [f for f in _FRAME.findall(node.stack_trace or "") if "/torch/" not in f[0]]
    if not frames:
        return ""
    path, line, function, code = frames[-1]
    return f", from {path}:{line} in {function}: {code.strip()[:100]}"


def dtype_name(dtype: torch.dtype) -> str:
    """NumPy's name of it."""
    return str(dtype).removeprefix("torch.")


class OpenSizesError(UnsupportedModelError):
    """What fastrnn lacks where sizes vary. symbols: torch's names for those."""

    def __init__(self, message: str, symbols: set[str]):
        super().__init__(message)
        self.symbols = symbols


class Site:
    """The op's name, what is known of its result, and the graph that grows. graph: the importer.GraphImporter."""

    def __init__(self, graph: Any, node: Any):
        self.graph, self.node, self.name, self._made = graph, node, node.name, 0
        self.target = str(node.target)
        values = node.meta.get("val")
        first = values[0] if isinstance(values, (list, tuple)) and values else values
        if isinstance(first, torch.Tensor):
            self.dtype, self.shape = dtype_name(first.dtype), tuple(map(settled, first.shape))

    @property
    def where(self) -> str:
        """How messages name the op, with the caller's line."""
        return f"node {self.name!r} ({self.target}{user_line(self.node)})"

    def refuse(self, why: str, *sizes) -> UnsupportedModelError:
        """The error for what fastrnn lacks; sizes: the dimensions, as torch has them, of which it is because they are open."""
        symbols = {str(s) for d in sizes if isinstance(d, torch.SymInt) for s in d.node.expr.free_symbols}
        return OpenSizesError(f"{self.where}: {why}", symbols) if symbols else UnsupportedModelError(f"{self.where}: {why}")

    @property
    def open_sizes(self) -> list:
        """All dimensions of its operands and results."""
        fakes = [n.meta.get("val") for n in (self.node, *self.node.all_input_nodes)]
        return [d for fake in torch.utils._pytree.tree_leaves(fakes) for d in (fake.shape if isinstance(fake, torch.Tensor) else [fake])]

    def uses(self, k: int) -> bool:
        """Whether anything reads result k of several."""
        return any(user.args[1] == k for user in self.node.users if user in self.graph.live)

    def emit(self, op: str, *inputs, outputs: int = 1, **attributes):
        """Adds a node; returns the name of its result, or a list where there are several."""
        names = ["" if x is None else x if isinstance(x, str) else x.name for x in inputs]
        while names and not names[-1]:
            names.pop()
        made = [self.value() for _ in range(outputs)]
        self.graph.build.nodes.append(Node(op, made[0], tuple(names), tuple(made), attributes))
        return made[0] if outputs == 1 else made

    def value(self) -> str:
        """A name for a value that this op makes."""
        self._made += 1
        return self.graph.unique(self.name if self._made == 1 else f"{self.name}.{self._made - 1}")

    def constant(self, value, dtype: str) -> str:
        """A constant of a dtype."""
        return self.graph.constant(np.array(value, dtype))

    def ints(self, *values: int) -> str:
        """A constant int64 (n,)."""
        return self.constant(list(values), "int64")

    def size(self, x: Tensor, axis: int) -> int | Size:
        """A dimension."""
        axis = x.axis(axis)
        if x.shape[axis] is not None:
            return x.shape[axis]
        return Size(self.emit("Slice", self.emit("Shape", x), self.ints(axis), self.ints(axis + 1)))

    def sizes(self, values) -> str:
        """Whole numbers as one int64 (n,)."""
        if all(isinstance(v, int) for v in values):
            return self.ints(*values)
        parts = [v if isinstance(v, Size) else self.ints(v) for v in values]
        return self.emit("Concat", *parts, axis=0) if len(parts) > 1 else parts[0].name

    def product(self, values) -> int | Size:
        """Of whole numbers."""
        result = 1
        for v in values:
            if isinstance(result, int) and isinstance(v, int):
                result *= v
            elif result == 1 or v == 1:
                result = v if result == 1 else result
            else:
                result = Size(self.emit("Mul", *(self.ints(f) if isinstance(f, int) else f for f in (result, v))))
        return result

    def cast(self, x, dtype: str, of: str | None = None) -> str:
        """A tensor, size or number as a dtype; of: the dtype of a value given by its name."""
        if isinstance(x, (bool, int, float)):
            return self.constant(x, dtype)
        have = of or ("int64" if isinstance(x, Size) else x.dtype)
        if isinstance(x, Size):
            x = self.emit("Reshape", x, self.ints())
        name = x if isinstance(x, str) else x.name
        return name if have == dtype else self.emit("Cast", name, to=dtype)

    def common(self, *operands) -> list[str]:
        """Operands as torch promotes them."""
        known = [x.fake if isinstance(x, Tensor) else 1 if isinstance(x, Size) else x for x in operands]
        dtype = dtype_name(torch.result_type(*known))
        return [self.cast(x, dtype) for x in operands]

    def transpose(self, x, a: int, b: int, rank: int) -> str:
        """Two axes exchanged."""
        perm = list(range(rank))
        perm[a], perm[b] = perm[b], perm[a]
        return self.emit("Transpose", x, perm=perm)

    def array(self, x: Tensor | None, what: str) -> np.ndarray | None:
        """The content of a constant."""
        if x is None:
            return None
        if x.name not in self.graph.build.weights:
            raise self.refuse(f"{what} must be constant; here it is computed from the inputs")
        return self.graph.build.weights[x.name]
