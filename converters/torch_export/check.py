"""Part of converting: the module and its model on the same inputs, the example's and others made from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from fastrnn.converters.samples import index_ranges
from fastrnn.converters.torch_export.capture import REFUSALS
from fastrnn.converters.torch_export.guards import ASSUMED
from fastrnn.converters.verify import compare
from torch.utils import _pytree as pytree

from fastrnn.errors import ConversionError, FastRNNError, ShapeError
from fastrnn.model import Model
from fastrnn.model.recurrent import RECURRENT, input_of
from fastrnn.runtime.session import Session, compile

# Of an output's largest entry. Float32 rounding through a deep network, or one that divides by small numbers, reaches a few 1e-5; a gate, mask
# or axis that is read wrongly is off by 1e-2 and more.
TOLERANCE = 1e-4


def tensors(tree) -> list[torch.Tensor]:
    """The tensors of nested inputs or outputs, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def check_at(module: Callable, model: Model, sizes: Mapping[str, int], ranges: Mapping[str, int], tolerance: float = TOLERANCE) -> None:
    """The same on drawn inputs, where sizes says all dimensions; ranges: of indices, by input. module takes them in the model's order."""
    if any(isinstance(d, str) and d not in sizes for v in model.inputs for d in v.shape):
        return
    random = torch.Generator().manual_seed(0)
    shapes = [[sizes[d] if isinstance(d, str) else d for d in v.shape] for v in model.inputs]
    args = tuple(torch.randn(s, generator=random) / 2 if v.dtype == "float32" else torch.randint(0, ranges.get(v.name, 2), s, generator=random)
                 for v, s in zip(model.inputs, shapes))
    _compare(compile(model), module, args, {}, "drawn inputs", tolerance)


def check(module: Callable, model: Model, args: tuple, kwargs: dict, tolerance: float, least: int = 1) -> None:
    """Raises SizeOneDiffersError where open dimensions must be at least 2, unless least says so; raises ConversionError
    naming the output that differs by more than tolerance times its largest entry, and by how much.

    Compared at the example, and, where dimensions are free, with all of them 1, with each of them 1, and once with each of them longer: entries
    of the example are repeated. Sizes that the module itself does not take are passed over.
    """
    session = compile(model)
    sizes: dict[str, int] = {}
    for value, tensor in zip(model.inputs, tensors((args, kwargs)), strict=True):
        sizes |= {d: n for d, n in zip(value.shape, tensor.shape) if isinstance(d, str)}
    _compare(session, module, args, kwargs, "the example", tolerance)
    free = [d for d in sizes if d.isidentifier()]
    if free:
        ones = [dict.fromkeys(free, 1), *({d: 1} for d in (free if len(free) > 1 else ()))]  # together, and each beside the others' many
        if least == 1 and not all(_agrees_at_ones(session, module, *resized(model, args, kwargs, one), tolerance) for one in ones):
            raise SizeOneDiffersError
        for change in (lambda n: n + 1, lambda n: 2 * n, lambda n: max(2, n - 1)):
            bigger = {d: change(sizes[d]) for d in free}
            if _tried(session, module, *resized(model, args, kwargs, bigger), ", ".join(f"{d} = {n}" for d, n in bigger.items()), tolerance):
                break
    for falling in (False, True):  # the latter where the module takes them sorted only
        ragged = _ragged(model, args, kwargs, sizes, falling)
        if ragged is None or _tried(session, module, *ragged, "rows of other lengths", tolerance):
            return


def _ragged(model: Model, args: tuple, kwargs: dict, sizes: Mapping[str, int], falling: bool) -> tuple[tuple, dict] | None:
    """The example with rows of all lengths, one of them whole; None where the model takes no lengths. Those of an example are often all the same."""
    longest = {name: sizes.get(n, 0) if isinstance(n, str) else n - 1 for name, n in index_ranges(model, lengths_only=True).items()}
    if not longest:
        return None
    leaves, spec = pytree.tree_flatten((args, kwargs))
    names = iter(model.input_names)

    def drawn(tensor):
        if (T := longest.get(next(names), 0)) < 1 or tensor.dim() != 1 or not len(tensor):
            return tensor
        lengths = 1 + (torch.arange(len(tensor)) * 2 + T // 2) % T
        lengths[len(tensor) // 2] = T
        return (lengths.sort(descending=True).values if falling else lengths).to(tensor.dtype)

    return pytree.tree_unflatten([drawn(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec)


class SizeOneDiffersError(Exception):
    """With open dimensions of 1 the module computes something else: torch.export does not look at those."""


def _agrees_at_ones(session, module, args, kwargs, tolerance) -> bool:
    """Whether the model may be used with one row and one step: where the module can, it gives the same."""
    try:
        _tried(session, module, args, kwargs, "open dimensions of 1", tolerance)
    except (ConversionError, ShapeError):
        return False
    return True


def _tried(session, module, args, kwargs, case: str, tolerance) -> bool:
    """Whether module and model both take these inputs; if so, they are compared."""
    try:
        with torch.no_grad():
            wanted = module(*args, **kwargs)
    except REFUSALS:
        return False
    try:
        _compare(session, lambda *a, **k: wanted, args, kwargs, case, tolerance)
    except ConversionError as error:
        if ASSUMED in str(error):
            return False  # refused by the model, as it should be
        raise
    return True


def resized(model: Model, args: tuple, kwargs: dict, sizes: Mapping[str, int]) -> tuple[tuple, dict]:
    """The inputs with other sizes along their free axes, entries taken in turns."""
    leaves, spec = pytree.tree_flatten((args, kwargs))
    values = iter(model.inputs)

    def grown(tensor):
        for axis, dim in enumerate(next(values).shape):
            if dim in sizes:
                tensor = tensor.index_select(axis, torch.arange(sizes[dim]) % tensor.shape[axis])
        return tensor

    return pytree.tree_unflatten([grown(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], spec)


def _cut(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """As much of an output as the module gives: torch cuts what it pads at the longest row, fastrnn's is as long as the padded input."""
    return got[tuple(slice(0, n) for n in want.shape)] if got.ndim == want.ndim else got


def _compare(session: Session, module: Callable, args, kwargs, case: str, tolerance: float) -> None:
    given = {name: tensor.detach().cpu().numpy() for name, tensor in zip(session.model.input_names, tensors((args, kwargs)), strict=True)}
    with torch.no_grad():
        wanted = tensors(module(*args, **kwargs))
    if len(wanted) != len(session.model.output_names):
        raise ConversionError(f"the module gives {len(wanted)} outputs on {case}, the model {len(session.model.output_names)}")
    try:
        got = session.run(given)
    except FastRNNError as error:
        raise ConversionError(f"the model does not run on {case}, where the module does: {error}") from error
    named = {name: np.asarray(tensor.detach().cpu().numpy()) for name, tensor in zip(session.model.output_names, wanted, strict=True)}
    if any(node.op in RECURRENT and input_of(node, "sequence_lens") for node in session.model.nodes):
        got = {name: _cut(got[name], want) for name, want in named.items()}
    for found in compare(case, named, got, tolerance):
        if not found.within:
            raise ConversionError(f"output {found.output!r} differs from the module's on {case} by {found.error:.3g}, its largest entry being {found.scale:.3g}: "
                                  f"{found.relative:.3g} of it, more than {tolerance:g}")
