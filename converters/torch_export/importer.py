"""The nodes of an exported program, one by one (ops/), to nodes of fastrnn's graph."""

from __future__ import annotations

import operator

import numpy as np
import torch

from fastrnn.converters.torch_export import ops  # noqa: F401  (fills the registry)
from fastrnn.converters.torch_export.ops.complex import apart, complex_value, convert
from fastrnn.converters.torch_export.registry import CONVERTERS, Complex, Size, Tensor, bind, settled
from fastrnn.converters.torch_export.site import Site, dtype_name
from fastrnn.errors import DTypeError, FastRNNError, InvalidModelError, UnsupportedModelError
from fastrnn.model import Value
from fastrnn.model.builder import GraphBuilder
from fastrnn.model.infer import MALFORMED
from fastrnn.model.ops import COMPLEX, DTYPES

CHECKS = (
    "aten._assert_tensor_metadata.default",
    "aten._assert_scalar.default",
    "aten._assert_async.msg",
    "aten.sym_constrain_range.default",
    "aten.sym_constrain_range_for_size.default",
    "aten.sym_constrain_range",
    "aten._assert_async.default",
)  # of shapes, which fastrnn checks itself
UNKNOWN = "this operator is not supported"
MAX_FOLDED = 1 << 24  # elements of a value that is computed at conversion because only constants make it
GROWING = ("aten.expand.default", "aten.repeat.default")  # not computed at conversion: small where they are read
ARITHMETIC = {operator.add: "Add", operator.sub: "Sub", operator.mul: "Mul", torch.sym_max: "Max", torch.sym_min: "Min", operator.mod: "Mod",
              operator.floordiv: "Div"}  # fmt: skip


class GraphImporter:
    """The graph that grows: build has nodes and weights; zeros, the names of values that are all zeros. from_file: whether the program comes from
    a file, which may be damaged. longest: whether rows that are padded again must reach the last step."""

    def __init__(self, live, from_file: bool = False, longest: bool = False):
        self.from_file, self.longest = from_file, longest
        self.live = live  # fx nodes that an output follows from
        self.build, self.zeros = GraphBuilder(), set()
        self.values: dict[object, object] = {}  # by fx node: Tensor, Size, number, or a list of them
        self.tensors: dict[str, torch.Tensor] = {}  # what torch has for a constant
        self._taken: set[str] = set()
        self._constants: dict[tuple, str] = {}

    def unique(self, name: str) -> str:
        """A name that no value has."""
        result, k = name, 0
        while result in self._taken:
            k += 1
            result = f"{name}_{k}"
        self._taken.add(result)
        return result

    def constant(self, array: np.ndarray) -> str:
        """A small constant, made once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.unique("constant")
            self.build.weights[self._constants[key]] = array
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A constant int64 (n,)."""
        return self.constant(np.array(values, np.int64))

    def node(self, op: str, *inputs: str) -> str:
        """Adds a node that belongs to no operator of the program; returns the name of its result."""
        name = self.unique(f"sizes.{op}")
        self.build.add(op, name, inputs, [name])
        return name

    def weight(self, name: str, tensor: torch.Tensor, where: str) -> Tensor | Complex:
        """A parameter, a buffer, or what is computed from them alone."""
        if tensor.is_complex() and not tensor.is_sparse:
            return Complex(*(self.weight(f"{name}.{part}", getattr(tensor.resolve_conj(), part), where) for part in ("real", "imag")))
        dtype = dtype_name(tensor.dtype)
        if dtype not in DTYPES:
            raise DTypeError(
                f"{where} is {dtype}, which is not supported; supported are {', '.join(DTYPES)}"
                + ("; convert the module with .float()" if dtype in ("float16", "bfloat16") else "")
            )
        if tensor.is_meta or tensor.is_sparse or tensor.is_quantized:
            raise UnsupportedModelError(f"{where} is a meta, sparse or quantized tensor; from_torch needs dense values")
        name = self.unique(name)
        self.build.weights[name] = np.array(tensor.detach().cpu().numpy(), order="C")
        self.tensors[name] = tensor
        return Tensor(name, tuple(tensor.shape), dtype, tensor)

    def read(self, argument):
        """An argument of an fx node, with values in the place of nodes."""
        return torch.fx.node.map_aggregate(argument, lambda a: self.values[a] if isinstance(a, torch.fx.Node) else a)

    def run(self, node) -> None:
        """One fx node that calls a function."""
        value = node.meta.get("val")
        if isinstance(value, (int, float)):
            self.values[node] = value
            return
        if node.target is operator.getitem:
            self.values[node] = self._item(node)
            return
        if isinstance(value, torch.SymInt) and value.node.expr.is_number:
            self.values[node] = int(value)
            return
        if isinstance(value, (torch.SymInt, torch.SymFloat, torch.SymBool)):
            self.values[node] = self._size(node, value)
            return
        if str(node.target) in CHECKS:
            return
        try:
            folded = self._folded(node)
            self.values[node] = self._converted(node) if folded is None else folded
        except MALFORMED as error:
            if isinstance(error, FastRNNError):
                raise
            site, text = Site(self, node), f"{type(error).__name__}: {error}"
            if self.from_file:  # sizes that a damaged program gives its tensors
                raise InvalidModelError(f"{site.where}: {text}") from error
            raise site.refuse(f"not with these arguments ({text})", *site.open_sizes) from error

    def _item(self, node):
        source, k = node.args
        part = self.values[source][k]
        if part is None:
            raise Site(self, source).refuse(f"result {k} is not supported")
        return part

    def _size(self, node, value):
        """Arithmetic on shapes."""
        site, given = Site(self, node), [a.re if isinstance(a, Complex) else a for a in self.read(node.args)]
        if str(node.target) == "aten.sym_size.int":
            return site.size(*given)
        if str(node.target) in CONVERTERS:
            return CONVERTERS[str(node.target)](site)
        if node.target not in ARITHMETIC or not isinstance(value, torch.SymInt):
            raise site.refuse("a number made of shapes in this way is not supported", *site.open_sizes)
        a, b = (v.name if isinstance(v, Size) else site.ints(v) for v in given)
        if node.target is operator.floordiv:
            a = site.emit("Sub", a, site.emit("Mod", a, b))
        return Size(site.emit(ARITHMETIC[node.target], a, b))

    def _folded(self, node):
        """What only constants make, computed here by torch: parametrised weights among them."""
        given = [a for a in torch.utils._pytree.tree_leaves((node.args, node.kwargs)) if isinstance(a, torch.fx.Node)]
        tensors = {a: self._constant_of(self.values[a]) for a in given}
        outputs = node.meta.get("val")
        if not given or str(node.target) in GROWING or not isinstance(outputs, torch.Tensor) or not isinstance(node.target, torch._ops.OpOverload):
            return None
        if any(t is None for t in tensors.values()) or any(settled(d) is None for d in outputs.shape):
            return None
        if outputs.numel() > MAX_FOLDED or torch.Tag.nondeterministic_seeded in node.target.tags:
            return None
        args, kwargs = torch.fx.node.map_aggregate((node.args, node.kwargs), lambda a: tensors[a] if isinstance(a, torch.fx.Node) else a)
        with torch.no_grad():
            return self.weight(node.name, node.target(*args, **kwargs), Site(self, node).where)

    def _constant_of(self, value) -> torch.Tensor | None:
        """What torch has for a value that is constant."""
        if isinstance(value, Complex):
            re, im = (self._constant_of(part) for part in (value.re, value.im))
            return None if re is None or im is None else torch.complex(re, im)
        return self.tensors.get(value.name) if isinstance(value, Tensor) else None

    def _converted(self, node):
        """An operator by its converter."""
        site = Site(self, node)
        values = node.meta.get("val")
        complex_ = any(isinstance(self.values.get(n), Complex) for n in node.all_input_nodes)
        for value in values if isinstance(values, (list, tuple)) else [values]:
            if isinstance(value, torch.Tensor) and dtype_name(value.dtype) in COMPLEX.values():
                complex_ = True
            elif isinstance(value, torch.Tensor) and dtype_name(value.dtype) not in DTYPES:
                raise DTypeError(f"{site.where}: its result is {dtype_name(value.dtype)}, which is not supported; supported are {', '.join(DTYPES)}")
        if complex_:
            names = convert(site, self.read(node.args), self.read(node.kwargs))
            return [self.described(*pair) for pair in zip(names, values)] if isinstance(names, list) else self.described(names, values)
        if torch.Tag.nondeterministic_seeded in node.target.tags and site.target not in CONVERTERS:
            raise site.refuse("it draws random numbers")
        if site.target not in CONVERTERS:
            raise site.refuse(UNKNOWN)
        arguments, left = bind(CONVERTERS[site.target], node.target._schema, self.read(node.args), self.read(node.kwargs))
        if left:
            raise site.refuse(f"{', '.join(left)} is not supported")
        names = CONVERTERS[site.target](site, **arguments)
        if isinstance(names, list):
            return [None if name is None else self.described(name, value) for name, value in zip(names, values)]
        return self.described(names, values)

    @staticmethod
    def described(name: str | tuple[str, str], fake: torch.Tensor) -> Tensor | Complex:
        """A value by its name, with what torch knows of it; by two names one of complex numbers."""
        if isinstance(name, tuple):
            return complex_value(name, fake)
        return Tensor(name, tuple(map(settled, fake.shape)), dtype_name(fake.dtype), fake)

    def input(self, node) -> Value:
        """An input of the model. Dimensions have torch's symbols for names until all is known."""
        fake = node.meta["val"]
        if not isinstance(fake, torch.Tensor):
            raise UnsupportedModelError(f"input {node.name!r} is {type(fake).__name__}, not a tensor: fix it in the module, or pass it as a tensor")
        if dtype_name(fake.dtype) not in (known := (*DTYPES, *COMPLEX.values())):
            raise DTypeError(f"input {node.name!r} is {dtype_name(fake.dtype)}, which is not supported; supported are {', '.join(known)}")
        value = self.described(self.unique(node.name), fake)
        self.values[node] = self.described(apart(self, value), fake) if fake.is_complex() else value
        return Value(value.name, value.dtype, tuple(str(d) if n is None else n for d, n in zip(fake.shape, value.shape)))
