"""Where a call's rows and scratch lie: a table of addresses at the start of its work space, which the driver fills and tiles read; driver.h says what each entry is."""

from __future__ import annotations

from llvmlite import ir

from fastrnn.kernels.jit._driver import ROWS, WORDS
from fastrnn.kernels.jit.recipe import Recipe
from fastrnn.kernels.jit.simd import FLOAT_BYTES, I64, POINTER, Code, function

LINE = 64


def state_fields(k: int) -> tuple[str, str]:
    """The contract's fields of state k's initial and final rows; from the third state on, rows of H floats without gaps."""
    return ("c0", "cn") if k == 1 else (f"x{2 * k - 1}", f"x{2 * k}")


class Table:
    """The table as tiles read it."""

    def __init__(self, recipe: Recipe, code: Code, pointer: ir.Value):
        self.recipe, self.code, self.pointer = recipe, code, pointer

    def word(self, name: str) -> ir.Value:
        """An entry."""
        return self.code.word(self.pointer, WORDS.index(name))

    def base(self, name: str) -> ir.Value:
        """An entry as a pointer."""
        return self.code.pointer(self.word(name))

    def row(self, name: str, row) -> ir.Value:
        """A row of a table of row pointers."""
        return self.code.pointer(self.code.word(self.base(name), row))

    @property
    def blocks(self) -> ir.Value:
        """Blocks of H units."""
        return self.word("blocks")

    def padded_row(self, name: str, row) -> ir.Value:
        """A row of H floats, padded to whole blocks."""
        return self.code.at(self.base(name), self.code.times(row, self.code.times(self.blocks, self.recipe.lanes)))

    def saved_row(self, row, k: int) -> ir.Value:
        """What a first phase left of its k-th gate."""
        return self.padded_row("saved", self.code.plus(self.code.times(row, len(self.recipe.saved)), k))


def emit_layout(module: ir.Module, name: str, recipe: Recipe) -> ir.Function:
    """``int64 layout(args, write)``: the bytes of work space that a call takes; fills in the table at its start if `write`."""
    layout, builder = function(module, name, I64, [POINTER, I64])
    code, (args, write) = Code(builder, recipe.lanes), layout.args
    field = lambda n: code.field(args, n)
    values: dict[str, ir.Value] = {}
    at = I64(-(-8 * len(WORDS) // LINE) * LINE)

    def take(entry: str, nbytes) -> None:
        nonlocal at
        values[entry] = at
        at = builder.and_(builder.add(at, builder.add(code.whole(nbytes), I64(LINE - 1))), I64(-LINE))

    def blocks(size: str):
        return builder.sdiv(builder.add(field(size), I64(recipe.lanes - 1)), I64(recipe.lanes))

    B, H_blocks = field("B"), blocks("H")
    padded = builder.mul(H_blocks, I64(recipe.lanes * FLOAT_BYTES))
    rows, units = builder.mul(B, I64(8)), builder.mul(B, padded)
    chunk_rows = builder.mul(field("chunk"), B)
    for entry in (*ROWS, *(f"c{k}" for k in range(1, len(recipe.states)))):
        take(entry, rows)
    take("project_x", builder.mul(chunk_rows, I64(8)))
    take("projected", builder.mul(builder.mul(chunk_rows, padded), I64(len(recipe.x_slots))))
    take("hidden", units if recipe.projected else 0)
    take("u", units if recipe.operand else 0)
    kept = builder.icmp_signed("!=", field("keep_b"), I64(0))
    take("kept", builder.select(kept, builder.mul(B, builder.mul(field("P"), I64(FLOAT_BYTES))), I64(0)))
    take("saved", builder.mul(units, I64(len(recipe.saved))))
    with builder.if_then(builder.icmp_signed("!=", write, I64(0))):
        base = field("work")
        table = code.pointer(base)
        for k in range(1, len(recipe.states)):
            initial, final = state_fields(k)
            own = (field("c0_b"), field("cn_b")) if k == 1 else (field("H"), field("H"))
            values |= {f"initial{k}": field(initial), f"final{k}": field(final), f"initial_b{k}": own[0], f"final_b{k}": own[1]}
        for k, entry in enumerate(WORDS):
            if entry in values:
                absolute = values[entry] if entry.startswith(("initial", "final")) else builder.add(base, values[entry])
                code.set_word(table, k, absolute)
        code.set_word(table, WORDS.index("blocks"), H_blocks)
        code.set_word(table, WORDS.index("projected_blocks"), blocks("P"))
    builder.ret(at)
    return layout
