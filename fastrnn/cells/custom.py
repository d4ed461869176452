"""Cells of one's own: the decorator that makes a Cell of a Python function, and the names under which models find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any

from fastrnn.cells.spec import MOST_GATES, MOST_STATES, Cell, Gate
from fastrnn.errors import UnsupportedModelError

_registered: dict[str, Cell] = {}  # the last of each name
_versions: dict[tuple[str, str], Cell] = {}  # every one, by name and fingerprint: what an earlier layer or model was made with
_TAKEN = ("ih", "hh", "hr")  # weight_ih_l0 and its like are torch's


def cell(
    gates: Sequence[str | Gate],
    states: Sequence[str] = ("h",),
    *,
    operand: Callable[..., Any] | None = None,
    parameters: Sequence[str] = (),
    scalars: Sequence[str] = (),
    name: str | None = None,
) -> Callable[[Callable[..., Any]], Cell]:
    """Makes a cell of the function below, which gives the new states from the gates' pre-activations and the old states.

    gates      : names, or Gate("n", sees="x", second=True, bias=False); each pre-activation is W x + R h + b over what the gate sees
    states     : names; the first is the output h. A function of several states returns as many values, in this order
    operand    : a function of first-phase gates, states and so on: what gates with second=True multiply instead of h, such as r * h
    parameters : per-unit vectors (H,), such as peepholes: weight_NAME_l0 in the state dict
    scalars    : a number for each step and row, such as the time since the step before: layer(x, NAME=array (T, B))
    name       : what models and files call it; the function's own if left out. The last cell of a name counts

    Arguments are passed by name: any of the gates, states, parameters, scalars, and "x", the layer's input itself (then I = H). The function is written with
    arithmetic, comparisons, and the functions of fastrnn.cells.maths (fr.sigmoid, fr.where, ...); it runs on NumPy arrays as its own
    reference, and is compiled by following it once with stand-ins: helpers and constants are fine, an `if` on a value is refused with its line.

        @fr.cell(gates=("z", "n"))
        def mgu(z, n, h):
            return h + fr.sigmoid(z) * (fr.tanh(n) - h)

    Raises UnsupportedModelError for a declaration that does not hold together.
    """

    def make(function: Callable[..., Any]) -> Cell:
        called = name or getattr(function, "__name__", None)
        if not isinstance(called, str):
            raise UnsupportedModelError(f"a cell's name must be text, and {function!r} has none of its own: give name=, got {name!r}")
        given = {"gates": gates, "states": states, "parameters": parameters, "scalars": scalars}
        for kind, names in given.items():
            if not isinstance(names, Iterable):
                raise UnsupportedModelError(f"cell {called!r}: {kind} must be a sequence of names, got {names!r}")
        listed: dict[str, Any] = {kind: tuple(names) for kind, names in given.items()}
        listed["gates"] = tuple(g if isinstance(g, Gate) else Gate(g) for g in listed["gates"])
        made = Cell(called, pointwise=function, operand=operand, **listed, custom=True)
        _check(made)
        fingerprint = made.fingerprint  # refuses now, where the function stands, what could not be compiled later
        _registered[made.name] = _versions[made.name, fingerprint] = made
        return made

    return make


def _check(made: Cell) -> None:
    from inspect import signature

    where, names = f"cell {made.name!r}", made.values
    bad = [n for n in names if not isinstance(n, str) or not n.isidentifier()]
    if bad or len(set(names)) < len(names):
        raise UnsupportedModelError(
            f"{where}: {bad[0]!r} is not a name" if bad else f"{where}: a name stands for two things among {', '.join(names)}"
        )
    if not 1 <= len(made.gates) <= MOST_GATES or not 1 <= len(made.states) <= MOST_STATES:
        raise UnsupportedModelError(
            f"{where}: 1 to {MOST_GATES} gates and 1 to {MOST_STATES} states are possible, got {len(made.gates)} and {len(made.states)}"
        )
    if any(p in _TAKEN for p in made.parameters):
        raise UnsupportedModelError(f"{where}: a parameter cannot be called {', '.join(_TAKEN)}")
    taken = {"self", "state", "lengths", "y", *(f"{state}{end}" for state in made.states for end in ("0", "_n"))} & set(made.scalars)
    if taken:
        raise UnsupportedModelError(f"{where}: a scalar cannot be called {', '.join(sorted(taken))}: so are other arguments and values of the layer")
    if bool(made.second_gates) != bool(made.operand):
        raise UnsupportedModelError(f"{where}: a gate with second=True and operand= belong together")
    for function in filter(None, (made.pointwise, made.operand)):
        allowed = set(names) - (set(made.second_gates) if function is made.operand else set())
        called = getattr(function, "__name__", repr(function))
        try:
            arguments = signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise UnsupportedModelError(f"{where}: {called}: its arguments cannot be told: {error}") from error
        for argument in arguments:
            if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
                raise UnsupportedModelError(f"{where}: {called}: arguments are passed by name, {str(argument)!r} cannot be")
            if argument.name not in allowed and argument.default is argument.empty:
                raise UnsupportedModelError(
                    f"{where}: {called}: no gate, state, parameter or scalar that it may read is called {argument.name!r}; "
                    f"there are {', '.join(n for n in names if n in allowed)}"
                )


def registered_cell(name: str, fingerprint: str | None = None) -> Cell | None:
    """The cell of that name: the one of that fingerprint, or the last; None where there is none."""
    return _versions.get((name, fingerprint or ""), _registered.get(name))


def imported_cell(module: str, name: str, fingerprint: str) -> Cell:
    """A cell that was pickled: the one of that name here, where needed by importing the module that defines it. UnsupportedModelError as find_cell."""
    if (name, fingerprint) not in _versions:
        try:
            import_module(module)
        except ImportError as error:
            raise UnsupportedModelError(f"cell {name!r} is defined in module {module!r}, which cannot be imported here: {error}") from error
    return find_cell(name, fingerprint)


def find_cell(name: str, fingerprint: str | None = None, where: str = "") -> Cell:
    """The cell of that name: the one of that fingerprint, or the last. UnsupportedModelError where there is none, or where it computes something else
    than when the model was made."""
    found = registered_cell(name, fingerprint)
    if found is None:
        known = f"; registered are {', '.join(sorted(_registered))}" if _registered else ""
        raise UnsupportedModelError(f"{where}cell {name!r} is not registered; import the module that defines it with @fastrnn.cell{known}")
    if fingerprint and found.fingerprint != fingerprint:
        raise UnsupportedModelError(f"{where}the registered cell {name!r} computes something else than the one this model was made with")
    return found
