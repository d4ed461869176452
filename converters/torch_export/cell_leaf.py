"""Modules that the caller says are layers of a custom cell: kept whole while a module is captured, whatever loop their forward holds.

Like recurrent layers (recurrent_leaf.py) they are replaced by one op with a shape function, here by a forward that calls it. How their own forward
takes and gives states is read off a run on the example.
"""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils import _pytree as pytree

from fastrnn.cells import Cell
from fastrnn.converters.torch_export.registry import Tensor, converts
from fastrnn.converters.torch_export.site import Site
from fastrnn.errors import UnsupportedModelError
from fastrnn.model.stack import add_stack, side_by_side
from fastrnn.runtime.layers import Recurrent

_leaves: dict[str, Leaf] = {}
_numbers = itertools.count()


@dataclass(frozen=True)
class Leaf:
    """A module and the layer that it is. gives_states: whether its forward returns them. flat: states are (B, H), not (layers * D, B, H)."""

    key: str
    path: str
    module: torch.nn.Module
    layer: Recurrent
    signature: inspect.Signature
    gives_states: bool
    flat: bool
    spec: pytree.TreeSpec

    def forward(self, *args, **kwargs):
        """In place of the module's own, while it is captured."""
        given, options = dict(self.signature.bind(*args, **kwargs).arguments), self.layer.options
        x = given.pop(next(iter(self.signature.parameters)))
        scalars = [given.pop(name) for name in options.scalars]
        states = [leaf for leaf in pytree.tree_leaves(list(given.values())) if isinstance(leaf, torch.Tensor)]
        states = [s[None] if s.dim() == 2 else s for s in states]
        scalars = [s.squeeze(-1) if s.dim() == 3 else s for s in scalars]
        y, *final = torch.ops.fastrnn.cell(x, states, scalars, self.key)
        return pytree.tree_unflatten([y, *([s[0] for s in final] if self.flat else final)] if self.gives_states else [y], self.spec)


@torch.library.custom_op("fastrnn::cell", mutates_args=())
def cell(x: torch.Tensor, states: list[torch.Tensor], scalars: list[torch.Tensor], key: str) -> list[torch.Tensor]:
    """Layers of a custom cell over x: outputs and final states. For tracing; it computes nothing."""
    raise UnsupportedModelError("fastrnn::cell stands in an exported program for fastrnn.from_torch to read; torch cannot run it")


@cell.register_fake
def _(x, states, scalars, key):
    o = _leaves[key].layer.options
    if x.shape[-1] != o.input_size:  # asked, so that the size is fixed: nothing else says it
        raise RuntimeError(f"{o.cell.name}: the input has {x.shape[-1]} features, the cell takes {o.input_size}")
    layers, batch = o.num_layers * o.directions, x.shape[0 if o.batch_first else 1]
    finals = [x.new_empty(layers, batch, o.hidden_size if k else o.output_size) for k in range(len(o.states))]
    return [x.new_empty(*x.shape[:-1], o.output_size * o.directions), *finals]


@converts("fastrnn.cell.default")
def custom_cell(g: Site, x: Tensor, states: Sequence[Tensor], scalars: Sequence[Tensor], key: str):
    """The layers; states that are zeros are left to the op, and so to a Stream."""
    layer, name, y = _leaves[key].layer, g.value(), g.value()
    o = layer.options
    finals = {state: g.value() for k, state in enumerate(o.states) if g.uses(k + 1)}
    given = {state: s.name for state, s in zip(o.states, states) if s.name not in g.graph.zeros}
    side = side_by_side(g.graph.build, name, dict(zip(o.scalars, (s.name for s in scalars))))
    add_stack(g.graph.build, name, o, layer.state_dict(), x.name, y, given, finals, "", side)
    return [y, *(finals.get(state) for state in o.states)]


def layer_of(made: Cell, module: torch.nn.Module, path: str) -> Recurrent:
    """The layer that a module's parameters make with a cell, by torch's names, with or without _l0. UnsupportedModelError where they do not fit."""
    arrays = {name if re.search(r"_l\d+", name) else f"{name}_l0": tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    rows = {side: arrays[f"weight_{side}_l0"].shape for side in ("ih", "hh") if f"weight_{side}_l0" in arrays}
    gates = {"ih": len(made.x_gates), "hh": len(made.h_gates)}
    if set(rows) != {side for side, n in gates.items() if n} or not rows:
        raise UnsupportedModelError(
            f"module {path!r}: cell {made.name!r} has parameters weight_ih and weight_hh where its gates see x and h; "
            f"there are {', '.join(arrays) or 'none'}. Give a function of the module that makes the fastrnn.Recurrent instead"
        )
    side = "hh" if "hh" in rows else "ih"
    H = rows[side][0] // gates[side]
    I, P = rows["ih"][1] if "ih" in rows else H, arrays["weight_hr_l0"].shape[0] if "weight_hr_l0" in arrays else 0
    layer = Recurrent(
        made,
        I,
        H,
        num_layers=1 + max(int(m[1]) for name in arrays if (m := re.search(r"_l(\d+)", name))),
        bias=any(name.startswith("bias") for name in arrays),
        batch_first=bool(getattr(module, "batch_first", False)),
        bidirectional=any(name.endswith("_reverse") for name in arrays),
        proj_size=P,
    )
    layer.load_state_dict(arrays)
    return layer


def find_leaves(module: torch.nn.Module, args, kwargs, cells: Mapping[type, Cell | Callable[[torch.nn.Module], Recurrent]]) -> list[Leaf]:
    """A leaf for every module of these classes that the example goes through; what it returns is seen by running it."""
    seen: dict[torch.nn.Module, object] = {}
    hooks = [
        part.register_forward_hook(lambda part, given, result: seen.__setitem__(part, result)) for part in module.modules() if type(part) in cells
    ]
    try:
        module(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    paths = {part: path or type(part).__name__.lower() for path, part in module.named_modules()}
    return [_leaf(paths[part], part, result, cells[type(part)]) for part, result in seen.items()]


def _leaf(path: str, part: torch.nn.Module, result, makes: Cell | Callable) -> Leaf:
    layer = layer_of(makes, part, path) if isinstance(makes, Cell) else makes(part)
    if not isinstance(layer, Recurrent):
        raise UnsupportedModelError(
            f"module {path!r}: cells= must give a cell, or a function that returns a fastrnn.Recurrent; it returned {type(layer).__name__}"
        )
    signature, options = inspect.signature(part.forward), layer.options
    others = [name for name in list(signature.parameters)[1:] if name not in options.scalars]
    tensors, spec = pytree.tree_flatten(result)
    counts = (1, 1 + len(options.states))
    if (
        len(others) > 1
        or len(tensors) not in counts
        or any(not isinstance(t, torch.Tensor) for t in tensors)
        or tensors[0].dim() != 3
        or any(t.dim() not in (2, 3) for t in tensors)
    ):
        raise UnsupportedModelError(
            f"module {path!r}: as a layer of cell {options.cell.name!r} its forward must take x, its scalars by name and at most a state, and "
            f"return y of three axes, or y and {len(options.states)} states"
        )
    flat = len(tensors) > 1 and tensors[1].dim() == 2
    if flat and options.num_layers * options.directions > 1:
        raise UnsupportedModelError(f"module {path!r}: states of several layers or directions must be (layers * directions, B, H)")
    leaf = Leaf(f"{path}.{next(_numbers)}", path, part, layer, signature, len(tensors) > 1, flat, spec)
    _leaves[leaf.key] = leaf
    return leaf


def forget(leaves: Sequence[Leaf]) -> None:
    """Ends their use in programs."""
    for leaf in leaves:
        _leaves.pop(leaf.key, None)


@contextmanager
def standing_in(leaves: Sequence[Leaf]) -> Iterator[None]:
    """Their modules' forwards are replaced."""
    before = [(leaf.module, leaf.module.__dict__.get("forward")) for leaf in leaves]
    try:
        for leaf in leaves:
            object.__setattr__(leaf.module, "forward", leaf.forward)
        yield
    finally:
        for module, forward in before:
            if forward is None:
                module.__dict__.pop("forward", None)
            else:
                object.__setattr__(module, "forward", forward)
