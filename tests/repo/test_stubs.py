"""The stubs of compiled modules say what the modules hold: every name, and the parameters of every function, their kinds and which may be left out."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import fastrnn

PACKAGE = Path(fastrnn.__file__).parent
STUBS = sorted(PACKAGE.rglob("*.pyi"))
UNTOLD = ("__init__", "__len__", "__contains__", "__reduce__")  # slots of C, whose parameters Python is not told


def compiled(stub: Path):
    """The module of a stub; one for another processor is not there, nor is one for what several modules have in common."""
    name = ".".join(("fastrnn", *stub.relative_to(PACKAGE).with_suffix("").parts))
    if not any(stub.parent.glob(f"{stub.stem}.*.so")):
        pytest.skip(f"{name} is not built here")
    return importlib.import_module(name)


def body_of(stub: Path) -> list[ast.stmt]:
    """What a stub says, that of a neighbour's which it gives on included."""
    found: list[ast.stmt] = []
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        neighbour = stub.with_name(f"{node.module.rpartition('.')[2]}.pyi") if isinstance(node, ast.ImportFrom) and node.module else None
        if neighbour and neighbour.exists():
            given_on = {one.asname for one in node.names}
            found += [n for n in body_of(neighbour) if (n.target.id if isinstance(n, ast.AnnAssign) else getattr(n, "name", None)) in given_on]
        elif not isinstance(node, ast.Expr):
            found.append(node)
    return found


def parameters_of_stub(function: ast.FunctionDef) -> list[tuple[str, int, bool]]:
    """(name, kind, whether it may be left out) of each."""
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    found = [(p.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, k >= len(positional) - len(a.defaults)) for k, p in enumerate(positional)]
    return found + [(p.arg, inspect.Parameter.KEYWORD_ONLY, d is not None) for p, d in zip(a.kwonlyargs, a.kw_defaults, strict=True)]


def parameters_of(function) -> list[tuple[str, int, bool]]:
    return [(p.name, p.kind, p.default is not p.empty) for p in inspect.signature(function).parameters.values()]


def compare(where: str, body: list[ast.stmt], things: dict[str, object]) -> int:
    """Holds a module or class against its stub; how many functions were compared."""
    said: dict[str, list[ast.stmt]] = {}
    for node in body:
        name = node.target.id if isinstance(node, ast.AnnAssign) else getattr(node, "name", None)
        if name:
            said.setdefault(name, []).append(node)
    assert set(things) <= set(said), f"{where}: the stub lacks {sorted(set(things) - set(said))}"
    compared = 0
    for name, nodes in said.items():
        assert name in things or name in UNTOLD, f"{where}: there is no {name}"
        if isinstance(nodes[0], ast.ClassDef):
            own = {k: v for k, v in vars(things[name]).items() if not k.startswith("__")}
            compared += compare(f"{where}.{name}", nodes[0].body, own)
        elif isinstance(nodes[0], ast.FunctionDef) and name not in UNTOLD and callable(things[name]):
            wanted = parameters_of(things[name])
            for node in nodes:  # of an overload, some must be given that the function has a default for
                given = parameters_of_stub(node)
                assert [p[:2] for p in given] == [p[:2] for p in wanted], f"{where}.{name}: {given} in the stub, {wanted} in the module"
                assert all(not left_out or may for (_, _, left_out), (_, _, may) in zip(given, wanted, strict=True)), (
                    f"{where}.{name}: a default that the module has not"
                )
            compared += 1
    return compared


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: f"{stub.parent.name}.{stub.stem}")
def test_a_stub_says_what_its_module_holds(stub):
    module = compiled(stub)
    own = {}
    for name, thing in vars(module).items():
        made_here = getattr(thing, "__module__", None) == module.__name__ or isinstance(thing, int | tuple) and name.isupper()
        if made_here and not (name.startswith("_") and not inspect.isclass(thing)):
            own[name] = thing
    body = body_of(stub)
    for name in [
        name
        for name, thing in own.items()
        if isinstance(thing, int | tuple) and not any(isinstance(n, ast.AnnAssign) and n.target.id == name for n in body)
    ]:
        del own[name]  # a constant that the module only reads
    assert compare(module.__name__, body, own) > 0 or stub.stem == "_cpu"


def functions_of(thing) -> list:
    """A public function, or the public methods of a class that are written in Python, and how it is made and called."""
    if not inspect.isclass(thing):
        return [thing] if inspect.isfunction(thing) else []
    names = [name for name in dir(thing) if not name.startswith("_") or name in ("__init__", "__call__")]
    found = [inspect.getattr_static(thing, name) for name in names]
    found = [getattr(f, "fget", None) or getattr(f, "func", None) or getattr(f, "__func__", f) for f in found]
    return [f for f in found if inspect.isfunction(f) and f.__module__.startswith("fastrnn")]


@pytest.mark.parametrize(
    "module",
    ["fastrnn", "fastrnn.training", "fastrnn.training.diagnostics", "fastrnn.serving", "fastrnn.converters", "fastrnn.cells.maths", "fastrnn.model"],
)
def test_public_signatures_are_annotated(module):
    module, looked_at = importlib.import_module(module), 0
    for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
        for function in functions_of(getattr(module, name)):
            missing = [
                p.name
                for k, p in enumerate(inspect.signature(function).parameters.values())
                if p.annotation is p.empty and not (k == 0 and p.name in ("self", "cls"))
            ]
            assert not missing and ("return" in function.__annotations__ or function.__name__ == "__init__"), (
                f"{function.__module__}.{function.__qualname__}: {missing or 'the result'}"
            )
            looked_at += 1
    assert looked_at
