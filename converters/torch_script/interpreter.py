"""Follows TorchScript code: numbers, lists and branches are Python's own, tensors go through torch's operators. While torch.export traces a module, that is what it traces.

Operators: those that from_torch has a converter for, and composites of such. So nothing that reads files, and nothing with a leading underscore.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fastrnn.converters.torch_export.importer import CONVERTERS  # with all its ops
from fastrnn.converters.torch_script.archive import Archive, Instance
from fastrnn.errors import FastRNNError, InvalidModelError, UnsupportedModelError

MOST_STEPS = 1 << 18  # expressions and statements of one call
MOST_CALLS = 24  # of functions within functions
MOST_ELEMENTS = 1 << 28  # of a tensor that it makes
LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
DTYPES = {0: torch.uint8, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.int64, 5: torch.float16, 6: torch.float32, 7: torch.float64, 11: torch.bool, 15: torch.bfloat16}  # fmt: skip
# Operators beside those with converters: ones that are gone once a module is captured.
MORE = ("copy_", "fill_", "zero_", "detach", "contiguous", "to", "tensor", "zeros", "ones", "full", "empty", "zeros_like", "ones_like", "empty_like", "arange", "slice", "select", "lift_fresh",
        "clone", "alias", "type_as", "numpy_T", "unbind", "split", "chunk", "item", "new_zeros", "new_ones", "new_full", "index_put_", "__and__", "__or__", "masked_fill_", "relu_")  # fmt: skip
DENIED = ("from_file", "save", "set_", "resize_", "record_stream", "is_pinned", "pin_memory", "cuda", "data", "set_data", "retain_grad", "backward", "requires_grad_")  # fmt: skip
SCALARS: dict[str, Callable] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "floordiv": operator.floordiv, "remainder": operator.mod, "pow": operator.pow,
    "neg": operator.neg, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "__not__": operator.not_,
    "__and__": lambda a, b: a and b, "__or__": lambda a, b: a or b, "__contains__": lambda a, b: b in a, "__getitem__": lambda a, k: a[k], "len": len, "abs": abs, "min": min, "max": max,
    "__is__": operator.is_, "__isnot__": operator.is_not, "list": list, "format": lambda text, *args: str(text), "warn": lambda *args, **kwargs: None, "slice": lambda a, *k: a[slice(*k)],
    "Int": int, "Float": float, "Bool": bool, "str": str, "keys": list, "values": lambda d: list(d.values()), "floor": lambda a: int(a // 1), "copy": list, "numel": len,
}  # fmt: skip


class _Return(Exception):  # noqa: N818
    def __init__(self, value):
        self.value = value


class _Leave(Exception):  # noqa: N818
    """break, or continue."""

    def __init__(self, again: bool):
        self.again = again


class Interpreter:
    """One call of a method. attributes: (object, name) -> a value in the place of the archive's, such as a parameter of the module that stands for it; changed: told of assignments."""

    def __init__(self, archive: Archive, get: Callable[[Instance, str], Any], put: Callable[[Instance, str, Any], None]):
        self.archive, self.code, self._get, self._put = archive, archive.code, get, put
        self._steps = self._depth = 0

    def call(self, name: str, args: Sequence, kwargs: dict | None = None) -> Any:
        """A function or method by its full name."""
        function = self.code.function(name)
        names = [a.arg for a in function.args.args]
        self._depth += 1
        if self._depth > MOST_CALLS:
            raise UnsupportedModelError(f"{name}: functions call one another more than {MOST_CALLS} deep")
        try:
            if function.args.vararg or function.args.kwonlyargs or len(args) > len(names):
                raise InvalidModelError(f"{name}: it is called with {len(args)} arguments, it takes {len(names)}")
            scope = dict(zip(names, args))
            scope |= kwargs or {}
            for parameter, default in zip(reversed(names), reversed(function.args.defaults)):
                if parameter not in scope:
                    scope[parameter] = self.value(default, {})
            if missing := [n for n in names if n not in scope]:
                raise InvalidModelError(f"{name}: argument {missing[0]!r} is missing")
            self.block(function.body, scope)
        except _Return as done:
            return done.value
        except _Leave as error:
            raise InvalidModelError(f"{name}: a break outside of a loop") from error
        finally:
            self._depth -= 1
        return None

    def _step(self, node: ast.AST) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise UnsupportedModelError(
                f"{self.code.where}: its code takes more than {MOST_STEPS} steps; a loop over the time steps of a fixed example is laid out in full"
            )

    def block(self, body: Sequence[ast.stmt], scope: dict) -> None:
        """Statements in order."""
        for node in body:
            self._step(node)
            if isinstance(node, ast.Return):
                raise _Return(None if node.value is None else self.value(node.value, scope))
            if isinstance(node, ast.Assign) and len(node.targets) == 1:
                self.assign(node.targets[0], self.value(node.value, scope), scope)
            elif isinstance(node, ast.AnnAssign):
                if node.value is not None:
                    self.assign(node.target, self.value(node.value, scope), scope)
            elif isinstance(node, ast.Expr):
                self.value(node.value, scope)
            elif isinstance(node, ast.If):
                self.block(node.body if self.truth(node.test, scope) else node.orelse, scope)
            elif isinstance(node, ast.For):
                self.loop(node, self.value(node.iter, scope), scope)
            elif isinstance(node, ast.While):
                self.loop(node, None, scope)
            elif isinstance(node, (ast.Break, ast.Continue)):
                raise _Leave(isinstance(node, ast.Continue))
            elif not isinstance(node, ast.Pass):
                raise self.unsupported(node)

    def loop(self, node, items, scope: dict) -> None:
        """A for over items, or a while."""
        if items is not None and not isinstance(items, (range, list, tuple)):
            raise self.unsupported(node.iter)
        place = iter(items or ())
        while True:
            self._step(node)
            if items is None:
                if not self.truth(node.test, scope):
                    return
            else:
                try:
                    self.assign(node.target, next(place), scope)
                except StopIteration:
                    return
            try:
                self.block(node.body, scope)
            except _Leave as left:
                if not left.again:
                    return

    def truth(self, node: ast.expr, scope: dict) -> bool:
        """A condition; one that data decides is torch.export's to refuse."""
        return bool(self.value(node, scope))

    def assign(self, target: ast.expr, value, scope: dict) -> None:
        """A name, an attribute, several of them."""
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            parts = list(value)
            if len(parts) != len(target.elts):
                raise InvalidModelError(f"{self.code.where}: {len(parts)} values for {len(target.elts)} names")
            for one, part in zip(target.elts, parts):
                self.assign(one, part, scope)
        elif isinstance(target, ast.Attribute) and isinstance(owner := self.value(target.value, scope), Instance):
            self._put(owner, target.attr, value)
        else:
            raise self.unsupported(target)

    def unsupported(self, node: ast.AST) -> UnsupportedModelError:
        return UnsupportedModelError(f"{self.code.where}: {ast.unparse(node)[:200]!r} in its code is not read")

    def value(self, node: ast.expr, scope: dict) -> Any:
        """An expression."""
        self._step(node)
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            if node.id in scope:
                return scope[node.id]
            if node.id in ("inf", "nan"):
                return float(node.id)
            raise self.unsupported(node)
        if isinstance(node, ast.Tuple):
            return tuple(self.value(e, scope) for e in node.elts)
        if isinstance(node, ast.List):
            return [self.value(e, scope) for e in node.elts]
        if isinstance(node, ast.Dict):
            return {self.value(k, scope): self.value(v, scope) for k, v in zip(node.keys, node.values)}
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.value(node.operand, scope)
        if isinstance(node, ast.IfExp):
            return self.value(node.body if self.truth(node.test, scope) else node.orelse, scope)
        if isinstance(node, ast.Subscript):
            return self.value(node.value, scope)[self.value(node.slice, scope)]
        if isinstance(node, ast.Attribute):
            return self.attribute(node, scope)
        if isinstance(node, ast.Call):
            return self.function(node, scope)
        raise self.unsupported(node)

    def attribute(self, node: ast.Attribute, scope: dict) -> Any:
        if isinstance(node.value, ast.Name) and node.value.id == "CONSTANTS" and node.attr[:1] == "c" and node.attr[1:].isdigit():
            k = int(node.attr[1:])
            if k < len(self.archive.constants):
                return self.archive.constants[k]
        elif _path(node).startswith("__torch__.") and "self" not in _path(node):
            return _Function(_path(node))
        else:
            owner = self.value(node.value, scope)
            if isinstance(owner, Instance):
                return self.of(owner, node.attr)
            if isinstance(owner, _Named) and node.attr in owner.fields:
                return owner[owner.fields.index(node.attr)]
        raise self.unsupported(node)

    def of(self, owner: Instance, name: str) -> Any:
        """An attribute of an object, or a constant of its class."""
        if name in owner.attributes:
            return self._get(owner, name)
        constants = self.code.constants.get(owner.kind, {})
        if name in constants:
            return constants[name]
        raise UnsupportedModelError(f"{self.code.where}: an object of {owner.kind} has no attribute {name!r}")

    def function(self, node: ast.Call, scope: dict) -> Any:
        """A call: of a builtin, an operator, a method or a function of the archive."""
        name = _path(node.func)
        if name in ("annotate", "unchecked_cast") and len(node.args) == 2:
            return self.value(node.args[1], scope)
        if name == "uninitialized":
            return None
        args = [self.value(a, scope) for a in node.args if not isinstance(a, ast.Starred)]
        kwargs = {k.arg: self.value(k.value, scope) for k in node.keywords if k.arg}
        if len(args) < len(node.args) or len(kwargs) < len(node.keywords):
            raise self.unsupported(node)
        if name == "getattr" and len(args) == 2 and isinstance(args[0], Instance):
            return self.of(args[0], str(args[1]))
        if name in ("int", "float", "bool", "range") and len(args) <= 3 and not kwargs:
            return self.builtin(name, args)
        if name.startswith("torch."):
            return self.torch(name[6:], args, kwargs)
        if name.startswith("ops."):
            return self.special(node, name[4:], args, kwargs)
        if isinstance(node.func, ast.Attribute) and not name.startswith("__torch__."):
            owner = self.value(node.func.value, scope)
            if isinstance(owner, Instance):
                return self.call(f"{owner.kind}.{node.func.attr}", [owner, *args], kwargs)
        called = _Function(name) if name.startswith("__torch__.") else self.value(node.func, scope)
        if isinstance(called, _Function):
            if called.name in self.code.tuples:
                return _Named(args, self.code.tuples[called.name])
            return self.call(called.name, args, kwargs)
        raise self.unsupported(node)

    def builtin(self, name: str, args: list) -> Any:
        if name == "range":
            return range(*(int(a) for a in args))
        if isinstance(args[0], torch.Tensor):
            return args[0].item()
        return {"int": int, "float": float, "bool": bool}[name](args[0]) if not isinstance(args[0], (torch.SymInt, torch.SymBool)) else args[0]

    def special(self, node: ast.Call, name: str, args: list, kwargs: dict) -> Any:
        """ops.prim.X and ops.aten.X."""
        if name == "prim.RaiseException":
            raise ValueError(str(args[0]) if args else "refused by the module")
        if name == "prim.dtype":
            return args[0].dtype
        if name == "prim.device":
            return args[0].device
        if name == "prim.data":
            return args[0].detach()
        if name in ("prim.is_cuda", "prim.is_quantized", "prim.is_sparse"):
            return False
        if name in ("prim.unchecked_unwrap_optional", "prim.unchecked_cast", "prim.NumToTensor"):  # the last: numbers of a trace stay numbers
            return args[0]
        if name in ("prim.max", "prim.min") and not any(isinstance(a, torch.Tensor) for a in args):
            return SCALARS[name[5:]](*args)
        if name.startswith("aten."):
            return self.torch(name[5:], args, kwargs)
        raise self.unsupported(node)

    def torch(self, name: str, args: list, kwargs: dict) -> Any:
        """An operator of torch's: on numbers and lists by Python, on tensors by torch."""
        if name in ("__is__", "__isnot__"):
            return SCALARS[name](*args)
        if name in ("size", "dim", "len", "numel") and isinstance(args[0], torch.Tensor):
            x = args[0]
            return {"size": lambda d=None: list(x.shape) if d is None else x.shape[d], "dim": x.dim, "len": lambda: x.shape[0], "numel": x.numel}[
                name
            ](*args[1:])
        if name == "append" and isinstance(args[0], list):
            args[0].append(args[1])
            return args[0]
        if name == "device":
            return torch.device("cpu")
        if (
            name in SCALARS
            and not any(isinstance(a, torch.Tensor) for a in args)
            and not kwargs
            and name not in ("list",)
            or name in ("warn", "format", "list")
        ):
            return SCALARS[name](*args)
        if name in LAYERS:
            return getattr(torch, name)(*args, **kwargs)
        if not _allowed(name):
            raise UnsupportedModelError(f"{self.code.where}: operator {name!r} in its code is not supported")
        for key in ("dtype", "device", "layout", "pin_memory"):
            if isinstance(kwargs.get(key), int) and key == "dtype":
                kwargs[key] = DTYPES.get(kwargs[key])
            elif key in ("device", "layout", "pin_memory"):
                kwargs.pop(key, None)
        if name in ("zeros", "ones", "full", "empty", "expand", "repeat", "tile") or name.startswith("new_"):
            self._bounded(args)
        if name == "tensor":
            return torch.tensor(*args, **{k: v for k, v in kwargs.items() if k == "dtype"})
        result = getattr(torch.ops.aten, name)(*args, **kwargs)
        return list(result) if isinstance(result, list) else result

    def _bounded(self, args: list) -> None:
        sizes = next((a for a in args if isinstance(a, (list, tuple))), ())
        total = 1
        for n in sizes:
            total *= n if isinstance(n, int) else 1
        if abs(total) > MOST_ELEMENTS:
            raise UnsupportedModelError(f"{self.code.where}: its code makes a tensor of {abs(total):,} elements")


class _Function:
    def __init__(self, name: str):
        self.name = name


class _Named(tuple):
    """A named tuple of the archive."""

    def __new__(cls, values, fields):
        made = super().__new__(cls, values)
        made.fields = fields
        return made


def _path(node: ast.expr) -> str:
    """a.b.c, or nothing for another expression."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


_ALLOWED: dict[str, bool] = {}


def _allowed(name: str) -> bool:
    """Whether an operator may run: it has a converter, in place or not, or is a composite of others."""
    if name not in _ALLOWED:
        plain = name.removesuffix("_") if not name.endswith("__") else name
        known = any(key.startswith((f"aten.{name}.", f"aten.{plain}.")) for key in CONVERTERS) or name in MORE
        packet = None if name in DENIED or name.startswith("_") and name not in MORE else getattr(torch.ops.aten, name, None)
        if packet is not None and not known:
            keys = [getattr(packet, overload) for overload in packet.overloads()]
            known = any(op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd) for op in keys) or any(
                op in torch._decomp.decomposition_table for op in keys
            )
        _ALLOWED[name] = packet is not None and known
    return _ALLOWED[name]


def run(archive: Archive, method: str, args: Sequence, get, put) -> Any:
    """A method of the root, torch's complaints as they are, Python's own as InvalidModelError."""
    interpreter = Interpreter(archive, get, put)
    try:
        return interpreter.call(f"{archive.root.kind}.{method}", [archive.root, *args])
    except RecursionError as error:
        raise UnsupportedModelError(f"{archive.code.where}: its code is nested too deep") from error
    except (FastRNNError, ValueError, RuntimeError):
        raise
    except (TypeError, AttributeError, LookupError, ZeroDivisionError, OverflowError, AssertionError) as error:
        raise InvalidModelError(f"{archive.code.where}: its code cannot be followed: {type(error).__name__}: {str(error)[:300]}") from error
