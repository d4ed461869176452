"""A recipe as an LLVM module, and as object code: tiles, layout of the work space, and the table by which the driver finds them.

``run(args)`` hands its arguments and the table to the driver, whose address ``bind(address)`` sets.
"""

from __future__ import annotations

import llvmlite.binding as llvm
from llvmlite import ir

from fastrnn.kernels.jit._driver import FACTS, WORDS_OF_KIND
from fastrnn.kernels.jit.recipe import Recipe
from fastrnn.kernels.jit.simd import I64, POINTER, Code
from fastrnn.kernels.jit.table import emit_layout
from fastrnn.kernels.jit.tiles import KINDS, Shape, emit
from fastrnn.kernels.jit.tiling import Tiling


def emit_module(recipe: Recipe, prefix: str) -> ir.Module:
    """The module of a recipe; the names that are seen from outside start with `prefix`."""
    module = ir.Module(prefix)
    module.triple = llvm.get_process_triple()
    layout = emit_layout(module, "layout", recipe)
    lane_bytes = 4 * recipe.lanes
    facts = {"layout": layout, "extra_states": len(recipe.states) - 1, "scalars": len(recipe.scalars), "projected": recipe.projected,
             "second": recipe.operand is not None, "hoists": bool(recipe.x_slots), "row_bytes": lane_bytes, "pre_bytes": lane_bytes * len(recipe.x_slots)}  # fmt: skip
    entries = [facts[name] for name in FACTS]
    for kind, used in zip(KINDS, (recipe.x_slots, True, recipe.operand, recipe.projected)):
        words = Tiling(recipe, kind).words() if used else [0] * WORDS_OF_KIND
        entries += [emit(module, recipe, kind, word) if isinstance(word, Shape) else word for word in words]
    table = ir.GlobalVariable(module, ir.ArrayType(I64, len(entries)), "table")
    table.linkage, table.global_constant = "internal", True
    table.initializer = ir.Constant(table.value_type, [e.ptrtoint(I64) if isinstance(e, ir.Function) else I64(int(e)) for e in entries])
    driver = ir.GlobalVariable(module, I64, "driver")
    driver.linkage, driver.initializer = "internal", I64(0)
    _export(module, f"{prefix}.bind", ir.VoidType(), lambda code, address: code.builder.store(code.builder.ptrtoint(address, I64), driver))
    _export(module, f"{prefix}.run", ir.VoidType(), lambda code, args: code.call(code.builder.load(driver, typ=I64), ir.VoidType(), args, table))
    _export(module, f"{prefix}.work_bytes", I64, lambda code, args: code.builder.call(layout, [args, I64(0)]))
    return module


def _export(module: ir.Module, name: str, result: ir.Type, body) -> None:
    function = ir.Function(module, ir.FunctionType(result, [POINTER]), name)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    value = body(Code(builder, 0), function.args[0])
    builder.ret(value) if result == I64 else builder.ret_void()


def machine(features: str) -> llvm.TargetMachine:
    """This processor, with these features of it."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=2, reloc="pic", codemodel="small", jit=True
    )


def compile_ir(text: str, seen: set[str], features: str) -> bytes:
    """Object code of a module with nothing to be seen from outside but these names. Tiles are written as they should be, so little is optimised."""
    module, target = llvm.parse_assembly(text), machine(features)
    module.verify()
    for symbol in (*module.functions, *module.global_variables):
        if not symbol.is_declaration and symbol.name not in seen:
            symbol.linkage = "internal"
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = options.loop_interleaving = False
    passes = llvm.create_pass_builder(target, options)
    passes.getModulePassManager().run(module, passes)
    return target.emit_object(module)


def compile_recipe(recipe: Recipe, prefix: str, features: str) -> tuple[bytes, list[str]]:
    """Object code of a recipe, and the names in it of `run`, `work_bytes` and `bind`."""
    names = [f"{prefix}.{what}" for what in ("run", "work_bytes", "bind")]
    return compile_ir(str(emit_module(recipe, prefix)), set(names), features), names
