"""The vector vocabulary: functions under construction in LLVM, in vectors of 8 or 16 floats.

What native/vectors/simd.h is to C. Every operation rounds as IEEE 754 says and none is fused unless `fma` says so, so both widths give the
bits of the native kernels. Every load and store says how its address is aligned; parts of a vector are stored in pieces of
powers of two, which the scalar loads of the next step can be served from.
"""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
from llvmlite import ir

from fastrnn.kernels.contract import ARGS

FLOAT, I64, BOOL, POINTER = ir.FloatType(), ir.IntType(64), ir.IntType(1), ir.PointerType()
FLOAT_BYTES = 4


class Vector:
    """A vector of floats, or of conditions, in a function under construction."""

    __slots__ = ("code", "value")

    def __init__(self, code: Code, value: ir.Value):
        self.code, self.value = code, value

    @property
    def constant(self) -> bool:
        """Whether all lanes are one number known now, and not NaN."""
        return isinstance(self.value, ir.Constant) and self.value.constant[0].constant == self.value.constant[0].constant

    def _with(self, build, other: Vector) -> Vector:
        return Vector(self.code, build(self.value, other.value))

    def __add__(self, other):
        return self._with(self.code.builder.fadd, other)

    def __sub__(self, other):
        return self._with(self.code.builder.fsub, other)

    def __mul__(self, other):
        return self._with(self.code.builder.fmul, other)

    def __truediv__(self, other):
        return self._with(self.code.builder.fdiv, other)

    def __neg__(self):
        return Vector(self.code, self.code.builder.fneg(self.value))

    def __and__(self, other):
        return self._with(self.code.builder.and_, other)

    def __or__(self, other):
        return self._with(self.code.builder.or_, other)

    def __invert__(self):
        return Vector(self.code, self.code.builder.not_(self.value))

    def compare(self, relation: str, other: Vector) -> Vector:
        """The condition of an ordered comparison, false for NaN; != is true for it."""
        compare = self.code.builder.fcmp_unordered if relation == "!=" else self.code.builder.fcmp_ordered
        return Vector(self.code, compare(relation, self.value, other.value))

    def select(self, a: Vector, b: Vector) -> Vector:
        """a where this condition holds, else b."""
        return Vector(self.code, self.code.builder.select(self.value, a.value, b.value))

    def min(self, other: Vector) -> Vector:
        """self < other ? self : other, one instruction; a NaN in `other` comes through."""
        return self.compare("<", other).select(self, other)

    def max(self, other: Vector) -> Vector:
        """self > other ? self : other, likewise."""
        return self.compare(">", other).select(self, other)

    def fma(self, b: Vector, c: Vector) -> Vector:
        """self * b + c, rounded once."""
        return self.code.intrinsic("fma", self, b, c)

    def round(self) -> Vector:
        """To the nearest whole number, halves to even."""
        return self.code.intrinsic("nearbyint", self)

    def power_of_two(self) -> Vector:
        """2 to this whole number between -127 and 127: added to 1.5 * 2^23 it stands in the low bits, from where it moves to the exponent."""
        builder, whole = self.code.builder, ir.VectorType(ir.IntType(32), self.code.lanes)
        bits = builder.bitcast((self + self.code.number(12582912.0)).value, whole)
        moved = builder.shl(builder.add(bits, ir.Constant(whole, [127] * self.code.lanes)), ir.Constant(whole, [23] * self.code.lanes))
        return Vector(self.code, builder.bitcast(moved, self.code.vector))

    def halves(self, other: Vector) -> Vector:
        """The lower halves of self and other, in one vector."""
        half = self.code.lanes // 2
        return self.code.shuffle(self, other, [*range(half), *range(2 * half, 3 * half)])

    def high(self) -> Vector:
        """The upper half, below."""
        half = self.code.lanes // 2
        return self.code.shuffle(self, self, [*range(half, 2 * half), *range(half, 2 * half)])


class Code:
    """What a function under construction is written with: numbers, memory, loops. Pointers are to floats, indices count them."""

    def __init__(self, builder: ir.IRBuilder, lanes: int):
        self.builder, self.lanes = builder, lanes
        self.vector = ir.VectorType(FLOAT, lanes)

    def number(self, value: float) -> Vector:
        """A vector of one number, rounded to float32."""
        return Vector(self, ir.Constant(self.vector, [float(np.float32(value))] * self.lanes))

    def whole(self, value: int | ir.Value) -> ir.Value:
        """An int64."""
        return I64(value) if isinstance(value, int) else value

    def times(self, a: int | ir.Value, b: int | ir.Value) -> int | ir.Value:
        """a * b, now where both are known."""
        return a * b if isinstance(a, int) and isinstance(b, int) else self.builder.mul(self.whole(a), self.whole(b))

    def plus(self, a: int | ir.Value, b: int | ir.Value) -> int | ir.Value:
        """a + b, likewise."""
        return a + b if isinstance(a, int) and isinstance(b, int) else self.builder.add(self.whole(a), self.whole(b))

    def intrinsic(self, name: str, *vectors: Vector) -> Vector:
        """One of LLVM's functions of vectors."""
        kind = ir.FunctionType(self.vector, [self.vector] * len(vectors))
        function = declared(self.builder.module, f"llvm.{name}.v{self.lanes}f32", kind)
        return Vector(self, self.builder.call(function, [v.value for v in vectors]))

    def shuffle(self, a: Vector, b: Vector, lanes: list[int]) -> Vector:
        """Lanes of a, then b, by number."""
        return Vector(self, self.builder.shuffle_vector(a.value, b.value, ir.Constant(ir.VectorType(ir.IntType(32), len(lanes)), lanes)))

    def at(self, pointer: ir.Value, index: int | ir.Value) -> ir.Value:
        """The address of an element."""
        return self.builder.gep(pointer, [self.whole(index)], source_etype=FLOAT)

    def load(self, pointer: ir.Value, index: int | ir.Value = 0, aligned: bool = False) -> Vector:
        """A vector from memory; aligned: on a multiple of its size."""
        align = self.lanes * FLOAT_BYTES if aligned else FLOAT_BYTES
        return Vector(self, self.builder.load(self.at(pointer, index), align=align, typ=self.vector))

    def store(self, v: Vector, pointer: ir.Value, index: int | ir.Value = 0, aligned: bool = False) -> None:
        """A vector to memory."""
        self.builder.store(v.value, self.at(pointer, index), align=self.lanes * FLOAT_BYTES if aligned else FLOAT_BYTES)

    def splat(self, pointer: ir.Value, index: int | ir.Value = 0) -> Vector:
        """One float in all lanes."""
        one = self.builder.load(self.at(pointer, index), align=FLOAT_BYTES, typ=FLOAT)
        first = self.builder.insert_element(ir.Constant(self.vector, ir.Undefined), one, ir.IntType(32)(0))
        return self.shuffle(Vector(self, first), Vector(self, first), [0] * self.lanes)

    def load_part(self, pointer: ir.Value, index: int | ir.Value, n: int | ir.Value) -> Vector:
        """The first n floats, zeros behind them."""
        mask, condition = ir.VectorType(BOOL, self.lanes), ir.VectorType(I64, self.lanes)
        if isinstance(n, int):
            chosen = ir.Constant(mask, [int(k < n) for k in range(self.lanes)])
        else:
            first = self.builder.insert_element(ir.Constant(condition, ir.Undefined), n, ir.IntType(32)(0))
            limit = self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes))
            chosen = self.builder.icmp_signed("<", ir.Constant(condition, list(range(self.lanes))), limit)
        kind = ir.FunctionType(self.vector, [POINTER, ir.IntType(32), mask, self.vector])
        function = declared(self.builder.module, f"llvm.masked.load.v{self.lanes}f32.p0", kind)
        return Vector(self, self.builder.call(function, [self.at(pointer, index), ir.IntType(32)(FLOAT_BYTES), chosen, self.number(0.0).value]))

    def store_part(self, v: Vector, pointer: ir.Value, index: int | ir.Value, n: int) -> None:
        """The first n floats."""
        done, size = 0, self.lanes
        while done < n:
            size //= 2
            if size <= n - done:
                piece = self.shuffle(v, v, list(range(done, done + size)))
                self.builder.store(piece.value, self.at(pointer, self.plus(index, done)), align=FLOAT_BYTES)
                done += size

    def field(self, args: ir.Value, name: str) -> ir.Value:
        """A whole number of the argument struct, or a pointer as one."""
        return self.word(args, ARGS.fields[name][1] // 8)

    def word(self, pointer: ir.Value, index: int | ir.Value) -> ir.Value:
        """An int64 of a table."""
        return self.builder.load(self.builder.gep(pointer, [self.whole(index)], source_etype=I64), align=8, typ=I64)

    def set_word(self, pointer: ir.Value, index: int | ir.Value, value: int | ir.Value) -> None:
        """Writes one."""
        self.builder.store(self.whole(value), self.builder.gep(pointer, [self.whole(index)], source_etype=I64), align=8)

    def pointer(self, address: ir.Value) -> ir.Value:
        """An address as a pointer."""
        return self.builder.inttoptr(address, POINTER)

    def call(self, address: ir.Value, result: ir.Type, *arguments: ir.Value) -> ir.Value:
        """Calls the function at an address."""
        kind = ir.FunctionType(result, [a.type for a in arguments])
        return self.builder.call(self.builder.inttoptr(address, kind.as_pointer()), list(arguments))

    def variable(self) -> Variable:
        """A vector that changes, in a register as far as there are enough."""
        return Variable(self, self.scratch(1))

    def scratch(self, n: int) -> ir.Value:
        """Memory for n vectors on the stack, set aside where the function begins."""
        with self.builder.goto_entry_block():
            return self.builder.alloca(self.vector, size=ir.IntType(32)(n))

    @contextmanager
    def loop(self, count: int | ir.Value):
        """k from 0 to count, at least once round."""
        builder = self.builder
        before, body, after = builder.block, builder.append_basic_block("loop"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        k = builder.phi(I64)
        k.add_incoming(I64(0), before)
        yield k
        following = builder.add(k, I64(1))
        k.add_incoming(following, builder.block)
        back = builder.cbranch(builder.icmp_signed("<", following, self.whole(count)), body, after)
        back.set_metadata("llvm.loop", _not_unrolled(builder.module))
        builder.position_at_end(after)


def _not_unrolled(module: ir.Module):
    """Keeps LLVM from unrolling a loop: bodies fill the multipliers already, and a kernel took five times as long to compile."""
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    loop = module.add_metadata([disable, I64(len(module.metadata))])  # the number makes the node this loop's own
    loop.operands = (loop, disable)
    return loop


def declared(module: ir.Module, name: str, kind: ir.FunctionType) -> ir.Function:
    """A function from elsewhere, declared once."""
    return module.globals.get(name) or ir.Function(module, kind, name)


def function(module: ir.Module, name: str, result: ir.Type, arguments: list[ir.Type], *attributes: str) -> tuple[ir.Function, ir.IRBuilder]:
    """A new function of the module's own, and what its body is written with."""
    made = ir.Function(module, ir.FunctionType(result, arguments), name)
    made.linkage = "internal"
    for attribute in ("nounwind", *attributes):
        made.attributes.add(attribute)
    return made, ir.IRBuilder(made.append_basic_block("entry"))


class Variable:
    """A place for a vector, which LLVM keeps in a register."""

    __slots__ = ("code", "place")

    def __init__(self, code: Code, place: ir.Value):
        self.code, self.place = code, place

    @property
    def value(self) -> Vector:
        """What it holds."""
        return Vector(self.code, self.code.builder.load(self.place, typ=self.code.vector))

    @value.setter
    def value(self, v: Vector) -> None:
        self.code.builder.store(v.value, self.place)
