"""from_torch: modules made of known layers, read layer by layer; others by way of torch.export (torch_export/). For inference: dropout is off."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.cells.activations import Activation
from fastrnn.converters.samples import index_ranges
from fastrnn.errors import DTypeError, MissingDependencyError, UnsupportedModelError
from fastrnn.model import Model, State, Value
from fastrnn.model.builder import GraphBuilder
from fastrnn.model.stack import StackOptions, add_stack, stack_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn
    from torch.export import ExportedProgram

    from fastrnn.cells import Cell
    from fastrnn.runtime.layers import Recurrent

    # a custom cell, or what makes a layer of a module, for each class of modules that is kept whole
    Cells = Mapping[type[nn.Module], Cell | Callable[[Any], Recurrent]]


def from_torch(
    module: nn.Module | ExportedProgram,
    example_inputs: Any = None,
    dynamic_shapes: Any = None,
    *,
    tolerance: float | None = None,
    cells: Cells | None = None,
) -> Model:
    """A Model from an nn.Module or a torch.export.ExportedProgram. Weights are copied. With example_inputs the module is run, on copies of them and
    on values and sizes like theirs, in eval mode and with gradients off; it is left as it was, attributes that forward sets included. Meanwhile no other
    thread may use it.

    **With example_inputs** (a tuple of arguments, a dict by name, or one tensor) any module that torch.export can capture is converted, for
    inference: in eval mode, whatever mode it is in. Inputs have the names of forward's arguments (those inside a tuple or dict, such as state_0),
    outputs theirs in a returned dict, else y, or y0, y1, ... in a returned tuple. dynamic_shapes says which dimensions may vary, as
    torch.export has it. Without it, every dimension of the example may, except where the module fixes it: by its weights, by a loop over
    the steps. torch.export takes a 1 for a constant, so axes of 1 are doubled for it where the module takes that; best give an example of at least
    2 rows and 2 steps, its sizes all different. Numbers among the example inputs are fixed. A packed sequence becomes rows with lengths, in any order; what
    pad_packed_sequence gives is as long as the padded input, and where the rest of the module depends on that, a call needs a row that reaches the last step. Sizes that an operator needs fixed are the example's, and a warning says so. A module
    whose outputs depend on its earlier calls, by self.hidden for one, is refused.

    The model is then compared with the module, on the example, on drawn values, and at other sizes and lengths: ConversionError names the output that
    differs by more than tolerance (1e-4) times its largest entry, unless torch itself is as far from float64, of which a warning tells. An
    ExportedProgram is compared on its own example inputs, or on example_inputs.

    Buffers that forward writes (self.hidden[:] = h) become states: inputs under their names, outputs NAME_n, tied. Streams carry them, from the buffers' values at conversion on.
    A torch.jit.ScriptModule is saved in memory and its code followed, not run by torch.jit; without example_inputs its weights and annotations say what it takes.

    cells keeps modules of these classes whole, however their forward loops, as compiled layers of a custom cell: {class: cell}, where the module's
    parameters have torch's names for it (weight_ih, weight_hh, bias_ih, ..., with or without _l0), or {class: function of the module that returns a
    fastrnn.Recurrent}. Such a forward takes x (T, B, I) (with an attribute batch_first (B, T, I)), the cell's scalars by name and at most a state,
    and returns y, or y and the final states, (B, H) or (layers * directions, B, H).

    **Without**, a module made of known layers is read layer by layer, then run on drawn inputs to compare: RNN, LSTM, GRU and their cells, Sequential, Linear, Embedding, Conv1d,
    LayerNorm, BatchNorm1d (in eval mode), Dropout, Flatten, Identity and activations. A bare nn.RNN, GRU or LSTM has inputs x, h0, c0 and outputs
    y, h_n, c_n, with the states tied; a cell likewise, without the time axis; so also where example_inputs are given. Inside a Sequential a
    recurrent layer hands on its output sequence, and its states stay inside until a Stream carries them.

    Parameters must be float32 (DTypeError otherwise; .float() converts a module). Raises UnsupportedModelError naming the operator
    and line, or submodule and attribute, that stand in the way.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "torch", "from_torch") from error
    if tolerance is not None and not (isinstance(tolerance, (int, float)) and 0 < tolerance < float("inf")):
        raise UnsupportedModelError(f"from_torch: tolerance must be a positive number, got {tolerance!r}")
    if isinstance(module, torch.export.ExportedProgram):
        from fastrnn.converters.torch_export import convert_program

        if cells:
            raise UnsupportedModelError("from_torch: the modules of an ExportedProgram are gone; cells goes with the module")
        if dynamic_shapes is not None:
            raise UnsupportedModelError("from_torch: an ExportedProgram's dimensions are settled; dynamic_shapes goes to torch.export.export")
        return convert_program(module, example_inputs, "program", tolerance)
    module = getattr(module, "_orig_mod", module)  # what torch.compile wraps
    if isinstance(module, torch.jit.ScriptModule):
        return _scripted(module, example_inputs, dynamic_shapes, tolerance=tolerance, cells=cells)
    if isinstance(module, torch.jit.ScriptFunction):
        raise UnsupportedModelError("from_torch: torch.jit.script and torch.jit.trace of a function are not read; put the function into an nn.Module")
    if not isinstance(module, torch.nn.Module):
        raise UnsupportedModelError(f"from_torch takes a torch.nn.Module or an ExportedProgram, got {type(module).__name__}")
    if example_inputs is None and cells:
        raise UnsupportedModelError("from_torch: cells needs example_inputs, which the module is captured with")
    if example_inputs is None and dynamic_shapes is not None:
        raise UnsupportedModelError("from_torch: dynamic_shapes needs example_inputs, which the module is captured with")
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise UnsupportedModelError(
                f"from_torch: module {path or part.original_name!r} is TorchScript, from torch.jit.script or trace, which cannot be captured; give "
                "the module that it was made from, or write it to ONNX with torch.onnx.export(..., dynamo=False) and read that with from_onnx"
            )
    if lazy := [path for path, tensor in (*module.named_parameters(), *module.named_buffers()) if torch.nn.parameter.is_lazy(tensor)]:
        raise UnsupportedModelError(
            f"from_torch: {lazy[0]!r} has no values yet, nor a shape: call the lazy module once, as it is to be used, and convert it then"
        )
    if example_inputs is not None and (dynamic_shapes is not None or cells or not _only_read(module, torch.nn)):
        from fastrnn.converters.torch_export import convert_module
        from fastrnn.converters.torch_export.carried import convert_carried, written_buffers

        if written := written_buffers(module, example_inputs):
            return convert_carried(module, written, example_inputs, dynamic_shapes, tolerance, cells)
        return convert_module(module, example_inputs, dynamic_shapes, tolerance, cells)
    return _known_layers(module, torch.nn, example_inputs, tolerance)


def _scripted(module: Any, example_inputs: Any, dynamic_shapes: Any, **options: Any) -> Model:
    """A ScriptModule by way of its archive, whose code is followed."""
    from fastrnn.converters.torch_script import load_script, script_module

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{module.original_name.lower()}.pt"
        module.save(str(path))
        if example_inputs is None and dynamic_shapes is None:
            return load_script(path)
        return from_torch(script_module(path), example_inputs, dynamic_shapes, **options)


def _only_read(module: Any, nn: Any) -> bool:
    """Whether a module is read layer by layer in any case: bare recurrent ones, for their states, and Sequentials that hand on a recurrent layer's
    outputs, which torch cannot call."""
    bare = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
    if type(module) in bare and _hooked(module):
        return False
    return type(module) in bare or type(module) is nn.Sequential and any(type(m) in bare[:3] for _, m in list(_flatten(module, nn))[:-1])


def _hooked(module: Any) -> bool:
    """Whether more than its class's forward runs when it is called: weight_norm, spectral_norm and pruning set hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__)


def _known_layers(module: Any, nn: Any, example_inputs: Any, tolerance: float | None) -> Model:
    """A module made of known layers, read layer by layer and compared."""
    for path, part in module.named_modules():
        if _hooked(part):
            raise UnsupportedModelError(
                f"module {path or type(part).__name__!r} has forward hooks or a replaced forward, which may change what it computes; "
                "with example_inputs they are captured"
            )
    if type(module) in (nn.RNN, nn.GRU, nn.LSTM):
        o, name = stack_options(module), type(module).__name__.lower()
        model = stack_model(o, _parameters(module, o, name), name)
    elif type(module) in (nn.RNNCell, nn.GRUCell, nn.LSTMCell):
        model = _cell_model(module)
    else:
        model = _sequential_model(module, nn)
    _compare(module, model, nn, example_inputs, tolerance)
    return model


def _compare(module: Any, model: Model, nn: Any, example_inputs: Any, tolerance: float | None) -> None:
    """Raises UnsupportedModelError where the module does not take the example, ConversionError where the model differs from the module on drawn inputs, where their sizes follow
    from the layers."""
    from fastrnn.converters.torch_export.capture import arguments
    from fastrnn.converters.torch_export.check import TOLERANCE, check_at
    from fastrnn.converters.torch_export.subject import Subject, evaluating

    class HandingOn(nn.Module):  # type: ignore[misc]  # torch has no types here
        """A Sequential whose recurrent layers hand on their outputs."""

        def forward(self, x: Any) -> Any:
            for _, part in _flatten(module, nn):
                x = part(x)
                x = x[0] if isinstance(x, tuple) else x
            return x

    HandingOn.__name__ = type(module).__name__
    called = HandingOn() if isinstance(module, nn.Sequential) else module

    def run(x: Any, *states: Any) -> Any:
        if not states:
            return called(x)
        given = called(x, states if len(states) == 2 else states[0])
        if isinstance(module, nn.RNNCellBase):
            return (given[0], *given) if isinstance(given, tuple) else (given, given)
        return given

    with evaluating(module):
        if example_inputs is not None:
            args, kwargs = arguments(example_inputs)
            Subject(called).refuse_memory(args, kwargs)
        check_at(run, model, {"B": 2, "T": 3}, index_ranges(model), TOLERANCE if tolerance is None else tolerance)


def _array(tensor: Any, name: str) -> np.ndarray:
    if str(tensor.dtype) != "torch.float32":
        raise DTypeError(f"{name} must be float32, got {tensor.dtype}; convert the module with .float()")
    if tensor.is_meta or tensor.is_sparse:
        raise UnsupportedModelError(f"{name} is a meta or sparse tensor; from_torch needs dense values")
    return np.array(tensor.detach().cpu().numpy())


def _parameters(module: Any, o: StackOptions, path: str) -> dict[str, np.ndarray]:
    """A recurrent module's parameters, checked; those of a cell under a layer's names."""
    arrays = {name: _array(tensor, f"{path}.{name}") for name, tensor in module.state_dict().items()}
    return o.check({name if "_l" in name else f"{name}_l0": a for name, a in arrays.items()}, f"module {path!r}")


def stack_options(module: Any) -> StackOptions:
    """The options of an nn.RNN, GRU or LSTM."""
    kind = type(module).__name__.lower()
    relu = kind == "rnn" and module.nonlinearity == "relu"
    directions = 2 if module.bidirectional else 1
    return StackOptions(
        kind,
        module.input_size,
        module.hidden_size,
        module.num_layers,
        module.bias,
        module.batch_first,
        module.bidirectional,
        module.proj_size,
        activations=((Activation("relu"),),) * directions if relu else (),
    )


def _cell_model(cell: Any) -> Model:
    """x (B, I), h0, c0 -> y, h_n, c_n (B, H): one step of a stack, its time axis added and taken off again."""
    kind = type(cell).__name__[:-4].lower()
    relu = kind == "rnn" and cell.nonlinearity == "relu"
    o = StackOptions(kind, cell.input_size, cell.hidden_size, bias=cell.bias, activations=((Activation("relu"),),) if relu else ())
    build, letters = GraphBuilder(), o.states
    first = build.whole("first_axis", 0)
    build.add("Unsqueeze", "x.step", ["x", first], ["x.step"])
    for s in letters:
        build.add("Unsqueeze", f"{s}0.layer", [f"{s}0", first], [f"{s}0.layer"])
    add_stack(
        build,
        kind,
        o,
        _parameters(cell, o, type(cell).__name__),
        "x.step",
        "y.step",
        {s: f"{s}0.layer" for s in letters},
        {s: f"{s}_n.layer" for s in letters},
    )
    build.add("Squeeze", "y", ["y.step", first], ["y"])
    for s in letters:
        build.add("Squeeze", f"{s}_n", [f"{s}_n.layer", first], [f"{s}_n"])
    inputs = [Value("x", "float32", ("B", o.input_size)), *(Value(f"{s}0", "float32", ("B", o.hidden_size), optional=True) for s in letters)]
    return Model(
        tuple(inputs), ("y", *(f"{s}_n" for s in letters)), tuple(build.nodes), build.weights, tuple(State(f"{s}0", f"{s}_n") for s in letters), kind
    )


def _flatten(module: Any, nn: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, module) of every leaf of nested Sequentials."""
    if type(module) is not nn.Sequential:
        yield path or type(module).__name__.lower(), module
        return
    for name, child in module._modules.items():  # named_children() leaves out a module that stands there twice
        yield from _flatten(child, nn, f"{path}.{name}" if path else name)


def _sequential_model(module: Any, nn: Any) -> Model:
    leaves = list(_flatten(module, nn))
    recurrent = [(path, m) for path, m in leaves if type(m) in (nn.RNN, nn.GRU, nn.LSTM)]
    orders = {m.batch_first for _, m in recurrent}
    if len(orders) > 1:
        raise UnsupportedModelError(f"module {recurrent[-1][0]!r}: batch_first differs from the layers before it")
    leading = ("B",) if not recurrent else ("B", "T") if orders.pop() else ("T", "B")
    build, x, value = GraphBuilder(), "x", None
    for path, m in leaves:
        if type(m) is nn.Embedding and x != "x":
            raise UnsupportedModelError(f"module {path!r} (Embedding): only the first layer can take indices")
        value = value or _input_of(m, leading, nn)
        x = _leaf(build, path, m, x, nn)
    if value is None:
        raise UnsupportedModelError("from_torch: no layer says how many features the input has")
    names = {node.name for node in build.nodes}
    build.add("Identity", next(name for k in range(len(names) + 1) if (name := "y" + "_" * k) not in names), [x], ["y"])
    return Model((value,), ("y",), tuple(build.nodes), build.weights, (), type(module).__name__.lower())


def _input_of(m: Any, leading: Any, nn: Any) -> Value | None:
    """The model's input, where this layer says what it takes."""
    if type(m) is nn.Embedding:
        return Value("x", "int64", leading)
    if type(m) is nn.Conv1d:
        return Value("x", "float32", ("B", m.in_channels, "L"))
    if type(m) is nn.LayerNorm:
        return Value("x", "float32", (*leading, *m.normalized_shape))
    size = getattr(m, "in_features", None) or getattr(m, "input_size", None) or (m.num_features if type(m) is nn.BatchNorm1d else None)
    return None if size is None else Value("x", "float32", (*leading, size))


def _activation_node(m: Any, nn: Any, path: str) -> tuple[str, dict[str, Any]] | None:
    """(op, attributes) of an activation module, None if it is none."""
    simple = {nn.ReLU: "Relu", nn.Sigmoid: "Sigmoid", nn.Tanh: "Tanh", nn.Softsign: "Softsign", nn.SiLU: "Silu"}
    if type(m) in simple:
        return simple[type(m)], {}
    if type(m) is nn.LeakyReLU:
        return "LeakyRelu", {"alpha": m.negative_slope}
    if type(m) is nn.ELU:
        return "Elu", {"alpha": m.alpha}
    if type(m) is nn.Hardsigmoid:
        return "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}
    if type(m) is nn.GELU:
        return "Gelu", {"approximate": m.approximate}
    if type(m) is nn.Softplus and m.beta == 1 and m.threshold == 20:  # past 20 the two forms round alike
        return "Softplus", {}
    if type(m) is nn.Threshold and m.value == 0:
        return "ThresholdedRelu", {"alpha": m.threshold}
    if type(m) in (nn.Softmax, nn.LogSoftmax):
        if m.dim is None:
            raise UnsupportedModelError(f"module {path!r} ({type(m).__name__}): dim is not set, so torch would guess it")
        return type(m).__name__, {"axis": m.dim}
    return None


def _weights(build: GraphBuilder, path: str, m: Any) -> list[str]:
    """A module's weight and bias, those that it has."""
    return [build.weight(f"{path}.{n}", _array(t, f"{path}.{n}")) for n in ("weight", "bias") if (t := getattr(m, n)) is not None]


def _conv1d(build: GraphBuilder, path: str, m: Any, x: str, y: str) -> None:
    """A Conv1d, its padding as widths; other than zeros, by a Pad in front."""
    if isinstance(m.padding, str):
        total = m.dilation[0] * (m.kernel_size[0] - 1) if m.padding == "same" else 0
        pads = [total // 2, total - total // 2]
    else:
        pads = [m.padding[0]] * 2
    if m.padding_mode != "zeros" and any(pads):
        mode = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[m.padding_mode]
        build.add("Pad", f"{path}.pad", [x, build.whole(f"{path}.pads", 0, 0, pads[0], 0, 0, pads[1])], [f"{path}.padded"], mode=mode)
        x, pads = f"{path}.padded", [0, 0]
    build.add("Conv", path, [x, *_weights(build, path, m)], [y], strides=list(m.stride), dilations=list(m.dilation), pads=pads, group=m.groups)


def _leaf(build: GraphBuilder, path: str, m: Any, x: str, nn: Any) -> str:
    """Adds one layer behind value x; returns the value it makes."""
    y = f"{path}.y"
    if type(m) in (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.Identity):
        return x
    if type(m) in (nn.RNN, nn.GRU, nn.LSTM):
        o = stack_options(m)
        add_stack(build, path, o, _parameters(m, o, path), x, y)
    elif type(m) is nn.Linear:
        build.add("Gemm", path, [x, *_weights(build, path, m)], [y], transB=1)
    elif type(m) is nn.Conv1d:
        _conv1d(build, path, m, x, y)
    elif type(m) is nn.LayerNorm:
        shape = tuple(m.normalized_shape)
        given = _weights(build, path, m) or [build.weight(f"{path}.ones", np.ones(shape, np.float32))]
        build.add("LayerNormalization", path, [x, *given], [y], axis=-len(shape), epsilon=m.eps)
    elif type(m) is nn.BatchNorm1d:
        if m.running_mean is None:
            raise UnsupportedModelError(f"module {path!r} (BatchNorm1d): it keeps no running statistics, so its output depends on the batch")
        n = m.num_features
        given = _weights(build, path, m) or [
            build.weight(f"{path}.weight", np.ones(n, np.float32)),
            build.weight(f"{path}.bias", np.zeros(n, np.float32)),
        ]
        stored = [
            build.weight(f"{path}.{k}", _array(t, f"{path}.{k}")) for k, t in (("running_mean", m.running_mean), ("running_var", m.running_var))
        ]
        build.add("BatchNormalization", path, [x, *given, *stored], [y], epsilon=m.eps)
    elif type(m) is nn.PReLU:
        slope = _array(m.weight, f"{path}.weight")
        if slope.size > 1:
            raise UnsupportedModelError(f"module {path!r} (PReLU): a slope for each channel is not supported without a traced shape")
        build.add("PRelu", path, [x, build.weight(f"{path}.weight", slope.reshape(1))], [y])
    elif type(m) is nn.Flatten:
        if (m.start_dim, m.end_dim) != (1, -1):
            raise UnsupportedModelError(f"module {path!r} (Flatten): only start_dim=1, end_dim=-1 is supported, got {m.start_dim}, {m.end_dim}")
        build.add("Flatten", path, [x], [y], axis=1)
    elif type(m) in (nn.Hardtanh, nn.ReLU6):
        bounds = [build.weight(f"{path}.{n}", np.array(v, np.float32)) for n, v in (("min", m.min_val), ("max", m.max_val))]
        build.add("Clip", path, [x, *bounds], [y])
    elif type(m) is nn.Embedding:
        if m.max_norm is not None:
            raise UnsupportedModelError(f"module {path!r} (Embedding): max_norm is not supported")
        build.add("Gather", path, [build.weight(f"{path}.weight", _array(m.weight, f"{path}.weight")), x], [y], wrap=0)
    elif (found := _activation_node(m, nn, path)) is not None:
        build.add(found[0], path, [x], [y], **found[1])
    else:
        raise UnsupportedModelError(
            f"module {path!r} ({type(m).__module__}.{type(m).__name__}) is not among the layers that from_torch reads by themselves; with example_inputs any "
            "module that torch.export captures is converted"
        )
    return y
