"""The time loop of every recurrent kernel, in Python that Numba compiles: rows of a step, projections hoisted out of it, tiles over blocks and rows.

What native/cells/time_loop.h and tiles.h do. Whatever depends on the cell is in its kernel's table (kernel.py), so this is compiled once. Everything is an
int64: numbers, addresses, bytes.
"""

from __future__ import annotations

from contextlib import contextmanager
from types import ModuleType

from llvmlite import ir
from numba import config, njit, types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from fastrnn.kernels.contract import ARGS
from fastrnn.kernels.jit.kernel import FACTS, compile_ir
from fastrnn.kernels.jit.simd import I64, Code
from fastrnn.kernels.jit.table import WORDS
from fastrnn.kernels.jit.tiles import KINDS
from fastrnn.kernels.jit.tiling import COUNTS, HEAD, LEVELS, TILES_OF_LEVEL, WORDS_OF_COUNT, WORDS_OF_KIND


def _places(names, values=None) -> ModuleType:
    """Numbers by name, as attributes of a module: those of anything else take Numba three times as long."""
    places = ModuleType("places")
    vars(places).update(zip(names, range(len(names)) if values is None else values))
    return places


_whole = [n for n in ARGS.names if ARGS.fields[n][0].kind in "iu"]
A = _places(_whole, [ARGS.fields[n][1] // 8 for n in _whole])  # fields of the argument struct
S = _places(WORDS)  # the table of a call
K = _places(FACTS)  # the table of a kernel, and in it those of its kinds of tiles
F = _places(HEAD)
PROJECT, STEP, SECOND, SHRINK = (8 * (len(FACTS) + k * WORDS_OF_KIND) for k in range(len(KINDS)))
MORE = len(COUNTS) - 1


def _intrinsic(n: int, build, result=types.int64):
    """A function of n int64 for Numba, by what it emits: build(code, *values)."""

    def generate(context, builder, signature, arguments):
        value = build(Code(builder, 0), *arguments)
        return context.get_dummy_value() if result == types.void else value

    made = result(*[types.int64] * n), generate
    by_count = {
        2: lambda typing, a, b: made,
        3: lambda typing, a, b, c: made,
        4: lambda typing, a, b, c, d: made,
        5: lambda typing, a, b, c, d, e: made,
    }  # Numba wants them one by one
    return intrinsic(by_count[n])


def _copy(code, to, source, nbytes):
    with code.builder.if_then(code.builder.icmp_signed("!=", to, source)):
        cgutils.raw_memcpy(code.builder, code.pointer(to), code.pointer(source), nbytes, 1)


def _kept(code, to, source, keep, n):
    """Where n floats are that go on: at `source`, or multiplied by the float at `keep` at `to`; by 0, nothing is left of them."""
    builder, floats = code.builder, ir.PointerType(ir.FloatType())
    to_floats, from_floats, factor = (builder.inttoptr(value, floats) for value in (to, source, keep))
    factor, none = builder.load(factor), ir.FloatType()(0.0)
    changed = builder.fcmp_unordered("!=", factor, ir.FloatType()(1.0))
    with builder.if_then(changed), cgutils.for_range(builder, n) as loop:
        scaled = builder.fmul(factor, builder.load(builder.gep(from_floats, [loop.index])))
        builder.store(builder.select(builder.fcmp_ordered("==", factor, none), none, scaled), builder.gep(to_floats, [loop.index]))
    return builder.select(changed, to, source)


word = _intrinsic(2, lambda code, address, index: code.word(code.pointer(address), index))
set_word = _intrinsic(3, lambda code, address, index, value: code.set_word(code.pointer(address), index, value), types.void)
copy = _intrinsic(3, _copy, types.void)
kept = _intrinsic(4, _kept)
clear = _intrinsic(2, lambda code, to, nbytes: cgutils.memset(code.builder, code.pointer(to), nbytes, 0), types.void)
call_tile = _intrinsic(
    5, lambda code, tile, args, table, block, row: code.call(tile, ir.VoidType(), code.pointer(args), code.pointer(table), block, row), types.void
)
call_layout = _intrinsic(2, lambda code, layout, args: code.call(layout, I64, code.pointer(args), I64(1)))


@contextmanager
def lightly():
    """Numba compiles without its heavy passes, half of the time, which here unroll what runs once a step. Its lock keeps other threads' functions out."""
    with global_compiler_lock:
        level, config.OPT = config.OPT, type(config.OPT)(0)
        try:
            yield
        finally:
            config.OPT = level


def compiled(n: int, result=types.void):
    """Compiles a function of n int64 once; left to itself, Numba makes another for each constant among the arguments."""
    make = njit(result(*[types.int64] * n), error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
    return lightly()(make)


@compiled(6)
def cover(args, table, kind, blocks, n_rows, backward):
    """All blocks and rows, blocks outermost, from the last to the first if backward; see native/products/tiles.h.

    The widest tiles come first, then each level takes what those before it leave over, and the last the narrow block.
    """
    kind += 8 * WORDS_OF_COUNT * min(n_rows - 1, MORE)
    tail = max(blocks - word(kind, F.narrow), 0)
    n_tiles = (n_rows + word(kind, F.rows) - 1) // word(kind, F.rows)
    height, higher = n_rows // n_tiles, n_rows % n_tiles
    for k in range(LEVELS + 1):
        level = LEVELS - k if backward else k
        if level < LEVELS:
            begin = tail & -word(kind, F.width0 + level - 1) if level else 0
            width, span = word(kind, F.width0 + level), tail - begin
        else:
            begin, width = tail, blocks - tail
            level, span = level + (width == 2), width
        tiles, span, done = kind + 8 * (len(HEAD) + level * TILES_OF_LEVEL), span & -width, 0
        while done < span:
            block, row = begin + (span - width - done if backward else done), 0
            for tile in range(n_tiles):
                rows = height + (tile < higher)
                call_tile(word(tiles, rows), args, table, block, row)
                row += rows
            done += width


@compiled(3)
def begin_states(args, table, n):
    """States but the first are worked on where they end."""
    nbytes, order = 4 * word(args, A.H), word(args, A.order)
    for k in range(n):
        initial, final = word(table, S.initial1 + k), word(table, S.final1 + k)
        for row in range(word(args, A.B)):
            b = word(order, row) if order else row
            if initial:
                copy(final + 4 * b * word(table, S.final_b1 + k), initial + 4 * b * word(table, S.initial_b1 + k), nbytes)
            else:
                clear(final + 4 * b * word(table, S.final_b1 + k), nbytes)


@compiled(1)
def end_states(args):
    """hn gets each row's output at its last step, or its initial state where it had none; y past a row's length is zero."""
    T, lengths, order, hn, y = word(args, A.T), word(args, A.lengths), word(args, A.order), word(args, A.hn), word(args, A.y)
    y_t, nbytes = 4 * word(args, A.y_t), 4 * word(args, A.P)
    for row in range(word(args, A.B)):
        b = word(order, row) if order else row
        length = word(lengths, row) if lengths else T
        own = y + 4 * b * word(args, A.y_b)
        if hn:
            last = own + (0 if word(args, A.reverse) else length - 1) * y_t
            copy(hn + 4 * b * word(args, A.hn_b), last if length else word(args, A.h0) + 4 * b * word(args, A.h0_b), nbytes)
        for t in range(length, T):
            clear(own + t * y_t, nbytes)


@compiled(3, types.int64)
def time_of(args, row, t):
    """Step t of a row reads and writes this time: the reverse direction starts at the row's own end."""
    if not word(args, A.reverse):
        return t
    lengths = word(args, A.lengths)
    return (word(lengths, row) if lengths else word(args, A.T)) - 1 - t


@compiled(3, types.int64)
def still_active(args, active, t):
    """Rows whose length goes past step t, given how many did before."""
    lengths = word(args, A.lengths)
    while lengths and active and word(lengths, active - 1) <= t:
        active -= 1
    return active


@compiled(5, types.int64)
def gather(args, table, active, t, end):
    """Notes the inputs of steps t to `end`, of every row that gets there, and returns how many: time steps serve as rows."""
    n, order, x_t, x_b = 0, word(args, A.order), 4 * word(args, A.x_t), 4 * word(args, A.x_b)
    for later in range(t, end):
        active = still_active(args, active, later)
        for row in range(active):
            b = word(order, row) if order else row
            set_word(word(table, S.project_x), n, word(args, A.x) + time_of(args, row, later) * x_t + b * x_b)
            n += 1
    return n


@compiled(6)
def set_rows(args, table, kernel, active, t, pre):
    """Notes where the rows of step t lie; pre: where their projections begin."""
    order, x_t, x_b, y_t, y_b = word(args, A.order), 4 * word(args, A.x_t), 4 * word(args, A.x_b), 4 * word(args, A.y_t), 4 * word(args, A.y_b)
    blocks, before = word(table, S.blocks), y_t if word(args, A.reverse) else -y_t
    for row in range(active):
        b, time = word(order, row) if order else row, time_of(args, row, t)
        y = word(args, A.y) + time * y_t + b * y_b
        set_word(word(table, S.x), row, word(args, A.x) + time * x_t + b * x_b)
        set_word(word(table, S.h), row, y + before if t else word(args, A.h0) + 4 * b * word(args, A.h0_b))
        set_word(word(table, S.y), row, y)
        set_word(word(table, S.out), row, word(table, S.hidden) + row * blocks * word(kernel, K.row_bytes) if word(kernel, K.projected) else y)
        set_word(word(table, S.pre), row, pre + row * blocks * word(kernel, K.pre_bytes))
        if word(kernel, K.scalars):
            set_word(word(table, S.scalars), row, word(args, A.x2) + 4 * (time * word(args, A.x2_t) + b * word(args, A.x2_b)))
        for k in range(word(kernel, K.extra_states)):
            set_word(word(table, S.c1 + k), row, word(table, S.final1 + k) + 4 * b * word(table, S.final_b1 + k))


@compiled(5)
def keep_rows(args, table, extra_states, active, t):
    """The states of rows go into step t multiplied by what `keep` says; in reverse, what it says of the step after t in time."""
    order, P, H, reverse = word(args, A.order), word(args, A.P), word(args, A.H), word(args, A.reverse)
    for row in range(active):
        b = word(order, row) if order else row
        keep = word(args, A.keep) + 4 * ((time_of(args, row, t) + reverse) * word(args, A.keep_t) + b * word(args, A.keep_b))
        set_word(word(table, S.h), row, kept(word(table, S.kept) + 4 * row * P, word(word(table, S.h), row), keep, P))
        for k in range(extra_states):
            state = word(word(table, S.c1 + k), row)
            kept(state, state, keep, H)


def drive(args, kernel):
    """A whole call."""
    call_layout(word(kernel, K.layout), args)
    table, T, chunk = word(args, A.work), word(args, A.T), word(args, A.chunk) if word(kernel, K.hoists) else 0
    blocks, lengths = word(table, S.blocks), word(args, A.lengths)
    begin_states(args, table, word(kernel, K.extra_states))
    active = word(args, A.B)
    if not active:
        T = 0
    elif lengths:
        T = word(lengths, 0)  # the longest row comes first
    chunk_end, pre = 0, 0
    for t in range(T):
        if chunk and t == chunk_end:
            chunk_end = min(t + chunk, T)
            cover(args, table, kernel + PROJECT, blocks, gather(args, table, active, t, chunk_end), 0)
            pre = word(table, S.projected)
        active = still_active(args, active, t)
        set_rows(args, table, kernel, active, t, pre)
        pre += active * blocks * word(kernel, K.pre_bytes)
        if word(args, A.keep_b) and (t or not word(args, A.reverse)):
            keep_rows(args, table, word(kernel, K.extra_states), active, t)
        backward = (t + word(args, A.sweep)) & 1
        cover(args, table, kernel + STEP, blocks, active, backward)
        if word(kernel, K.second):
            cover(args, table, kernel + SECOND, blocks, active, backward)
        if word(kernel, K.projected):
            cover(args, table, kernel + SHRINK, word(table, S.projected_blocks), active, backward)
    end_states(args)


def compile_driver(features: str) -> tuple[bytes, str]:
    """Object code of the driver, and its name in it: Numba's, without what it adds for calls from Python."""
    callback = CFunc(drive, ((types.int64, types.int64), types.void), locals={}, options={"error_model": "numpy"})
    with lightly():
        made = callback._compile_uncached()
        made.library.finalize()
    name = made.fndesc.llvm_cfunc_wrapper_name
    return compile_ir(made.library.get_llvm_str(), {name}, features, level=3), name
