"""Part of converting: the module and its model on the same inputs, the example's and drawn ones of its sizes and of others."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.utils import _pytree as pytree

from fastrnn.converters.samples import index_ranges
from fastrnn.converters.torch_export.drawn import drawn
from fastrnn.converters.torch_export.site import ASSUMED
from fastrnn.converters.torch_export.subject import REFUSALS, Subject
from fastrnn.converters.verify import Difference, compare
from fastrnn.errors import ConversionError, FastRNNError, ShapeError
from fastrnn.model import Model
from fastrnn.model.recurrent import RECURRENT, input_of
from fastrnn.runtime.session import Session, compile

# Of an output's largest entry. Float32 rounding through a deep network, or one that divides by small numbers, reaches a few 1e-5; a gate, mask
# or axis that is read wrongly is off by 1e-2 and more.
TOLERANCE = 1e-4
ILL_CONDITIONED = 4.0  # times torch's own distance from float64: as far off may a model be where that is more than the tolerance
DRAWS = 2  # at the example's sizes


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().resolve_conj().resolve_neg().numpy()


def tensors(tree) -> list[torch.Tensor]:
    """The tensors of nested inputs or outputs, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def check_at(module: Callable, model: Model, sizes: Mapping[str, int], ranges: Mapping[str, int | str], tolerance: float = TOLERANCE) -> None:
    """The same on drawn inputs, where sizes says all dimensions; ranges: of indices, by input. module takes them in the model's order."""
    if any(isinstance(d, str) and d not in sizes for v in model.inputs for d in v.shape):
        return
    random = torch.Generator().manual_seed(0)
    shapes = [[sizes[d] if isinstance(d, str) else d for d in v.shape] for v in model.inputs]
    args = tuple(
        torch.randn(s, generator=random) / 2 if v.dtype == "float32" else torch.randint(0, ranges.get(v.name, 2), s, generator=random)
        for v, s in zip(model.inputs, shapes)
    )
    with torch.no_grad():
        wanted = module(*args)
    _Comparison(compile(model), None, tolerance).outputs(tensors(wanted), args, {}, "drawn inputs")


class SizeOneDiffersError(Exception):
    """With these open dimensions of 1 the module computes something else: torch.export does not look at those."""

    def __init__(self, dims: Collection[str]):
        super().__init__(", ".join(dims))
        self.dims = frozenset(dims)


class ShortRowsDifferError(Exception):
    """Where all rows end before the last step the module computes something else: torch cuts what it pads at the longest row."""


def check(subject: Subject, model: Model, args: tuple, kwargs: dict, tolerance: float, least: Collection[str] = ()) -> None:
    """Raises SizeOneDiffersError where open dimensions must be at least 2, unless least names them, ShortRowsDifferError where one row must reach the last step, and
    ConversionError
    naming the output that differs by more than tolerance times its largest entry, and by how much.

    Compared on the example, on values that are drawn anew for every input, and, where dimensions are free, with all of them 1, with each of them 1,
    and with each of them longer; lengths of rows are drawn as well. Inputs that the module itself does not take are passed over. Where torch in
    float32 is itself further from float64 than the tolerance, a model that is about as far is let pass, with a warning.
    """
    sizes: dict[str, int] = {}
    for value, tensor in zip(model.inputs, tensors((args, kwargs)), strict=True):
        sizes |= {d: n for d, n in zip(value.shape, tensor.shape) if isinstance(d, str)}
    trial = _Comparison(compile(model), subject, tolerance)
    trial.run(args, kwargs, "the example")
    whole = {d for d in sizes if d.isidentifier()}
    _ones(trial, args, kwargs, sizes, sorted(whole - set(least)))
    for seed in range(DRAWS):
        trial.try_one_of(
            _variants(model, args, kwargs, sizes, seed),
            "drawn values" if not index_ranges(model, lengths_only=True) else "drawn values, rows of other lengths",
        )
    _short_rows(trial, args, kwargs, sizes)
    if whole:
        changes = (lambda n, k: n + 1 + k, lambda n, k: 2 * n + k, lambda n, k: max(2, n - 1), lambda n, k: n + 1, lambda n, k: 2 * n)
        for change in changes:  # each by another amount where the module takes that
            bigger = sizes | {d: change(sizes[d], k) for k, d in enumerate(sorted(whole))}
            case = ", ".join(f"{d} = {bigger[d]}" for d in sorted(whole))
            if trial.try_one_of(_variants(model, args, kwargs, bigger, DRAWS), case):
                break
    trial.warn()


def _variants(model: Model, args: tuple, kwargs: dict, sizes: Mapping[str, int], seed: int) -> Iterator[tuple[tuple, dict]]:
    """Drawn inputs; where rows have lengths also falling ones, for modules that take no others."""
    for order in ("any", "falling") if index_ranges(model, lengths_only=True) else ("any",):
        yield drawn(model, args, kwargs, sizes, seed, order)


def _ones(trial: _Comparison, args: tuple, kwargs: dict, sizes: Mapping[str, int], free: list[str]) -> None:
    """Raises SizeOneDiffersError where the model may not be used with one row or one step: where the module can, it gives something else."""
    model = trial.session.model

    def differs(dims) -> bool:
        try:
            trial.try_one_of(_variants(model, args, kwargs, {**sizes, **dict.fromkeys(dims, 1)}, DRAWS), "open dimensions of 1")
        except (ConversionError, ShapeError):
            return True
        return False

    if found := [d for d in free if differs([d])]:
        raise SizeOneDiffersError(found)
    if len(free) > 1 and differs(free):
        raise SizeOneDiffersError(free)


def _short_rows(trial: _Comparison, args: tuple, kwargs: dict, sizes: Mapping[str, int]) -> None:
    """Raises ShortRowsDifferError where the model, which goes on to the last step, gives something else than the module, or its outputs have other shapes but for that."""
    model = trial.session.model
    if index_ranges(model, lengths_only=True):
        larger = {d: max(n, 3) for d, n in sizes.items()}
        for order in ("any", "falling", "same"):  # any row may be the one that is looked at
            try:
                trial.try_one_of(iter([drawn(model, args, kwargs, larger, DRAWS, order, short=True)]), "rows that all end before the last step")
            except (ConversionError, ShapeError):
                raise ShortRowsDifferError from None


@dataclass
class _Comparison:
    """session: of the model. subject: None where outputs are given. ill: differences that torch's own rounding explains. scales: the largest entry
    of each output in any case; in one case an output of few entries may be next to 0."""

    session: Session
    subject: Subject | None
    tolerance: float
    ill: list[tuple[Difference, str]] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)

    def run(self, args: tuple, kwargs: dict, case: str) -> None:
        """Compares on these inputs."""
        self.outputs(tensors(self.subject(*args, **kwargs)), args, kwargs, case)

    def try_one_of(self, variants: Iterator[tuple[tuple, dict]], case: str) -> bool:
        """Compares on the first of these that both the module and the model take; whether there was one."""
        for args, kwargs in variants:
            try:
                wanted = tensors(self.subject(*args, **kwargs))
            except REFUSALS:
                continue
            try:
                self.outputs(wanted, args, kwargs, case)
            except ConversionError as error:
                if ASSUMED in str(error):
                    continue  # refused by the model, as it should be
                raise
            return True
        return False

    def outputs(self, wanted: list[torch.Tensor], args: tuple, kwargs: dict, case: str) -> None:
        """Raises ConversionError where the model gives something else than this."""
        model = self.session.model
        if len(wanted) != len(model.output_names):
            raise ConversionError(f"the module gives {len(wanted)} outputs on {case}, the model {len(model.output_names)}")
        given = {name: _array(tensor) for name, tensor in zip(model.input_names, tensors((args, kwargs)), strict=True)}
        try:
            got = self.session.run(given)
        except FastRNNError as error:
            raise ConversionError(f"the model does not run on {case}, where the module does: {error}") from error
        named = {name: _array(tensor) for name, tensor in zip(model.output_names, wanted, strict=True)}
        if any(node.op in RECURRENT and input_of(node, "sequence_lens") for node in model.nodes):
            got = {name: _cut(got[name], want) for name, want in named.items()}
        try:
            differences = compare(case, named, got, self.tolerance)
        except ShapeError as error:
            raise ConversionError(f"the model gives other shapes than the module on {error}") from error
        self.scales |= {found.output: max(found.scale, self.scales.get(found.output, 0.0)) for found in differences}
        if wrong := [found for found in differences if not found.within]:
            self._judge(wrong, named, got, args, kwargs, case)

    def _judge(self, wrong: list[Difference], named: Mapping, got: Mapping, args: tuple, kwargs: dict, case: str) -> None:
        """Raises ConversionError unless both are about as far from float64."""
        exact = self._exactly(named, args, kwargs)
        for found in wrong:
            text = (
                f"output {found.output!r} differs from the module's on {case} by {found.error:.3g}, its largest entry being {found.scale:.3g}: "
                f"{found.relative:.3g} of it, more than {self.tolerance:g}"
            )
            if exact is None:
                raise ConversionError(text)
            theirs, ours = (
                compare(case, {found.output: exact[found.output]}, {found.output: side[found.output]}, self.tolerance)[0].relative
                for side in (named, got)
            )
            text += f"; from float64 the module is off by {theirs:.3g} of it, the model by {ours:.3g}"
            if not ours <= max(self.tolerance, ILL_CONDITIONED * theirs):
                raise ConversionError(text)
            self.ill.append((found, text))

    def _exactly(self, named: Mapping, args: tuple, kwargs: dict) -> dict[str, np.ndarray] | None:
        """The module's outputs in float64; None where it does not compute in it."""
        double = None if self.subject is None else self.subject.in_double()
        try:
            exact = None if double is None else tensors(double(*args, **kwargs))
        except REFUSALS:
            return None
        if exact is None or [tuple(t.shape) for t in exact] != [a.shape for a in named.values()]:
            return None
        return {name: _array(tensor) for name, tensor in zip(named, exact)}

    def warn(self) -> None:
        """Says once where float32 alone is to blame."""
        large = [text for found, text in self.ill if found.error > self.tolerance * self.scales[found.output]]
        if large:
            warnings.warn(f"{self.subject.name}: the network is ill-conditioned: {large[0]}", stacklevel=7)


def _cut(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """As much of an output as the module gives: torch cuts what it pads at the longest row, fastrnn's is as long as the padded input."""
    return got[tuple(slice(0, n) for n in want.shape)] if got.ndim == want.ndim else got
