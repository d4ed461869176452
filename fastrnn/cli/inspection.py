"""inspect: what a model is made of, and what runs it."""

from __future__ import annotations

from collections import Counter

from fastrnn.cli.commands import parameters
from fastrnn.cli.console import Console
from fastrnn.cli.options import as_options, compiled, loaded, precision_of, said, sizes_of
from fastrnn.converters.samples import stream_batch
from fastrnn.errors import NotStreamableError
from fastrnn.model.graph import every_node
from fastrnn.runtime.session import Session


def inspect(arguments, console: Console) -> int:
    """Inputs, outputs, states, parameters, sizes, and the kernel of every op."""
    with console.progress("inspect", 2) as progress:
        progress("reading", 0)
        read = loaded(arguments, console)
        progress("compiling", 1)
        session = compiled(arguments, read, backend=arguments.backend, precision=precision_of(arguments.precision))
    model, tied = session.model, {s.input: s.source + (" (guessed)" if session.guess.states else "") for s in session.states}
    sizes = sizes_of(arguments, model)
    rows = session.plan.rows({v.name: tuple(sizes.get(d, d) for d in v.shape) for v in model.inputs} if sizes else None)
    left = [row[1].strip() for row in rows if row[2] == "NumPy"]
    kept, streams = _kept(session, arguments)
    facts = {"states_to_write": f"states={dict(session.guess.states)!r}, {as_options(session.guess.states)}"} if session.guess.states else {}
    console.facts(
        model=arguments.model,
        backend=session.plan.backend,
        isa=session.plan.isa,
        precision=said(session.plan.precision),
        graph_nodes=len(model.nodes),
        parameters=sum(a.size for a in parameters(model).values()),
        weight_bytes=sum(a.nbytes for a in model.weights.values()),
        nodes_after_folding=len(rows),
        nodes_left_to_numpy=len(left),
        streams=streams,
        **facts,
    )
    values = [("input", v) for v in model.inputs] + [("output", v) for v in model.outputs]
    console.table(
        "values",
        "Inputs and outputs",
        ("kind", "name", "dtype", "shape", "state"),
        ((kind, v.name, v.dtype, _shape(v.shape), tied.get(v.name) if kind == "input" else None) for kind, v in values),
    )
    console.table("states", "States", ("name", "dtype", "shape", "next", "from", "why"), kept)
    console.table("weights", "Parameters", ("name", "dtype", "shape", "numbers", "read_by"), _weights(model))
    console.table("ops", "Ops", ("op", "nodes", "compiled", "numpy", "neither", "why_numpy"), _ops(rows))
    console.table("nodes", "What runs", ("op", "node", "kernel", "backend", "isa", "packed", "why"), rows)
    return 0


def _shape(shape) -> str:
    return ", ".join(map(str, shape)) or "scalar"


def _kept(session: Session, arguments) -> tuple[list[tuple], str]:
    """The states that streams carry, what is not certain, and whether the model streams."""
    said = "--state" if arguments.state else "declared"
    guess = session.guess
    rows = [
        (s.input, s.dtype, _shape(s.shape), s.source, "guessed" if s.input in guess.states else said, guess.why.get(s.input)) for s in session.states
    ]
    declared = {v.name: v for v in session.model.inputs}
    rows += [(name, declared[name].dtype, _shape(declared[name].shape), None, "not certain", why) for name, why in guess.open.items()]
    try:
        stream = session.stream(stream_batch(session))
    except NotStreamableError as error:
        return rows, f"no: {error}"
    known = {row[0] for row in rows}
    rows += [
        (name, str(a.dtype), _shape(a.shape), None, "inside", f"for a batch of {stream.batch}")
        for name, a in stream.state.items()
        if name not in known
    ]
    return rows, f"yes, along {stream.time!r}" if stream.time else "yes, a call a step" if rows else "a call a step, without states"


def _weights(model) -> list[tuple]:
    """A row for each parameter; scalars and other constants of the graph, which are integers, are left out."""
    readers: dict[str, list[str]] = {}
    for node, _ in every_node(model.nodes):
        for name in dict.fromkeys(node.inputs):
            readers.setdefault(name, []).append(node.name)
    return [(name, str(a.dtype), _shape(a.shape), a.size, ", ".join(readers.get(name, []))) for name, a in parameters(model).items()]


def _ops(rows) -> list[tuple]:
    """For each op how many of its nodes run compiled, in NumPy, or not at all: views, what is fused into others or computed beforehand."""
    counts: dict[str, Counter] = {}
    whys: dict[str, dict[str, None]] = {}
    for op, _, kernel, *_, why in rows:
        where = "numpy" if kernel == "NumPy" else "neither" if kernel == "-" else "compiled"
        counts.setdefault(op, Counter())[where] += 1
        if where == "numpy":
            whys.setdefault(op, {})[why.split(";")[0]] = None
    return [(op, c.total(), c["compiled"], c["numpy"], c["neither"], "; ".join(whys.get(op, {})) or None) for op, c in sorted(counts.items())]
