"""A pickle walked op by op: what it names, calls and claims, as plain records. Nothing is imported, called or built.

    walk(file)  ->  Walk: symbols (what it would import), called (what it would call), storages, tensors that do not fit them

torch.load reads a checkpoint only after this walk has found tensors and containers in it and nothing else (checkpoint.py).
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

ITEM_BYTES = {"ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2}
_REBUILD = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
MAX_AXES = 64
MOST_OPEN = 50_000  # values on the stack; pickle writes containers by the thousand
MOST_NESTED = 16  # tuples in one another: a tensor's sizes lie three deep, and tuples nested without end overflow the C stack of whoever hashes them
_BROKEN = (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError, EOFError, MemoryError, struct.error)  # what bad bytes raise


class Symbol(NamedTuple):
    """What a pickle would import."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Storage(NamedTuple):
    """Tensor data that lies outside the pickle: its key and the number of elements that it claims."""

    key: str
    numel: int
    nbytes: int


@dataclass
class Walk:
    """What the walk found. symbols: as they come, each once; complaints: what does not fit; damage: where the pickle broke off."""

    symbols: dict[Symbol, None] = field(default_factory=dict)
    called: set[Symbol] = field(default_factory=set)
    storages: dict[str, Storage] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    damage: str = ""


class _Number(NamedTuple):
    """A NumPy dtype of plain numbers: the bytes of one."""

    nbytes: int


NUMBERS = {"b1": 1, "c8": 8, "c16": 16} | {f"{kind}{n}": n for kind in "iuf" for n in (1, 2, 4, 8) if kind + str(n) != "f1"}
NUMPY = {Symbol(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")} | {Symbol("numpy", "dtype")}
EMPTY = {Symbol(builtins, "bytes") for builtins in ("builtins", "__builtin__")}  # bytes(), how protocols below 3 write no bytes
_MARK, _OPAQUE, _ORDERED_DICT, _ARRAY = object(), object(), object(), object()  # opaque: anything that a call would make
_CONSTANTS = {
    "MARK": _MARK,
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
    "EMPTY_TUPLE": (),
    "EMPTY_LIST": _OPAQUE,
    "EMPTY_DICT": _OPAQUE,
    "EMPTY_SET": _OPAQUE,
}


class _Tuple(tuple):
    """A tuple that knows how deep others are nested in it, itself included."""

    depth = 0


class _Walker:
    """The stack machine of pickle, with records in place of objects. Dicts and lists are not filled: nobody looks at them."""

    def __init__(self, walk: Walk):
        self.walk, self.stack, self.memo = walk, [], {}

    def run(self, file) -> object:
        """One pickle, from the file's position to behind its STOP; what it would return."""
        for opcode, argument, _ in pickletools.genops(file):
            if len(self.stack) > MOST_OPEN:
                raise ValueError(f"more than {MOST_OPEN:,} values open at once, so deeply are they nested")
            if opcode.name == "STOP":
                return self.stack.pop()
            _STEPS[opcode.name](self, argument)
        raise ValueError("no STOP")

    def push(self, value) -> None:
        self.stack.append(value)

    def nothing(self, _) -> None:
        """Of how the pickle is written, not of what it holds."""

    op_proto = op_frame = nothing

    def pop_mark(self, _=None) -> list:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no MARK")
        items, self.stack[at:] = self.stack[at + 1 :], []
        return items

    op_appends = op_additems = op_pop_mark = pop_mark

    def pop(self, _=None) -> object:
        return self.stack.pop()

    op_pop = op_append = pop

    def op_build(self, _) -> None:
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Number):
            if not (
                isinstance(state, tuple) and state[1:3] in (("<", None), ("|", None), (">", None)) and all(n in (None, 0, -1) for n in state[3:])
            ):
                self.walk.complaints.append("a NumPy dtype that is no plain number")
        elif made is _ARRAY:
            self.array(*state[1:]) if isinstance(state, tuple) else self.array()
        elif made is not _ORDERED_DICT:
            self.walk.complaints.append("a state is given to something other than a dict")

    def op_dup(self, _) -> None:
        self.stack.append(self.stack[-1])

    def put(self, key) -> None:
        self.memo[len(self.memo) if key is None else key] = self.stack[-1]

    op_put = op_binput = op_long_binput = op_memoize = put

    def get(self, key) -> None:
        self.stack.append(self.memo[key])

    op_get = op_binget = op_long_binget = get

    def op_tuple(self, _) -> None:
        self.nest(self.pop_mark())

    def op_tuple1(self, _) -> None:
        self.nest([self.stack.pop()])

    def op_tuple2(self, _) -> None:
        self.nest([self.stack.pop(-2), self.stack.pop()])

    def op_tuple3(self, _) -> None:
        self.nest([self.stack.pop(-3), self.stack.pop(-2), self.stack.pop()])

    def nest(self, items: list) -> None:
        """A tuple of these."""
        made = _Tuple(items)
        made.depth = 1 + max([item.depth for item in items if type(item) is _Tuple], default=0)
        if made.depth > MOST_NESTED:
            raise ValueError(f"tuples nested more than {MOST_NESTED} deep: as a key of a dict they would overflow the stack")
        self.stack.append(made)

    def marked_list(self, _) -> None:
        self.pop_mark()
        self.stack.append(_OPAQUE)

    op_list = op_frozenset = marked_list

    def op_dict(self, _) -> None:
        self.op_setitems(_)
        self.stack.append(_OPAQUE)

    def op_setitem(self, _) -> None:
        self.stack.pop()
        self.keys([self.stack.pop()])

    def op_setitems(self, _) -> None:
        self.keys(self.pop_mark()[::2])

    def keys(self, keys: list) -> None:
        """Keys of a dict."""
        if not all(isinstance(key, (str, bytes, int, float, type(None))) for key in keys):
            self.walk.complaints.append("a key of a dict is neither text nor a number")

    def symbol(self, module: str, name: str) -> None:
        found = Symbol(module, name)
        self.walk.symbols[found] = None
        self.stack.append(found)

    def op_global(self, argument) -> None:
        self.symbol(*argument.split(" ", 1))

    def op_stack_global(self, _) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.symbol(str(module), str(name))

    def unknown(self, argument) -> None:
        """A name from a registry that only running the pickle would show; torch writes none."""
        self.symbol("copyreg", f"extension {argument}")

    op_ext1 = op_ext2 = op_ext4 = unknown

    def op_inst(self, argument) -> None:
        self.pop_mark()
        self.symbol(*argument.split(" ", 1))
        self.make(self.stack.pop())

    def op_obj(self, _) -> None:
        self.make(self.pop_mark()[0])

    def op_newobj(self, _) -> None:
        self.stack.pop()
        self.make(self.stack.pop())

    def op_newobj_ex(self, _) -> None:
        self.stack.pop()
        self.op_newobj(_)

    def make(self, kind) -> None:
        self.stack.append(_OPAQUE)
        self.walk.complaints.append(f"an object of {kind} is made" if isinstance(kind, Symbol) else "an object is made")

    def op_reduce(self, _) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, arguments))

    def call(self, function, arguments) -> object:
        if not isinstance(function, Symbol) or not isinstance(arguments, tuple):
            raise TypeError("a call of something that is no function")
        self.walk.called.add(function)
        if function.name in _REBUILD:
            self.tensor(*arguments[:4])
        elif function.name == "_rebuild_from_type_v2":
            self.call(arguments[0], arguments[2])
        elif function in NUMPY:
            return self.numpy(function.name, arguments)
        elif function in EMPTY:
            if arguments == ():
                return b""
            self.walk.complaints.append("bytes that are made by a call")
        elif function.name == "encode" and arguments[:1] and isinstance(arguments[0], str):
            return arguments[0].encode("latin1")  # how protocols below 3 write bytes
        return _ORDERED_DICT if function.name == "OrderedDict" else _OPAQUE

    def numpy(self, name: str, arguments: tuple) -> object:
        """An array, which its state fills, a number, or a dtype; of plain numbers alone, since dtypes of objects hold pickles of their own."""
        if name == "dtype":
            if len(arguments) == 3 and arguments[0] in NUMBERS and arguments[1:] == (False, True):
                return _Number(NUMBERS[arguments[0]])
        elif name == "_reconstruct":
            if len(arguments) == 3 and arguments[0] == Symbol("numpy", "ndarray") and arguments[1] == (0,):
                return _ARRAY
        elif (
            len(arguments) == 2 and isinstance(arguments[0], _Number) and isinstance(arguments[1], bytes) and len(arguments[1]) == arguments[0].nbytes
        ):
            return _OPAQUE
        self.walk.complaints.append(f"a NumPy {name.strip('_')} of something other than numbers")
        return _OPAQUE

    def array(self, sizes=None, number=None, fortran=None, data=None) -> None:
        """Complains of an array whose bytes are not those of its shape."""
        whole = (
            isinstance(sizes, tuple) and len(sizes) <= MAX_AXES and all(map(_size, sizes)) and isinstance(number, _Number) and isinstance(data, bytes)
        )
        if not whole or not isinstance(fortran, bool) or math.prod(sizes) * number.nbytes != len(data):
            self.walk.complaints.append("a NumPy array that does not fit its bytes")

    def op_persid(self, argument) -> None:
        raise ValueError("a storage named by text")

    def op_binpersid(self, _) -> None:
        kind, symbol, key, _, numel, *_ = self.stack.pop()
        if kind != "storage" or not isinstance(symbol, Symbol) or not isinstance(key, str) or not _size(numel):
            raise ValueError("a storage without a key or a size")
        storage = Storage(key, numel, numel * ITEM_BYTES.get(symbol.name.removesuffix("Storage"), 1))
        if self.walk.storages.setdefault(key, storage).nbytes != storage.nbytes:
            self.walk.complaints.append(f"storage {key!r} has two sizes")
        self.stack.append(storage)

    def tensor(self, storage=None, offset=None, sizes=None, strides=None) -> None:
        """Complains of a tensor that reaches past its storage, or shows its elements more than once beyond a small buffer."""
        whole = [sizes, strides]
        if (
            not isinstance(storage, Storage)
            or not _size(offset)
            or not all(isinstance(a, tuple) and len(a) <= MAX_AXES and all(map(_size, a)) for a in whole)
        ):
            self.walk.complaints.append("a tensor without a storage, sizes or strides")
            return
        elements = math.prod(sizes)
        reach = offset + sum((n - 1) * s for n, s in zip(sizes, strides)) + 1 if elements else 0
        if len(sizes) != len(strides) or reach > storage.numel or elements > max(storage.numel, 1 << 16):
            self.walk.complaints.append(f"a tensor of shape {sizes} does not fit its storage {storage.key!r} of {storage.numel} elements")


def _step(opcode) -> Callable[[_Walker, object], None]:
    """What an opcode does to a walker, given its argument: its method, a constant, or its argument, a number or a text, put on the stack."""
    if step := getattr(_Walker, f"op_{opcode.name.lower()}", None):
        return step
    if opcode.name in _CONSTANTS:
        value = _CONSTANTS[opcode.name]
        return lambda walker, _: walker.stack.append(value)
    if opcode.arg is not None and not opcode.stack_before and len(opcode.stack_after) == 1:
        return _Walker.push

    def refuse(walker, _) -> None:
        raise ValueError(f"opcode {opcode.name} is not read")

    return refuse


_STEPS = {opcode.name: _step(opcode) for opcode in pickletools.opcodes}


def _size(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def walk(file, pickles: int) -> tuple[Walk, list]:
    """Walks so many pickles that follow one another in a binary file, fewer where it ends or they break off; and what each would return,
    where that is a number or text."""
    found, results = Walk(), []
    for _ in range(pickles):
        try:
            results.append(_Walker(found).run(file))
        except _BROKEN as error:
            found.damage = str(error) or repr(error)
            break
        if not file.read(1):
            break
        file.seek(-1, 1)
    return found, results
