"""What stands around a convolution: its input inside its padding, where what makes it writes it, so that only the border is filled; and a pooling behind it,
which takes lines while they are hot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastrnn.model import Node
from fastrnn.model.ops import Spec
from fastrnn.model.ops.linear import Window, window_of
from fastrnn.model.sizes import Size, Whole
from fastrnn.plan.lowering.memory import View


def channels_last(x: View) -> View:
    """(N, C, sizes...) as (N, sizes..., C)."""
    return x.transposed((0, *range(2, len(x.shape)), 1))


def inside(padded: View, before: Sequence[Whole], sizes: Sequence[Whole]) -> View:
    """The part of (N, sizes..., C) behind the padding in front of each axis."""
    for k, (b, n) in enumerate(zip(before, sizes)):
        padded = padded.part(b, b + n, 1 + k)
    return padded


@dataclass(frozen=True)
class Padded:
    """A padded input (N, sizes..., C), channels last: its name, its shape, and the window that walks over it."""

    name: str
    shape: tuple[Whole, ...]
    window: Window

    def border(self, padded: View, sizes) -> list[View]:
        """The padding alone, in parts that do not meet: in front of and behind each axis, of those before it only what is inside."""
        parts = []
        for k, (before, after, n) in enumerate(zip(self.window.before, self.window.after, sizes)):
            parts += [padded.part(0, before, 1 + k)] * _some(before) + [padded.part(before + n, before + n + after, 1 + k)] * _some(after)
            padded = padded.part(before, before + n, 1 + k)
        return parts


def _some(n: Whole) -> bool:
    return isinstance(n, Size) or n > 0


def padded_input(node: Node, kernel, shape) -> Padded | None:
    """How the input (N, C, sizes...) of a convolution is padded; None if it is not."""
    window = window_of(node, kernel, shape[2:])
    if not any(map(_some, (*window.before, *window.after))):
        return None
    return Padded(f"{node.name} padded", (shape[0], *(n + b + a for n, b, a in zip(shape[2:], window.before, window.after)), shape[1]), window)


def share_padding(build, node: Node, share, loops: int) -> None:
    """Has the input of a convolution made inside its padding, where what makes it writes rows in so many loops."""
    kernel = tuple(int(n) for n in build.shape_of(node.inputs[1])[2:])
    shape = build.shape_of(node.inputs[0])
    padded = padded_input(node, kernel, shape)
    if padded is None or build.dtype_of(node.inputs[0]) != "float32":
        return

    def part(whole: View) -> View | None:
        found, n = inside(whole, padded.window.before, shape[2:]), len(shape)
        return found.transposed((0, n - 1, *range(1, n - 1))) if build.walks(found, loops) else None

    build.specs[padded.name] = Spec("float32", padded.shape)
    share(node.inputs[0], padded.name, part, ordered=False)


MOST_POOLED = 64  # entries of a window, by kernels/native/arrays/pool.h


@dataclass(frozen=True)
class Pooled:
    """A pooling by windows of lines and columns that neither meet nor leave an entry between; whether of their mean; what it makes; whether of images, or along
    one axis (by one line then)."""

    lines: int
    columns: int
    mean: bool
    output: str
    images: bool


def pooled_behind(node: Node, specs) -> Pooled | None:
    """The pooling that a node is, if a convolution's kernel can do it."""
    if node.op not in ("MaxPool", "AveragePool") or len(node.outputs) > 1 or specs[node.inputs[0]].dtype != "float32":
        return None
    size = tuple(node.get("kernel_shape"))
    apart = tuple(node.get("strides") or (1,) * len(size)) == size and set(node.get("dilations") or (1,)) == {1}
    if not apart or any(node.get("pads") or ()) or node.get("auto_pad") not in ("NOTSET", "VALID") or node.get("ceil_mode"):
        return None
    if len(size) > 2 or math.prod(size) > MOST_POOLED:
        return None
    return Pooled(1 if len(size) == 1 else size[0], size[-1], node.op == "AveragePool", node.outputs[0], len(size) == 2)
