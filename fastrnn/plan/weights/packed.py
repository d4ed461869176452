"""A node's weights in the layout of the kernel that runs it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fastrnn.kernels.contract import Kernel, Key
from fastrnn.model import Node
from fastrnn.model.absent import Absent
from fastrnn.model.ops.linear import taps_of, window_of
from fastrnn.model.recurrent import RECURRENT, WEIGHT_INPUTS, RecurrentNode
from fastrnn.model.small import PRECISION_OF, PRECISIONS, restored
from fastrnn.plan import policy
from fastrnn.plan.lowering.memory import View, weight_view
from fastrnn.plan.weights.panels import joined, pack_bytes, pack_dense, pack_recurrent, panel, vectors

OF_BYTES = ("MatMulInteger", "ConvInteger")
LEAST_CHANNELS = 16  # of a convolution in squares: below, turning them costs what it saves
TURN = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


@dataclass(frozen=True)
class Packed:
    """A kernel for a node or one of its directions; its weights in that kernel's layout; why it was chosen.

    groups: whose panels stand one behind the other. sources: the arrays that it was packed from, see sources_of. multiplies: of one row, at one time step. precision: of the weights. far: whether they lie as what comes from beyond L2
    (policy.far). places: where the arrays will
    lie, of weights that are packed while a program runs (met.py): the arrays are then of that form, and hold nothing.
    """

    kernel: Kernel | None
    why: str
    arrays: Mapping[str, np.ndarray]
    units: int = 0
    sources: tuple[np.ndarray | None, ...] = ()
    groups: int = 1
    multiplies: int = 0
    places: Mapping[str, View] | None = None
    precision: str = "float32"
    far: bool = False

    @property
    def weights_code(self) -> int:
        """The contract's `weights`."""
        return PRECISIONS.index(self.precision)

    @property
    def views(self) -> dict[str, View]:
        """The contract's weight fields."""
        return {name: weight_view(a) for name, a in self.arrays.items()} if self.places is None else dict(self.places)

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights that a call reads."""
        return sum(a.nbytes for a in self.arrays.values())


def sources_of(node: Node, weights: Mapping[str, np.ndarray]) -> tuple[np.ndarray | None, ...]:
    """The arrays that a node is packed from, None for those that are not constant: weights, not states or what is multiplied."""
    return tuple(weights.get(node.input(k)) for k in weight_positions(node))


def weight_positions(node: Node) -> Sequence[int]:
    """The inputs that a node is packed from."""
    if node.op in OF_BYTES:
        return (1, 3, 4)  # and its zero points and a bias; x's own zero point may be computed
    return WEIGHT_INPUTS if node.op in RECURRENT else range(1, len(node.inputs))


def pack(node: Node, weights: Mapping[str, np.ndarray], backend: str, in_squares: bool = False) -> list[Packed]:
    """The packed directions of a recurrent node, phases of a ConvTranspose with strides, or the one of a Gemm or convolution. in_squares: convolutions may be computed
    four neighbouring outputs at a time."""
    sources = sources_of(node, weights)
    if any(isinstance(a, Absent) for a in sources):
        raise AssertionError(f"node {node.name!r}: the numbers of its weights were given up")
    if node.op in RECURRENT:
        return _recurrent(node, weights, backend, sources)
    if node.op in OF_BYTES:
        return [_of_bytes(node, sources, backend)]
    w, bias, scale = [*sources, None, None][:3]
    if in_squares and takes_squares(node, w):
        return [_in_squares(w, bias, sources, backend)]
    single = node.op != "Gemm" and depthwise(node, w.shape)
    # a depthwise convolution's few weights are widened: its time is not theirs
    w = restored(w) if single else w
    precision = PRECISION_OF[str(w.dtype)]
    choice = policy.pick(Key("depthwise") if single else Key("dense", dtype=precision), backend)
    if choice.kernel is None:
        return [Packed(None, choice.why, {}, 0, sources)]
    if node.op == "Gemm":
        w, bias = gemm_matrix(node, (w, bias))
        kinds = [[w]]
    else:
        kinds = [[np.concatenate(conv_matrices(node, w))]] if single else _phases(node, w)
    return [_joined(choice, matrices, bias, scale, sources, precision) for matrices in kinds]


def _of_bytes(node: Node, sources, backend: str) -> Packed:
    """A product of bytes: the groups' panels one behind the other."""
    choice, (w, zeros, bias) = policy.pick(Key("integer_product", dtype="int8"), backend), sources
    if choice.kernel is None:
        return Packed(None, choice.why, {}, 0, sources)
    matrices = [w.T] if node.op == "MatMulInteger" else conv_matrices(node, w)
    units = sum(len(m) for m in matrices)
    zeros = np.broadcast_to(np.zeros(1, w.dtype) if zeros is None else zeros.reshape(-1), units)
    biases = [None] * len(matrices) if bias is None else np.split(bias.reshape(-1), len(matrices))
    parts = [pack_bytes(m, z, b, choice.kernel.lanes) for m, z, b in zip(matrices, np.split(zeros, len(matrices)), biases)]
    arrays = {name: joined([part[name] for part in parts]) for name in parts[0]}
    return Packed(choice.kernel, choice.why, arrays, 0, sources, len(parts), sum(m.size for m in matrices), precision="int8")


def takes_squares(node: Node, w: np.ndarray | None) -> bool:
    """Whether native/products/winograd.h can compute a convolution, and gains by it: 3 x 3 taps and steps of one, from and to a vector of channels at least."""
    if node.op != "Conv" or w is None or w.dtype != np.float32 or w.shape[2:] != (3, 3) or min(w.shape[:2]) < LEAST_CHANNELS:
        return False
    return node.get("group") == 1 and {*(node.get("strides") or ()), *(node.get("dilations") or ())} <= {1}


def _in_squares(w: np.ndarray, bias: np.ndarray | None, sources, backend: str) -> Packed:
    """U = G g G' of each pair of channels, a panel for each of its 16 places (Lavin and Gray 2015, arXiv:1509.09308, section 4.1), rounded once."""
    choice = policy.pick("winograd", backend)
    turned = np.einsum("pa,oiab,qb->pqoi", TURN, w.astype(np.float64), TURN).astype(np.float32)
    places = [panel([matrix], choice.kernel.lanes) for matrix in turned.reshape(16, *w.shape[:2])]
    arrays = {"w_x": joined(places)} if bias is None else {"w_x": joined(places), "bias": vectors([bias], choice.kernel.lanes)}
    return Packed(choice.kernel, f"{choice.why}; 3 x 3 taps, outputs in squares", arrays, 0, sources, multiplies=4 * w.shape[0] * w.shape[1])


def depthwise(node: Node, w_shape) -> bool:
    """Whether every channel of a convolution is a group, with one unit."""
    return node.get("group") > 1 and tuple(w_shape[:2]) == ((node.get("group"), 1))


def _phases(node: Node, w: np.ndarray) -> list[list[np.ndarray]]:
    """The matrices of a convolution's groups; of a ConvTranspose, for each residue of its strides."""
    if node.op == "Conv":
        return [conv_matrices(node, w)]
    window = window_of(node, w.shape[2:], (1,) * (w.ndim - 2))
    return [conv_matrices(node, w, taps) for taps in itertools.product(*(taps_of(window, k) for k in range(w.ndim - 2)))]


def _joined(choice: policy.Choice, matrices: list[np.ndarray], bias: np.ndarray | None, scale: np.ndarray | None, sources, precision: str) -> Packed:
    """Groups' panels one behind the other."""
    biases, scales = ([None] * len(matrices) if a is None else np.split(a, len(matrices)) for a in (bias, scale))
    parts = [pack_dense(w, b, choice.kernel.lanes, s) for w, b, s in zip(matrices, biases, scales)]
    return Packed(
        choice.kernel,
        choice.why,
        {name: joined([part[name] for part in parts]) for name in parts[0]},
        0,
        sources,
        len(parts),
        sum(w.size for w in matrices),
        precision=precision,
        far=policy.far(choice.kernel, 4 * max(w.size for w in matrices)),
    )


def _recurrent(node: Node, weights: Mapping[str, np.ndarray], backend: str, sources) -> list[Packed]:
    layer, result = RecurrentNode(node, weights.get), []
    for d, cell in enumerate(layer.cells):
        w = layer.weights(d)
        w = w.widened() if cell.custom else w  # what is compiled for it reads float32
        choice = policy.pick_cell(cell, backend, w.hidden_size, w.projected, w.precision)
        far = policy.far(choice.kernel, 4 * sum(a.size for a in w.w_h[: len(cell.first_gates)]))
        arrays = pack_recurrent(cell, w, choice.kernel, far) if choice.kernel else {}
        multiplies = sum(a.size for a in (*w.w_x, *w.w_h, *(() if w.w_p is None else (w.w_p,))))
        result.append(Packed(choice.kernel, choice.why, arrays, w.hidden_size, sources, multiplies=multiplies, precision=w.precision, far=far))
    return result


def gemm_matrix(node: Node, sources) -> tuple[np.ndarray, np.ndarray | None]:
    """(N, K) and (N,) of a Gemm, its factors multiplied in."""
    b, c = sources[0], sources[1] if len(sources) > 1 else None
    w = b if node.get("transB") else b.T
    w = w if node.get("alpha") == 1 else w * np.float32(node.get("alpha"))
    if c is None:
        return w, None
    c = c if node.get("beta") == 1 else c * np.float32(node.get("beta"))
    return w, np.broadcast_to(c.reshape(-1), (len(w),))


def conv_matrices(node: Node, w: np.ndarray, taps=None) -> list[np.ndarray]:
    """(M, kernel * C) for each group: what a dense layer over channels-last windows takes. Of a ConvTranspose, flipped, and of these taps."""
    groups = node.get("group")
    if node.op != "ConvTranspose":
        parts = np.split(w, groups)  # (M/g, C/g, kernel)
    else:
        flipped = np.flip(w, tuple(range(2, w.ndim)))
        for axis, chosen in enumerate(taps or ()):
            flipped = np.take(flipped, chosen, axis=2 + axis)
        parts = [p.swapaxes(0, 1) for p in np.split(flipped, groups)]
    return [np.moveaxis(p, 1, -1).reshape(len(p), math.prod(p.shape[1:])) for p in parts]
