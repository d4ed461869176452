"""A module to an exported program: torch.export, with recurrent layers kept whole and as many dimensions left open as the module allows."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from fastrnn.converters.torch_export.cell_leaf import Leaf, standing_in
from fastrnn.converters.torch_export.recurrent_leaf import KeepRecurrent, batches_left_open
from torch.export import Dim
from torch.utils import _pytree as pytree

from fastrnn.errors import FastRNNError, UnsupportedModelError


@contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """The module in eval mode and no gradients, both as before afterwards."""
    training = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in training:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, was in training:
            part.training = was


def arguments(example_inputs) -> tuple[tuple, dict]:
    """(args, kwargs) of a call: a tuple or list of arguments, a dict by name, a tensor alone, or a pair (args, kwargs)."""
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        if len(example_inputs) == 2 and isinstance(example_inputs[0], tuple) and isinstance(example_inputs[1], dict):
            return example_inputs
        return tuple(example_inputs), {}
    return (example_inputs,), {}


REFUSALS = (RuntimeError, ValueError, IndexError, TypeError, AssertionError, KeyError)  # of a size, by a module
MOST_AXES = 6  # of size 1 in an example, of which all combinations are tried


def enlarged(module: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """The example with as many of its axes of 1 doubled as the module takes, since torch.export sees a constant in a 1; None where it takes none."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    axes = [(k, axis) for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) for axis, n in enumerate(leaf.shape) if n == 1]
    if not axes or len(axes) > MOST_AXES:
        return None
    chosen = sorted((subset for n in range(1, len(axes) + 1) for subset in itertools.combinations(axes, n)), key=len, reverse=True)
    with evaluating(module):
        for subset in chosen:
            bigger = list(leaves)
            for k, axis in subset:
                bigger[k] = torch.cat([bigger[k], bigger[k]], axis)
            given = pytree.tree_unflatten(bigger, spec)
            try:
                module(*given[0], **given[1])
            except REFUSALS:
                continue
            return given
    return None


def open_dimensions(module: torch.nn.Module, args: tuple, kwargs: dict) -> dict:
    """dynamic_shapes that leave to torch.export which dimensions may vary."""
    return pytree.tree_map(lambda leaf: {k: Dim.AUTO for k in range(leaf.dim())} if isinstance(leaf, torch.Tensor) else None,
                           _bound(module, args, kwargs))


def capture(module: torch.nn.Module, args: tuple, kwargs: dict, dynamic_shapes, leaves: Sequence[Leaf] = ()):
    """The module as torch.export sees it in eval mode, with these modules in it kept whole. Raises UnsupportedModelError with torch's own reason."""
    try:
        with evaluating(module), standing_in(leaves), batches_left_open(module), KeepRecurrent(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of attributes that torch's own recurrent layers set while they run
            return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic_shapes or None, strict=False)
    except FastRNNError:
        raise
    except Exception as error:  # whatever the module, or torch while it traces it, raises
        reason = str(error).strip().splitlines() or [""]
        raise UnsupportedModelError(f"{type(module).__name__}: torch.export cannot capture it: {type(error).__name__}: {' '.join(reason[:4])}") from error


def _bound(module: torch.nn.Module, args: tuple, kwargs: dict) -> dict:
    """The arguments by the names that forward gives them."""
    try:
        return dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
    except TypeError as error:
        raise UnsupportedModelError(f"{type(module).__name__}: example_inputs do not fit its forward: {error}") from error


def given_names(module: torch.nn.Module, args: tuple, kwargs: dict, dynamic_shapes, program) -> dict[str, str]:
    """Names that dynamic_shapes gives to torch's symbols."""
    names: dict[str, str] = {}
    bound = _bound(module, args, kwargs)
    shapes = dynamic_shapes if isinstance(dynamic_shapes, Mapping) else dict(zip(bound, dynamic_shapes or ()))
    found = list(_leaves(bound, shapes))
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in program.graph_signature.user_inputs]
    for (_, spec), node in zip(found, nodes):
        fake = node.meta.get("val")
        if isinstance(fake, torch.Tensor):
            each = spec.items() if isinstance(spec, Mapping) else enumerate(spec) if isinstance(spec, (tuple, list)) else ()
            for axis, dim in each:
                if isinstance(dim, Dim) and not isinstance(fake.shape[axis], int):
                    names.setdefault(str(fake.shape[axis]), dim.__name__)
    return names


def _leaves(value, shapes):
    """(leaf, what dynamic_shapes says of it) in torch's order."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, shapes.get(key) if isinstance(shapes, Mapping) else None)
    elif isinstance(value, (tuple, list)):
        for k, part in enumerate(value):
            yield from _leaves(part, shapes[k] if isinstance(shapes, (tuple, list)) and k < len(shapes) else None)
    else:
        yield value, shapes
