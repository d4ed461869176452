"""An exported program to a Model: its signature read, its nodes imported, names given to dimensions and outputs."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

import torch
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind, TensorArgument
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from fastrnn.converters.torch_export.apart import APART
from fastrnn.converters.torch_export.guards import assumptions, conditions
from fastrnn.converters.torch_export.importer import GraphImporter
from fastrnn.converters.torch_export.ops.complex import ALIKE, COMPLEX, joined
from fastrnn.converters.torch_export.registry import CONVERTERS, Complex, Tensor
from fastrnn.converters.torch_export.site import ASSUMED
from fastrnn.errors import DTypeError, FastRNNError, UnsupportedModelError
from fastrnn.model import Model, Node, Value
from fastrnn.model.ops import Spec
from fastrnn.model.recurrent import RECURRENT

AS_THEY_ARE = ("aten.to.dtype", "aten.to.device", "aten.to.dtype_layout", "aten._to_copy.default", "aten.clone.default", "aten.detach.default", "aten.sort.default",
                "<built-in function getitem>")  # fmt: skip  # operators behind which lengths are still those of an input
MAX_ROUNDS = 4  # of decomposing what has no converter into what may have one
FURTHER = (
    torch.ops.aten.grid_sampler_2d.default,
    torch.ops.aten.max_pool2d_with_indices_backward.default,
)  # that torch.export's table leaves whole, and torch's has


def simplified(program):
    """The program without in-place changes, and with operators that have no converter taken apart as torch defines them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch about itself
        try:
            return _simplified(program)
        except GuardOnDataDependentSymNode as error:
            raise UnsupportedModelError(f"an operator that torch takes apart by what is in a tensor: {str(error).splitlines()[0]}") from error
        except RuntimeError as error:
            if isinstance(error, FastRNNError):
                raise
            raise UnsupportedModelError(f"torch fails when it takes an operator apart: {str(error).splitlines()[0]}") from error


def _converted(node) -> bool:
    """Whether an operator has a converter, or gives nothing that needs one."""
    name = str(node.target)
    if isinstance(node.meta.get("val"), (torch.SymInt, torch.SymBool, type(None))):
        return True
    if any(isinstance(t, torch.Tensor) and t.is_complex() for n in (node, *node.all_input_nodes) for t in pytree.tree_leaves(n.meta.get("val"))):
        return name in COMPLEX or name in ALIKE and name in CONVERTERS
    return name in CONVERTERS


def _simplified(program):
    if any(
        node.op == "get_attr" or isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable for node in program.graph.nodes
    ):
        program = program.run_decompositions({})
    seen: set = set()
    for _ in range(MAX_ROUNDS):
        unknown = {n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload) and not _converted(n)} - seen
        seen |= unknown
        table = torch.export.default_decompositions()
        for op, function in ({op: torch._decomp.decomposition_table[op] for op in FURTHER} | APART).items():
            table[op] = function
        # what is neither composite nor has a decomposition stays, and importing it will say so
        unknown = {op for op in unknown if op in table or op.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)}
        if not unknown:
            break
        program = program.run_decompositions({op: table[op] for op in unknown if op in table})  # and composite ones by their definition
    return program


def import_program(
    program,
    name: str,
    dim_names: Mapping[str, str] = {},
    least: Collection[str] = (),
    bounded: bool = True,
    from_file: bool = False,
    longest: bool = False,
) -> Model:
    """A Model of the program. dim_names: of dimensions, by torch's symbols. least: names of dimensions that must be 2 or more. bounded: whether
    the program's ranges of sizes are the caller's. from_file: whether the program may be damaged. longest: whether a row must reach the last step where rows are padded again."""
    given, program = program, simplified(program)
    live: set = set()
    for node in reversed(program.graph.nodes):
        if node.op == "output" or node in live:
            live |= {node, *node.all_input_nodes}
    importer, signature = GraphImporter(live, from_file, longest or _lengths_computed(program)), program.graph_signature
    specs = {spec.arg.name: spec for spec in signature.input_specs if not isinstance(spec.arg, ConstantArgument)}
    constants = {spec.arg.name: spec.arg.value for spec in signature.input_specs if isinstance(spec.arg, ConstantArgument)}
    inputs = []
    with torch.no_grad():
        for node in program.graph.nodes:
            if node.op == "placeholder" and node.name in constants:
                importer.values[node] = constants[node.name]  # a number among the example inputs, as it was there
            elif node.op == "placeholder" and specs[node.name].kind is InputKind.USER_INPUT:
                inputs.append(importer.input(node))
            elif node.op == "placeholder":
                importer.values[node] = _stored(importer, program, specs[node.name])
            elif node.op == "call_function" and node in live:
                importer.run(node)
            elif node.op not in ("call_function", "output"):
                raise UnsupportedModelError(f"node {node.name!r}: {node.op} in an exported program is not supported")
    results = _results(program, importer)
    return _finished(
        importer, inputs, results, name, dim_names, lambda names: assumptions(given, inputs, {s for s in names if names[s] in least}, bounded)
    )


def _lengths_computed(program) -> bool:
    """Whether rows are padded again whose lengths are no input, so that none can be drawn that say whether it matters how far."""
    for node in program.graph.nodes:
        if str(node.target) == "fastrnn.longest.default":
            source = node.args[0]
            while source.op == "call_function" and str(source.target) in AS_THEY_ARE:
                source = source.args[0]
            if source.op != "placeholder":
                return True
    return False


def _stored(importer: GraphImporter, program, spec) -> Tensor:
    """A parameter, buffer or constant of the program."""
    if spec.target in program.constants and (spec.kind is not InputKind.PARAMETER):
        tensor = program.constants[spec.target]
    elif spec.target in program.state_dict:
        tensor = program.state_dict[spec.target]
    elif spec.kind is InputKind.TOKEN:
        raise UnsupportedModelError(
            "the program has operators with side effects, such as checks of what a decomposition gave; they are not supported"
        )
    else:
        raise UnsupportedModelError(f"input {spec.arg.name!r} of the program is a {spec.kind.name.lower()}, which is not supported")
    kind = spec.kind.name.lower().replace("_", " ")
    if not isinstance(tensor, torch.Tensor):
        raise UnsupportedModelError(f"{kind} {spec.target!r} is a {type(tensor).__name__}, not a tensor")
    if (
        spec.kind is InputKind.PARAMETER
        and tensor.dtype.itemsize > 1
        and tensor.dtype not in (torch.float32, torch.complex64)
        and (tensor.is_floating_point() or tensor.is_complex())
    ):
        raise DTypeError(f"{spec.target} must be float32, got {tensor.dtype}; convert the module with .float()")
    return importer.weight(spec.target, tensor, f"{kind} {spec.target!r}")


def path_name(path) -> str:
    """A pytree's path as a name: keys and places joined by dots; a place in the outermost tuple is y0, y1, ..."""
    parts = [str(p.idx) if hasattr(p, "idx") else str(getattr(p, "key", getattr(p, "name", p))) for p in path]
    return ".".join([f"y{parts[0]}" if hasattr(path[0], "idx") else parts[0], *parts[1:]]) if path else "y"


def _results(program, importer: GraphImporter) -> dict[str, Tensor]:
    """The outputs by name; None among them is left out."""
    nodes = {node.name: node for node in program.graph.nodes}
    for spec in program.graph_signature.output_specs:
        if spec.kind is not OutputKind.USER_OUTPUT:
            raise UnsupportedModelError(
                f"{spec.kind.name.lower().replace('_', ' ')} of {spec.target!r}: the module changes it when it runs; pass it in as an input and "
                "return its new value, and tie the two as a state"
            )
    arguments = [spec.arg for spec in program.graph_signature.output_specs]
    tree = pytree.tree_unflatten(list(range(len(arguments))), program.call_spec.out_spec)
    results: dict[str, Tensor] = {}
    for path, k in pytree.tree_flatten_with_path(tree)[0]:
        name, argument = path_name(path), arguments[k]
        if isinstance(argument, ConstantArgument) and argument.value is None:
            continue
        if not isinstance(argument, TensorArgument):
            raise UnsupportedModelError(f"output {name!r} is no tensor but {getattr(argument, 'value', type(argument).__name__)!r}")
        value = importer.values[nodes[argument.name]]
        results[name] = joined(importer, value) if isinstance(value, Complex) else value
    if not results:
        raise UnsupportedModelError("the module returns no tensor")
    return results


def _finished(
    importer: GraphImporter,
    inputs: list[Value],
    results: Mapping[str, Tensor],
    name: str,
    dim_names: Mapping[str, str],
    relations: Callable[[Mapping[str, str]], list],
) -> Model:
    """Nodes and weights that the outputs need, each weight once, the outputs and dimensions named."""
    build, outputs = importer.build, [importer.unique(wanted) for wanted in results]
    sources = [value.name for value in results.values()]
    raw = Model(tuple(inputs), tuple(dict.fromkeys(sources)), tuple(_needed(build.nodes, sources)), build.weights, (), name)
    names = named_dimensions(raw, dim_names)
    for text, condition in conditions(importer, inputs, relations(names), names):
        checked = importer.unique("checked")
        build.add("Require", checked, [sources[0], condition], [checked], message=f"{ASSUMED} {text}")
        sources[0] = checked
    for output, source in zip(outputs, sources):
        build.add("Identity", output, [source], [output])
    same = _repeated(build.weights)
    nodes = [replace(n, inputs=tuple(same.get(i, i) for i in n.inputs)) for n in _needed(build.nodes, outputs)]
    read = {i for n in nodes for i in (*n.inputs, *n.reads())}
    weights = {k: a for k, a in build.weights.items() if k in read}

    def renamed(dim):
        return re.sub(r"\bs\d+\b|\bu\d+\b", lambda m: names.get(m[0], m[0]), dim) if isinstance(dim, str) else dim

    declared = {}
    for output, value in zip(outputs, results.values()):
        dims = tuple(str(d) if known is None else known for d, known in zip(value.fake.shape, value.shape))
        declared[output] = Spec(value.dtype, tuple(map(renamed, dims)))
    inputs = [replace(v, shape=tuple(map(renamed, v.shape))) for v in inputs]
    return Model(tuple(inputs), tuple(outputs), tuple(nodes), weights, (), name, declared)


def _repeated(weights: Mapping) -> dict[str, str]:
    """Weights that another one equals, by name: tied ones, and those of a cell that runs many times."""
    first, same = {}, {}
    for name, array in weights.items():
        key = (array.dtype.str, array.shape, hashlib.blake2b(array.tobytes(), digest_size=16).digest())
        if first.setdefault(key, name) != name:
            same[name] = first[key]
    return same


def _needed(nodes: Iterable[Node], outputs: Iterable[str]) -> list[Node]:
    """Those that the outputs follow from, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(list(nodes)):
        if wanted & set(node.outputs):
            wanted |= node.reads()
            kept.append(node)
    return kept[::-1]


def named_dimensions(model: Model, given: Mapping[str, str]) -> dict[str, str]:
    """Names for torch's symbols: those given, T and B by the first recurrent layer that has them, else the input and the axis."""
    symbols = [d for v in model.inputs for d in v.shape if isinstance(d, str) and re.fullmatch(r"s\d+", d)]
    names, taken = dict(given), set(given.values())

    def give(symbol, name):
        if symbol in symbols and symbol not in names and name not in taken:
            names[symbol] = name
            taken.add(name)

    for node in model.nodes:
        spec = model.specs.get(node.input(0)) if node.op in RECURRENT else None
        if spec is not None and spec.shape is not None:
            layout = node.get("layout")
            give(spec.shape[layout], "T")
            give(spec.shape[1 - layout], "B")
    leading = {v.shape[0] for v in model.inputs if v.shape}
    if len(leading) == 1 and "B" not in taken and symbols:
        give(leading.pop(), "B")
    rest = {s for s in symbols if s not in names}
    if len(rest) == 1 and "B" in taken and any(node.op in RECURRENT for node in model.nodes):
        give(rest.pop(), "T")
    for value in model.inputs:
        for axis, dim in enumerate(value.shape):
            give(dim, f"{value.name}_{axis}")
    return names
