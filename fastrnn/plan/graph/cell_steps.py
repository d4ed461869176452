"""One step of a recurrent cell, found in the Form of its new state: which gates it has, and the weights that ONNX's op would have.

    LSTM  c' = f c + i g, h' = o act(c')
    GRU   h' = (1 - z) n + z h, n a function of x W + r (h R + b), or of x W + (r h) R; also with z and 1 - z the other way round
    RNN   h' = act(x W + h R + b)

where each gate is a function of vectors times matrices, plus a constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fastrnn.cells import Activation
from fastrnn.cells.builtin import DEFAULT_ACTIVATIONS
from fastrnn.plan.graph.algebra import Factor, Form, Vector, matrix, row

GATES = {"LSTM": "iofc", "GRU": "zrh", "RNN": "h"}  # as ONNX stacks them


@dataclass(frozen=True, eq=False)
class CellStep:
    """gates: what each takes the activation of, by ONNX's letter. h, c: the states before (h of an LSTM: not known by itself). result, cell: names
    of the new ones. recurrent: of a GRU that resets after the matrix, what is reset. reset: of one that resets before it, the vector r h.
    """

    op: str
    gates: Mapping[str, Form]
    activations: tuple[Activation, ...]
    result: str
    h: Vector | None = None
    c: Vector | None = None
    cell: str = ""
    recurrent: Form | None = None
    reset: Vector | None = None
    negated: frozenset = field(default_factory=frozenset)

    @property
    def vectors(self) -> set[Vector]:
        """Those that its matrices are applied to."""
        found = set().union(*(gate.vectors for gate in self.gates.values()))
        return (found | (self.recurrent.vectors if self.recurrent else set())) - {self.reset}

    def attributes(self, size: int) -> dict[str, object]:
        """The op's attributes but for its direction."""
        default = DEFAULT_ACTIVATIONS[self.op.lower()]
        given = {} if tuple(self.activations) == tuple(default) else {"activations": self.activations}
        return {"hidden_size": size, **given, **({"linear_before_reset": int(self.recurrent is not None)} if self.op == "GRU" else {})}

    def weights(self, x: Vector, h: Vector, size: int, constants) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """W (1, G H, I), R (1, G H, H), B (1, 2 G H)."""
        w, r, b_x, b_h = [], [], [], []
        for letter in GATES[self.op]:
            gate, sign = self.gates[letter], np.float32(-1 if letter in self.negated else 1)
            candidate = self.op == "GRU" and letter == "h"
            w.append(sign * matrix(gate, x, size, constants))
            source, vector = (self.recurrent, h) if candidate and self.recurrent else (gate, self.reset if candidate and self.reset else h)
            r.append(sign * matrix(source, vector, size, constants))
            b_x.append(sign * row(gate, size, constants))
            b_h.append(row(source, size, constants) if source is not gate else np.zeros(size, np.float32))
        return np.concatenate(w)[None], np.concatenate(r)[None], np.concatenate([*b_x, *b_h])[None]


def _parts(factors: frozenset) -> list[Factor] | None:
    """Factors that each stand once."""
    return [factor for factor, _ in factors] if all(power == 1 for _, power in factors) else None


def _pair(form: Form) -> list[Factor] | None:
    """The two factors of a form that is their product and nothing else."""
    if form.parts or form.biases or len(form.products) != 1:
        return None
    ((factors, scale),) = form.products
    factors = _parts(factors)
    return factors if scale == 1 and factors is not None and len(factors) == 2 else None


def _gate(factor: Factor) -> Form | None:
    """What a gate takes the function of, if that is affine."""
    if factor.activation is None or any(factors for factors, _ in factor.inner.products):
        return None
    return factor.inner


def cell_of_lstm(form: Form) -> dict | None:
    """f c + i g: the gates f, i, c, the activations of gates and of the candidate, the cell before."""
    if form.parts or form.biases or len(form.products) != 2 or any(scale != 1 for _, scale in form.products):
        return None
    products = [_parts(factors) for factors, _ in form.products]
    if any(p is None or len(p) != 2 for p in products):
        return None
    for kept, new in (products, products[::-1]):
        for forget, before in (kept, kept[::-1]):
            c = before.inner.vector if before.activation is None else None
            if c is None or forget.activation is None:
                continue
            for i, g in (new, new[::-1]):
                gates = {"f": _gate(forget), "i": _gate(i), "c": _gate(g)}
                if i.activation == forget.activation and all(gate is not None for gate in gates.values()):
                    return {"gates": gates, "activations": (i.activation, g.activation), "c": c}
    return None


def step_of_lstm(form: Form, result: str, cells: Mapping[str, dict]) -> CellStep | None:
    """o act(c') for a cell that was found before."""
    factors = _pair(form)
    if factors is None:
        return None
    for o, shown in (factors, factors[::-1]):
        vector = shown.inner.vector if shown.activation is not None else None  # o c alone is what the next step's f c looks like
        cell = cells.get(vector.name) if vector is not None and vector.index is None else None
        if cell and o.activation == cell["activations"][0] and (gate := _gate(o)) is not None:
            return CellStep("LSTM", {**cell["gates"], "o": gate}, (*cell["activations"], shown.activation), result, c=cell["c"], cell=vector.name)
    return None


def step_of_gru(form: Form, result: str, made_of: Mapping[Vector, Form]) -> CellStep | None:
    """(1 - z) n + z h, or z n + (1 - z) h."""
    if form.biases or len(form.products) not in (2, 3):
        return None
    products = dict(form.products)
    for factors in products:
        pair = _parts(factors)
        for z, n in (pair, pair[::-1]) if pair and len(pair) == 2 else ():
            if _gate(z) is None or n.activation is None:
                continue
            for h in {f.inner.vector for other in products for f, _ in other if f.activation is None} - {None}:
                before = next(f for other in products for f, _ in other if f.activation is None and f.inner.vector == h)
                alone, kept, mixed = frozenset({(n, 1)}), frozenset({(z, 1), (before, 1)}), frozenset({(z, 1), (n, 1)})
                usual = not form.parts and products == {kept: 1.0, alone: 1.0, mixed: -1.0}
                turned = form.parts == before.inner.parts and products == {kept: -1.0, mixed: 1.0} and z.activation == Activation("sigmoid")
                if (usual or turned) and (step := _gru(z, n, h, result, made_of, turned)):
                    return step
    return None


def _gru(z: Factor, n: Factor, h: Vector, result: str, made_of, turned: bool) -> CellStep | None:
    gates = {"z": z.inner, "h": Form(n.inner.parts, n.inner.biases, frozenset((f, s) for f, s in n.inner.products if not f))}
    inner = [(factors, scale) for factors, scale in n.inner.products if factors]
    found: dict = {}
    if inner:
        factors = _parts(inner[0][0])
        if len(inner) != 1 or inner[0][1] != 1 or factors is None or len(factors) != 2 or h in gates["h"].vectors:
            return None
        r, recurrent = factors if factors[1].activation is None else factors[::-1]
        if recurrent.activation is not None or recurrent.inner.vectors != {h}:
            return None
        found = {"recurrent": recurrent.inner}
    else:
        products = {v: made_of[v] for v in gates["h"].vectors if v in made_of}
        candidates = [(v, f) for v, f in products.items() if f.products and (r := _reset(f, h)) is not None]
        if len(candidates) != 1 or h in gates["h"].vectors:
            return None
        found, r = {"reset": candidates[0][0]}, _reset(candidates[0][1], h)
        if candidates[0][0] in z.inner.vectors:  # z sees h itself
            return None
    if r.activation != z.activation or _gate(r) is None:
        return None
    negated = frozenset("z") if turned else frozenset()
    return CellStep("GRU", {**gates, "r": r.inner}, (z.activation, n.activation), result, h=h, negated=negated, **found)


def _reset(form: Form, h: Vector) -> Factor | None:
    """r of r h."""
    factors = _pair(form)
    if factors is None:
        return None
    for r, before in (factors, factors[::-1]):
        if r.activation is not None and before.activation is None and before.inner.vector == h:
            return r
    return None


def step_of_rnn(form: Form, result: str, h: Vector | None = None) -> CellStep | None:
    """act(x W + h R + b); h where it is known."""
    factor = form.function
    if factor is None or _gate(factor) is None or len(factor.inner.vectors) != 2 or h is not None and h not in factor.inner.vectors:
        return None
    return CellStep("RNN", {"h": factor.inner}, (factor.activation,), result, h=h)
