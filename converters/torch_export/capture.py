"""A module to an exported program: torch.export, with recurrent layers kept whole and as many dimensions left open as the module allows."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch.export import Dim
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from fastrnn.converters.torch_export.cell_leaf import Leaf, standing_in
from fastrnn.converters.torch_export.recurrent_leaf import KeepRecurrent, batches_left_open
from fastrnn.converters.torch_export.subject import REFUSALS, Subject, evaluating, separate
from fastrnn.converters.torch_export.value_leaf import SpellOut
from fastrnn.errors import DTypeError, FastRNNError, UnsupportedModelError


def arguments(example_inputs) -> tuple[tuple, dict]:
    """(args, kwargs) of a call: a tuple or list of arguments, a dict by name, a tensor alone, or a pair (args, kwargs). DTypeError for arrays of NumPy's, UnsupportedModelError for
    a packed sequence."""
    leaves = pytree.tree_leaves(example_inputs, is_leaf=lambda leaf: isinstance(leaf, PackedSequence))
    if any(isinstance(leaf, PackedSequence) for leaf in leaves):
        raise UnsupportedModelError(
            "example_inputs: a PackedSequence has no axis of rows; give padded rows and their lengths to a module whose forward packs them"
        )
    if any(isinstance(leaf, np.ndarray) for leaf in leaves):
        raise DTypeError("example_inputs must be tensors, as forward takes them, got an array of NumPy's; pass torch.from_numpy(array)")
    if isinstance(example_inputs, Mapping):
        return (), dict(example_inputs)
    if isinstance(example_inputs, (tuple, list)):
        if len(example_inputs) == 2 and isinstance(example_inputs[0], tuple) and isinstance(example_inputs[1], dict):
            return example_inputs
        return tuple(example_inputs), {}
    return (example_inputs,), {}


MOST_AXES = 6  # of size 1 in an example, of which all combinations are tried


def enlarged(subject: Subject, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    """The example with as many of its axes of 1 doubled as the module takes, since torch.export sees a constant in a 1; None where it takes none.

    An axis that inputs of one shape have in common, such as h's and c's, is doubled in all of them, or else in each by itself.
    """
    leaves, spec = pytree.tree_flatten((args, kwargs))
    axes = [(k, axis) for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) for axis, n in enumerate(leaf.shape) if n == 1]
    shared: dict[tuple, list[tuple[int, int]]] = {}
    for k, axis in axes:
        shared.setdefault((leaves[k].shape, axis), []).append((k, axis))
    tried: set[tuple] = set()
    for groups in (list(shared.values()), [[axis] for axis in axes]):
        if not axes or len(groups) > MOST_AXES:
            continue
        subsets = [subset for n in range(len(groups), 0, -1) for subset in itertools.combinations(groups, n)]
        for subset in sorted(subsets, key=lambda s: -sum(map(len, s))):
            chosen = tuple(sorted(itertools.chain(*subset)))
            if chosen not in tried:
                tried.add(chosen)
                given = pytree.tree_unflatten(_doubled(leaves, chosen), spec)
                if _takes(subject, given):
                    return given
    return None


def _doubled(leaves: list, axes: Iterable[tuple[int, int]]) -> list:
    bigger = list(leaves)
    for k, axis in axes:
        bigger[k] = torch.cat([bigger[k], bigger[k]], axis)
    return bigger


def narrowed(example: tuple[tuple, dict], original: tuple[tuple, dict], axes: Collection[tuple[int, int]]) -> tuple[tuple, dict]:
    """An enlarged example with these axes as long as they were: (which tensor, axis)."""
    leaves, spec = pytree.tree_flatten(example)
    places = [k for k, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    before = pytree.tree_leaves(original)
    for k, axis in axes:
        leaves[places[k]] = leaves[places[k]].narrow(axis, 0, before[places[k]].shape[axis])
    return pytree.tree_unflatten(leaves, spec)


def _takes(subject: Subject, given: tuple[tuple, dict]) -> bool:
    try:
        subject(*given[0], **given[1])
    except REFUSALS:
        return False
    return True


def open_dimensions(module: torch.nn.Module, args: tuple, kwargs: dict, fixed: Collection[tuple[int, int]] = ()) -> dict:
    """dynamic_shapes that leave to torch.export which dimensions may vary, but for those that are fixed: (which tensor, axis)."""
    leaves, spec = pytree.tree_flatten(_bound(module, args, kwargs))
    numbers = itertools.count()
    shapes = [_axes(leaf, next(numbers), fixed) if isinstance(leaf, torch.Tensor) else None for leaf in leaves]
    return pytree.tree_unflatten(shapes, spec)


def _axes(leaf: torch.Tensor, k: int, fixed: Collection[tuple[int, int]]) -> dict:
    return {axis: Dim.STATIC if (k, axis) in fixed else Dim.AUTO for axis in range(leaf.dim())}


def axes_of(program, symbols: Collection[str]) -> set[tuple[int, int]]:
    """Where sizes of these names stand among the program's inputs: (which tensor, axis)."""
    nodes = [n for n in program.graph.nodes if n.op == "placeholder" and n.name in program.graph_signature.user_inputs]
    fakes = [fake for n in nodes if isinstance(fake := n.meta.get("val"), torch.Tensor)]
    return {
        (k, axis)
        for k, fake in enumerate(fakes)
        for axis, d in enumerate(fake.shape)
        if isinstance(d, torch.SymInt) and {str(s) for s in d.node.expr.free_symbols} & set(symbols)
    }


class _Others:
    """A stream for the writes of other threads than this one."""

    def __init__(self, stream):
        self._stream, self._me = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._me else self._stream.write(text)

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextmanager
def quiet() -> Iterator[None]:
    """torch logs its choices, and prints a whole program when it refuses one; what matters is in the error. What other threads say is passed on."""
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] == "torch"]
    me, handlers = threading.get_ident(), {handler for logger in (logging.root, *loggers) for handler in logger.handlers}

    def passes(record: logging.LogRecord) -> bool:
        return record.thread != me or not record.name.startswith("torch")

    for handler in handlers:
        handler.addFilter(passes)
    try:
        with contextlib.redirect_stderr(_Others(sys.stderr)):
            yield
    finally:
        for handler in handlers:
            handler.removeFilter(passes)


def capture(module: torch.nn.Module, args: tuple, kwargs: dict, dynamic_shapes, leaves: Sequence[Leaf] = ()):
    """The module as torch.export sees it in eval mode, with these modules in it kept whole. Raises UnsupportedModelError with torch's own reason."""
    try:
        with evaluating(module), standing_in(leaves), batches_left_open(module), SpellOut(), KeepRecurrent(), quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of attributes that torch's own recurrent layers set while they run
            return torch.export.export(module, *separate((args, kwargs)), dynamic_shapes=dynamic_shapes or None, strict=False)
    except FastRNNError:
        raise
    except Exception as error:  # whatever the module, or torch while it traces it, raises
        if type(error).__name__ == "GuardOnDataDependentSymNode":
            raise UnsupportedModelError(
                f"{type(module).__name__}: a size or a branch depends on what is in a tensor{_callers_line(error)}; fastrnn decides both beforehand. Use "
                "torch.where or a mask, and give lengths to pack_padded_sequence as a tensor"
            ) from error
        reason = str(error).strip().splitlines() or [""]
        raise UnsupportedModelError(
            f"{type(module).__name__}: torch.export cannot capture it: {type(error).__name__}: {' '.join(reason[:4])}"
        ) from error


def _callers_line(error: Exception) -> str:
    """The innermost line of an error that is neither torch's nor fastrnn's; empty where there is none."""
    ours = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f", in {frames[-1].filename}:{frames[-1].lineno} `{frames[-1].line}`" if frames else ""


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
