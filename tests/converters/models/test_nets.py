"""Every test network by way of torch.export and by way of ONNX, against torch itself, at the example's sizes and at others.

Each goes through torch.export and one opset here, taken in turns, of which `-m sweep` runs the rest; `-m slow` runs them all through every opset.
"""

import contextlib
import io
import pickle
import warnings

import numpy as np
import pytest

import fastrnn as fr
from fastrnn.testing import TOLERANCES, kernels_called, kernels_said

torch = pytest.importorskip("torch")
from nets import NETS
from torch.export import Dim
from torch.utils import _pytree as pytree

NEWEST = 23
OPSETS = (11, 13, 17, NEWEST)  # the newest by torch's newer exporter, the others by the older one
# Of an output's largest entry. Older opsets spell norms out, and torch itself rounds in another order than float64.
TOLERANCE = TOLERANCES["network"]
NAMES = sorted(NETS)
# torch's newer exporter writes GRU with linear_before_reset=0, which computes something else; the importer warns of it.
WRONG_GRU = "linear_before_reset=0"


def leaves(tree) -> list:
    return [t for t in pytree.tree_leaves(tree) if isinstance(t, torch.Tensor)]


def worst(session, module, net, sizes) -> float:
    """Largest error relative to its output, over sizes."""
    found = 0.0
    for batch, steps in sizes:
        inputs = net.draw(batch, steps)
        arrays = [t.numpy() for t in leaves(inputs)]
        with torch.no_grad():
            wanted = leaves(module(**inputs))
        got = session.run(dict(zip(session.model.input_names, arrays, strict=True)))
        shapes = dict(zip(session.model.input_names, (a.shape for a in arrays)))
        assert kernels_said(session, shapes) == kernels_called(session, shapes)
        for want, have in zip(wanted, got.values(), strict=True):
            want = want.numpy()
            assert have.shape == want.shape and have.dtype == want.dtype, (batch, steps)
            assert np.isfinite(want).all()
            found = max(found, float(np.abs(have - want).max() / max(np.abs(want).max(), 1e-30))) if want.dtype != bool else found
    return found


def same_bits_after_saving(model, session, net, path) -> None:
    """At the example's sizes; of a session that was pickled, too."""
    model.save(path)
    inputs = dict(zip(model.input_names, (t.numpy() for t in leaves(net.draw(*net.example)))))
    want = session.run(inputs).values()
    for again in (fr.compile(fr.load(path)), pickle.loads(pickle.dumps(session))):
        for mine, theirs in zip(want, again.run(inputs).values(), strict=True):
            assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("name", NAMES)
def test_torch_export(name, tmp_path):
    net = NETS[name]
    module = net.module()
    model = fr.from_torch(module, net.draw(*net.example))
    session = fr.compile(model)
    assert worst(session, module, net, net.sizes()) <= TOLERANCE
    same_bits_after_saving(model, session, net, tmp_path / "net.safetensors")


def flat_axes(net) -> list[dict]:
    return [one for axes in net.axes.values() for one in (axes if isinstance(axes, tuple) else (axes,))]


def written(net, module, opset: int) -> bytes:
    """The network as torch writes it in ONNX."""
    example, file, quiet = net.draw(*net.example), io.BytesIO(), io.StringIO()
    names = [f"input_{k}" for k in range(len(leaves(example)))]
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        if opset == NEWEST:
            shapes = pytree.tree_map(
                lambda axes: dict.fromkeys(axes, Dim.AUTO), net.axes, is_leaf=lambda a: isinstance(a, dict) and a is not net.axes
            )
            torch.onnx.export(module, (), kwargs=example, dynamic_shapes=shapes, opset_version=opset, dynamo=True, verbose=False).save(file)
        else:
            axes = dict(zip(names, flat_axes(net), strict=True))
            torch.onnx.export(module, tuple(example.values()), file, input_names=names, dynamic_axes=axes, opset_version=opset, dynamo=False)
    return file.getvalue()


def unwritten(net, opset: int) -> str:
    """Why there is no such file, empty where there is."""
    if net.no_onnx or opset == NEWEST and net.not_newest:
        return net.no_onnx or net.not_newest
    return f"torch writes it from opset {net.oldest} on" if opset < net.oldest else ""


def through_onnx(name: str, opset: int, tmp_path) -> None:
    net = NETS[name]
    if why := unwritten(net, opset):
        pytest.skip(why)
    module = net.module()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = fr.from_onnx(written(net, module, opset))
    session = fr.compile(model)
    sizes = net.sizes()
    if opset == NEWEST:  # torch.export unrolls recurrent layers, which fixes their steps
        sizes = [(batch, net.example[1]) for batch, _ in sizes]
    elif net.fixed_in_onnx:
        sizes = [net.example]
    error = worst(session, module, net, sizes)
    if any(WRONG_GRU in str(w.message) for w in said):
        assert error > 100 * TOLERANCE, "a GRU that is written wrongly computes something else"
        return
    assert error <= TOLERANCE
    same_bits_after_saving(model, session, net, tmp_path / "net.safetensors")


def in_turns() -> list[tuple[str, int]]:
    """Each network with one opset that torch can write it in, all of them about as often."""
    counts, pairs = dict.fromkeys(OPSETS, 0), []
    for name in NAMES:
        if not NETS[name].no_onnx:
            opset = min((o for o in OPSETS if not unwritten(NETS[name], o)), key=counts.get)
            counts[opset] += 1
            pairs.append((name, opset))
    assert min(counts.values()) >= 10
    return pairs


def sampled():
    """torch's newer exporter takes seconds for a network: every fourth of those, the others are a sweep."""
    newest = 0
    for name, opset in in_turns():
        newest += opset == NEWEST
        yield pytest.param(name, opset, marks=[pytest.mark.sweep] if opset == NEWEST and newest % 4 != 1 else [])


@pytest.mark.parametrize("name,opset", list(sampled()))
def test_onnx(name, opset, tmp_path):
    through_onnx(name, opset, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", NAMES)
def test_onnx_all_opsets(name, opset, tmp_path):
    through_onnx(name, opset, tmp_path)
