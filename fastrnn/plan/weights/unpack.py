"""Weights out of the panels that a plan packed them into: what a session gave up comes back where it has to travel (model/absent.py)."""

from __future__ import annotations

import numpy as np

from fastrnn.cells import Cell
from fastrnn.model.absent import Absent
from fastrnn.model.graph import every_node
from fastrnn.model.recurrent import RECURRENT, DirectionWeights, RecurrentNode
from fastrnn.plan.planner import Plan
from fastrnn.plan.weights.packed import Packed
from fastrnn.plan.weights.panels import gates_together, is_narrow


def absent_weights(plan: Plan) -> dict[str, np.ndarray]:
    """The weights that the plan's model lacks, by name, from the panels of the nodes that read them: number for number what was packed."""
    whole = {name: np.empty(a.shape, a.dtype) for name, a in plan.model.weights.items() if isinstance(a, Absent)}

    def target(name: str) -> np.ndarray:
        return whole[name] if name in whole else np.empty_like(plan.model.weights[name])  # what is there is not written to

    for node, _ in every_node(plan.model.nodes):
        if node.op in RECURRENT and node.name in plan.packed and not whole.keys().isdisjoint(node.inputs):
            layer = RecurrentNode(node, target)
            for direction, packed in enumerate(plan.packed[node.name]):
                _unpack(layer.cells[direction], packed, layer.weights(direction))
    return whole


def _unpack(cell: Cell, packed: Packed, into: DirectionWeights) -> None:
    """Fills views of one direction's weights: what packing.pack_recurrent does, backwards, but for biases, which a plan keeps."""
    arrays, lanes = packed.arrays, packed.kernel.lanes
    x, h = dict(zip(cell.x_gates, into.w_x, strict=True)), dict(zip(cell.h_gates, into.w_h, strict=True))
    for name, gates in (("w_x", list(x.values())), ("w_h", [h[g] for g in cell.first_gates]), ("w_u", [h[g] for g in cell.second_gates])):
        if gates:
            _from_panel(arrays[name], gates, lanes, gates_together(packed.kernel, len(gates), packed.far))
    if into.w_p is not None:
        _from_panel(arrays["w_p"], [into.w_p], lanes, 1)
    for k, vector in enumerate(into.parameters):
        vector[:] = arrays["peephole"][k].reshape(-1)[: len(vector)]


def _from_panel(panel: np.ndarray, gates: list[np.ndarray], lanes: int, together: int) -> None:
    """A panel's numbers to its matrices (H, K): packing.panel backwards."""
    (H, K), G = gates[0].shape, len(gates)
    if gates[0].dtype != np.float32:
        each, blocks = 2 if gates[0].dtype == np.uint16 else 4, -(-H // lanes)
        numbers = (
            panel[-(blocks * lanes * G * -(-K // each) * 4) :].view(gates[0].dtype).reshape(blocks, -1, G, lanes, each)
        )  # behind scales and sums
        for g, gate in enumerate(gates):
            gate[:] = numbers[:, :, g].transpose(0, 2, 1, 3).reshape(blocks * lanes, -1)[:H, :K]
        return
    narrow = G > 1 and is_narrow(H, lanes)
    blocks, first = H // lanes if narrow else -(-H // lanes), K * together * lanes
    whole = panel[: blocks * K * G * lanes].reshape(blocks, K * G * lanes)
    joint, apart = whole[:, :first].reshape(blocks, K, together, lanes), whole[:, first:].reshape(blocks, G - together, K, lanes)
    for g, gate in enumerate(gates):
        for block, start in enumerate(range(0, min(H, blocks * lanes), lanes)):
            gate[start : start + lanes] = (joint[block, :, g] if g < together else apart[block, g - together]).T[: H - start]
        if narrow:
            gate[blocks * lanes :] = panel[whole.size :].reshape(K, -1, lanes // 2)[:, g, : H % lanes].T
