"""Random graphs over arrays of every layout: kernels, views and NumPy against the float64 evaluation, and bit for bit over instruction sets."""

from collections import Counter

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.kernels import isa
from fastrnn.kernels.reference import evaluate
from fastrnn.model import Graph, Model, Node, Value
from fastrnn.model.graph import every_node
from fastrnn.plan import Plan
from fastrnn.plan.lowering.fuse import Fused


class Growth:
    """A graph that grows by random nodes; shapes: of every float value so far."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.weights = [], {}
        self.shapes = {f"x{k}": self.shape() for k in range(2)}
        self.inputs = tuple(self.shapes)

    def shape(self):
        return tuple(int(n) for n in self.random.integers(1, 5, int(self.random.integers(1, 4))))

    def pick(self, wanted=lambda shape: True):
        """A value, views of views as likely as anything."""
        names = [n for n, s in self.shapes.items() if wanted(s)]
        return str(self.random.choice(names)) if names else None

    def constant(self, array):
        name = f"w{len(self.weights)}"
        self.weights[name] = np.asarray(array)
        return name

    def floats(self, *shape):
        return self.constant(self.random.uniform(-1, 1, shape).astype(np.float32))

    def add(self, op, inputs, shapes, **attributes):
        name = f"v{len(self.nodes)}"
        outputs = [f"{name}.{k}" for k in range(len(shapes))]
        self.nodes.append(Node(op, name, tuple(inputs), tuple(outputs), attributes))
        self.shapes |= {o: tuple(s) for o, s in zip(outputs, shapes) if len(s) <= 5 and np.prod(s) < 3_000}

    def grow(self):
        """One node, if the one drawn fits."""
        kind = str(self.random.choice([name[5:] for name in dir(self) if name.startswith("make_")]))
        x = self.pick()
        getattr(self, f"make_{kind}")(x, self.shapes[x])

    def axis(self, shape):
        return int(self.random.integers(len(shape)))

    def make_transpose(self, x, shape):
        perm = [int(a) for a in self.random.permutation(len(shape))]
        self.add("Transpose", [x], [[shape[a] for a in perm]], perm=perm)

    def make_slice(self, x, shape):
        if shape:
            axis, start, end = self.axis(shape), *(int(v) for v in self.random.integers(-6, 7, 2))
            step = int(self.random.choice([-2, -1, 1, 2]))
            n = len(range(shape[axis])[start:end:step])
            if n:
                self.add("Slice", [x, *(self.constant(np.array([v])) for v in (start, end, axis, step))], [[*shape[:axis], n, *shape[axis + 1 :]]])

    def make_reshape(self, x, shape):
        target, cut = list(shape), int(self.random.integers(0, len(shape) + 1))
        target = [*target[:cut], 1, *target[cut:]] if self.random.random() < 0.4 else [int(np.prod(target[:cut])), *target[cut:]]
        self.add("Reshape", [x, self.constant(np.array(target))], [target])

    def make_squeeze(self, x, shape):
        axes = [k for k, d in enumerate(shape) if d == 1]
        if axes:
            self.add("Squeeze", [x, self.constant(np.array(axes))], [[d for d in shape if d != 1]])

    def make_expand(self, x, shape):
        target = [int(self.random.integers(1, 4)) if d == 1 else d for d in shape]
        self.add("Expand", [x, self.constant(np.array([2, *target]))], [[2, *target]])

    def make_concat(self, x, shape):
        if shape:
            axis, others = self.axis(shape), [n for n, s in self.shapes.items() if len(s) == len(shape)]
            others = [n for n in others if all(a == b for k, (a, b) in enumerate(zip(self.shapes[n], shape)) if k != axis)]
            parts = [x, *(str(n) for n in self.random.choice(others, 2))]
            self.add("Concat", parts, [[*shape[:axis], sum(self.shapes[p][axis] for p in parts), *shape[axis + 1 :]]], axis=axis)

    def make_split(self, x, shape):
        axis = self.axis(shape) if shape else 0
        if shape and shape[axis] > 1:
            first = int(self.random.integers(1, shape[axis]))
            sizes = [first, shape[axis] - first]
            self.add("Split", [x, self.constant(np.array(sizes))], [[*shape[:axis], n, *shape[axis + 1 :]] for n in sizes], axis=axis)

    def make_gather(self, x, shape):
        if shape:
            axis, many = self.axis(shape), self.random.random() < 0.7
            index = self.random.integers(-shape[axis], shape[axis], self.shape()[:2] if many else ())
            self.add("Gather", [x, self.constant(index)], [[*shape[:axis], *index.shape, *shape[axis + 1 :]]], axis=axis)

    def make_windows(self, x, shape):
        """A Gather that lays overlapping windows out."""
        axis = self.axis(shape) if shape else 0
        if shape and shape[axis] > 2:
            index = np.arange(shape[axis] - 1)[:, None] + np.arange(2)
            self.add("Gather", [x, self.constant(index)], [[*shape[:axis], *index.shape, *shape[axis + 1 :]]], axis=axis)

    def make_scatter(self, x, shape):
        if shape:
            rows = self.random.permutation(shape[0])[:2] if self.random.random() < 0.5 else np.arange(0, shape[0], 2)
            self.add("ScatterND", [x, self.constant(rows[:, None]), self.floats(len(rows), *shape[1:])], [shape])

    def make_pad(self, x, shape):
        if shape:
            axis, mode = self.axis(shape), str(self.random.choice(["constant", "edge", "reflect", "wrap"]))
            before, after = (int(v) for v in self.random.integers(0, shape[axis], 2))
            widths = np.zeros((2, len(shape)), np.int64)
            widths[:, axis] = before, after
            self.add("Pad", [x, self.constant(widths.ravel())], [[*shape[:axis], shape[axis] + before + after, *shape[axis + 1 :]]], mode=mode)

    def make_unary(self, x, shape):
        self.add(
            str(self.random.choice(["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Elu", "Identity", "Gelu", "Silu", "Erf", "Sin", "HardSigmoid"])),
            [x],
            [shape],
        )

    def make_run(self, x, shape):
        """Elementwise nodes one behind the other, with operands of other layouts, behind a product as often as not."""
        if shape and self.random.random() < 0.6:
            (self.make_conv if len(shape) == 3 else self.make_product)(x, shape)
            x = self.nodes[-1].outputs[0] if self.nodes[-1].outputs[0] in self.shapes else x
        for _ in range(int(self.random.integers(2, 7))):
            shape = self.shapes[x]
            before = len(self.nodes)
            getattr(self, str(self.random.choice(["make_unary", "make_binary", "make_between", "make_choose"])))(x, shape)
            made = self.nodes[-1].outputs[0] if len(self.nodes) > before else x
            x = made if made in self.shapes and self.shapes[made] == shape else x

    def make_between(self, x, shape):
        op = str(self.random.choice(["Clip", "Min", "Max", "PRelu", "Mean"]))
        others = [self.floats(), self.floats()] if op == "Clip" and self.random.random() < 0.8 else [self.floats(*shape[-1:])]
        self.add(op, [x, *(others if op != "Clip" or len(others) == 2 else [self.floats()])], [shape])

    def make_choose(self, x, shape):
        """One of two values where a comparison holds; what is compared are constants, far apart in every precision."""
        name, other = f"v{len(self.nodes)}", self.pick(lambda s: s == shape)
        self.nodes.append(Node("Greater", f"{name}.c", (self.floats(*shape), self.floats()), (f"{name}.c.y",)))
        self.nodes.append(Node("Not", f"{name}.n", (f"{name}.c.y",), (f"{name}.n.y",)))
        self.add("Where", [f"{name}.n.y", x, other or x], [shape])

    def make_pair(self, x, shape):
        """A product of two computed matrices, the batch of one broadcast."""
        other = self.pick(
            lambda s: len(s) > 1 and len(shape) > 1 and s[-1] == shape[-1] and all(a == b or 1 in (a, b) for a, b in zip(s[-3::-1], shape[-3::-1]))
        )
        if other:
            turned = self.shapes[other]
            perm = [*range(len(turned) - 2), len(turned) - 1, len(turned) - 2]
            self.add("Transpose", [other], [[turned[a] for a in perm]], perm=perm)
            batch = np.broadcast_shapes(shape[:-2], turned[:-2])
            self.add("MatMul", [x, self.nodes[-1].outputs[0]], [[*batch, shape[-2], turned[-2]]])

    def make_tile(self, x, shape):
        repeats = self.random.integers(1, 3, len(shape))
        self.add("Tile", [x, self.constant(repeats)], [[int(n * r) for n, r in zip(shape, repeats)]])

    def make_binary(self, x, shape):
        other = self.pick(lambda s: len(s) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(s), reversed(shape))))
        pair = [x, other if other and self.random.random() < 0.6 else self.floats(*shape[len(shape) // 2 :])]
        self.add(str(self.random.choice(["Add", "Sub", "Mul"])), pair[:: int(self.random.choice([1, -1]))], [shape])

    def make_reduce(self, x, shape):
        axes = sorted({int(a) for a in self.random.integers(0, len(shape), 2)}) if shape else []
        if axes:
            keep = int(self.random.integers(2))
            result = [1 if k in axes else d for k, d in enumerate(shape) if keep or k not in axes]
            self.add(
                str(self.random.choice(["ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ReduceSumSquare"])),
                [x, self.constant(np.array(axes))],
                [result],
                keepdims=keep,
            )

    def make_softmax(self, x, shape):
        if shape:
            self.add(str(self.random.choice(["Softmax", "LogSoftmax"])), [x], [shape], axis=self.axis(shape))

    def make_norm(self, x, shape):
        if shape and shape[-1] > 1:
            self.add("LayerNormalization", [x, self.floats(shape[-1]), self.floats(shape[-1])], [shape], epsilon=0.1)

    def make_batch_norm(self, x, shape):
        if len(shape) > 1:
            C = shape[1]
            self.add(
                "BatchNormalization",
                [x, *(self.floats(C) for _ in range(3)), self.constant(self.random.uniform(0.5, 2, C).astype(np.float32))],
                [shape],
            )

    def make_product(self, x, shape):
        if shape:
            n = int(self.random.integers(1, 20))
            self.add("MatMul", [x, self.floats(shape[-1], n)], [[*shape[:-1], n]])

    def make_conv(self, x, shape):
        if len(shape) == 3:
            groups = shape[1] if self.random.random() < 0.3 else 1
            kernel, stride, pad = int(self.random.integers(1, shape[2] + 1)), int(self.random.integers(1, 3)), int(self.random.integers(0, 2))
            units = groups * int(self.random.integers(1, 4))
            n = (shape[2] + 2 * pad - kernel) // stride + 1
            self.add(
                "Conv",
                [x, self.floats(units, shape[1] // groups, kernel), self.floats(units)],
                [[shape[0], units, n]],
                strides=[stride],
                pads=[pad, pad],
                group=groups,
            )

    def make_conv_transpose(self, x, shape):
        if len(shape) == 3:
            groups = shape[1] if self.random.random() < 0.3 else 1
            kernel, stride, dilation, pad = (int(self.random.integers(low, high)) for low, high in ((1, 6), (1, 5), (1, 4), (0, 2)))
            units, n = int(self.random.integers(1, 4)), (shape[2] - 1) * stride - 2 * pad + (kernel - 1) * dilation + 1
            if n > 0:
                self.add(
                    "ConvTranspose",
                    [x, self.floats(shape[1], units, kernel), self.floats(units * groups)],
                    [[shape[0], units * groups, n]],
                    strides=[stride],
                    dilations=[dilation],
                    pads=[pad, pad],
                    group=groups,
                )

    def make_rnn(self, x, shape):
        if len(shape) == 3:
            self.add(
                "RNN",
                [x, self.floats(2, 3, shape[2]), self.floats(2, 3, 3)],
                [[shape[0], 2, shape[1], 3], [2, shape[1], 3]],
                direction="bidirectional",
            )

    def make_choice(self, x, shape):
        """An If that data decides: each branch one elementwise op of a value from around it."""
        name = f"v{len(self.nodes)}"
        branches = {
            key: Graph((Node(op, f"{name}.{op}", (x,), (f"{name}.{op}.y",)),), (f"{name}.{op}.y",))
            for key, op in (("then_branch", "Neg"), ("else_branch", "Tanh"))
        }
        self.add("If", ["flag"], [shape], **branches)

    def model(self):
        produced = [o for n in self.nodes for o in n.outputs if o in self.shapes] or list(self.inputs)
        outputs = [str(o) for o in self.random.permutation(produced)[:4]]
        if self.random.random() < 0.3:
            outputs.append(str(self.random.choice([*self.inputs, *self.weights])))
        inputs = [Value(n, "float32", self.shapes[n]) for n in self.inputs] + [Value("flag", "bool", ())]
        return Model(tuple(inputs), tuple(dict.fromkeys(outputs)), tuple(self.nodes), self.weights)


def draw(seed):
    """A model and inputs for it."""
    growth = Growth(seed)
    for _ in range(int(growth.random.integers(3, 14))):
        growth.grow()
    inputs = {n: growth.random.standard_normal(growth.shapes[n]).astype(np.float32) for n in growth.inputs}
    return growth.model(), inputs | {"flag": np.array(growth.random.random() < 0.5)}


@pytest.mark.parametrize("block", range(10))
def test_random_graphs(block, monkeypatch):
    """Each at once in every way: native against float64, NumPy against float64, the same bits again, on every instruction set, and unfused."""
    fused, whole = Counter(), Plan.fused

    def counting(plan, model):
        result = whole(plan, model)
        fused.update(("behind a product" if node.head else "chain") for node, _ in every_node(result.nodes) if isinstance(node, Fused))
        return result

    for seed in range(block * 60, block * 60 + 60):
        model, inputs = draw(seed)
        wanted, bits = evaluate(model, inputs), []
        ways = [
            ("reference", isa.chosen(), counting),
            *(("native", name, counting) for name in isa.supported()),
            ("native", isa.chosen(), lambda plan, model: model),
        ]
        for backend, name, way in ways:
            monkeypatch.setenv("FASTRNN_ISA", name)
            monkeypatch.setattr(Plan, "fused", way)
            session = fr.compile(model, backend=backend)
            got, again = session.run(inputs), session.run(inputs)
            for key, want in wanted.items():
                np.testing.assert_allclose(
                    got[key], want, rtol=2e-5, atol=2e-5 * max(1, np.abs(want).max(initial=0)), err_msg=f"seed {seed}, {backend}\n{model.graph}"
                )
                assert got[key].tobytes() == again[key].tobytes()
            if backend == "native":
                text = session.explain()
                assert "NumPy" not in text, f"seed {seed}\n{text}"
                bits.append([a.tobytes() for a in got.values()])
        assert all(b == bits[0] for b in bits), seed
    assert fused["chain"] > 20 and fused["behind a product"]
