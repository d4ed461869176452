"""Rules of the repository, as tests: import direction, public names, what a bare import loads."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

import fastrnn as fr

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fastrnn"
# A module may import what stands to its left, and its own layer.
ORDER = ("errors", "typing", "log", "cells", "model", "kernels", "plan", "runtime", "converters", "training", "serving", "cli")
# These may import anything: public names, what tests share, and types, which no code that runs imports.
OUTSIDE = ("__init__", "__main__", "testing", "typing")


def layer_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else "__init__"


def modules():
    for folder, prefix in ((PACKAGE, "fastrnn"), (ROOT / "converters", "fastrnn.converters")):
        for path in folder.rglob("*.py*"):
            if path.suffix in (".py", ".pyx"):
                parts = path.relative_to(folder).with_suffix("").parts
                yield path, ".".join([prefix, *(p for p in parts if p != "__init__")])


def imported(path: Path):
    """Names of fastrnn modules that a file imports; .pyx files by their lines."""
    if path.suffix == ".pyx":
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith(("from fastrnn", "import fastrnn"))]
        return [words[1] for words in lines]
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("fastrnn"):
            found += [node.module] + [f"{node.module}.{a.name}" for a in node.names if node.module == "fastrnn"]
        elif isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.startswith("fastrnn")]
    return found


def test_imports_go_downwards_only():
    checked = 0
    for path, module in modules():
        mine = layer_of(module)
        if mine in OUTSIDE:
            continue
        for name in imported(path):
            theirs = layer_of(name)
            if name != "fastrnn":
                assert theirs in ORDER, f"{path}: {name}"
                assert ORDER.index(theirs) <= ORDER.index(mine), f"{path}: {mine} must not import {theirs}"
                checked += 1
    assert checked > 50


def test_the_map_has_the_rooms_in_this_order():
    rows = re.findall(r"^\| `(\w+)/?` \|", (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert rows == list(ORDER)


def test_the_runtime_never_names_torch_onnx_or_numba():
    for path, module in modules():
        if layer_of(module) not in ("converters",):
            text, names = path.read_text(encoding="utf-8"), ("torch", "onnx") if ".jit" in module else ("torch", "onnx", "numba", "llvmlite")
            assert not any(f"import {name}" in text or f"from {name}" in text for name in names), path


def test_public_names():
    assert len(set(fr.__all__)) == len(fr.__all__)
    assert all(getattr(fr, name) is not None for name in fr.__all__)
    assert all(getattr(fr, name).__doc__ for name in fr.__all__)
    assert {"LSTM", "GRU", "RNN", "load", "from_torch", "from_state_dict", "compile", "FastRNNError"} <= set(fr.__all__)
    assert all(issubclass(getattr(fr, name), fr.FastRNNError) for name in fr.__all__ if name.endswith("Error"))
    assert issubclass(fr.ShapeError, ValueError) and issubclass(fr.DTypeError, TypeError) and issubclass(fr.MissingDependencyError, ImportError)


def test_dir_shows_the_public_names_and_no_others():
    assert sorted(dir(fr)) == sorted([*fr.__all__, "__version__"])
    with pytest.raises(AttributeError, match="no attribute 'lstm'"):
        fr.lstm  # noqa: B018


def test_names_load_from_where_a_type_checker_finds_them():
    (block,) = (
        n
        for n in ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
        if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"
    )
    typed = {alias.name: node.module.removeprefix("fastrnn.") for node in block.body for alias in node.names}
    assert typed == fr._HOME
    assert {name for name in fr.__all__ if not name.endswith(("Error", "Warning"))} == set(fr._HOME)


def run_python(code: str, **environment) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env={**os.environ, **environment}, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_bare_import_loads_numpy_and_nothing_heavier():
    loaded = run_python(
        "import sys, fastrnn; print([m for m in ('torch', 'onnx', 'numba', 'llvmlite', 'rich', 'matplotlib', 'safetensors.torch', 'hypothesis') if m in sys.modules])"
    )
    assert loaded == "[]"
    assert (
        run_python(
            "import sys, fastrnn; fastrnn.compile, fastrnn.load; print([m for m in sys.modules if m.startswith(('fastrnn.serving', 'asyncio'))])"
        )
        == "[]"
    )


def test_a_bare_import_takes_a_third_of_numpys_at_most():
    code = "from time import process_time as now; a = now(); import numpy; b = now(); import fastrnn; print((now() - b) / (b - a))"
    assert sorted(float(run_python(code)) for _ in range(5))[2] < 0.35
    # what the names bring, once they are used, needs none of these
    heavy = run_python(
        "import sys, numpy; before = set(sys.modules); import fastrnn; fastrnn.compile, fastrnn.LSTM;"
        "print({'importlib.metadata', 'hashlib', 'email'} & (set(sys.modules) - before))"
    )
    assert heavy == "set()"


def test_the_source_folder_says_what_to_do(tmp_path):
    for path in PACKAGE.rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", "import fastrnn"], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert "ImportError: nothing is compiled" in done.stderr and "pip install -e ." in done.stderr and str(tmp_path) in done.stderr


def test_works_with_a_read_only_home(tmp_path):
    (tmp_path / "file").write_text("")  # nothing can be made below a file, not even by root
    home = str(tmp_path / "file" / "home")
    code = "import fastrnn, numpy; print(fastrnn.LSTM(2, 3)(numpy.ones((2, 1, 2), 'f4'))[0].shape)"
    assert run_python(code, HOME=home, XDG_CACHE_HOME=home) == "(2, 1, 3)"


def test_missing_packages_are_named_with_their_extra():
    code = (
        "import sys; sys.modules['torch'] = None\nimport fastrnn\ntry: fastrnn.from_torch(None)\nexcept fastrnn.MissingDependencyError as e: print(e)"
    )
    assert "fastrnn[torch]" in run_python(code)


def test_packages_are_listed():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"])
    found = {".".join(("fastrnn", *p.parent.relative_to(PACKAGE).parts)) for p in PACKAGE.rglob("__init__.py")}
    found |= {".".join(("fastrnn.converters", *p.parent.relative_to(ROOT / "converters").parts)) for p in (ROOT / "converters").rglob("__init__.py")}
    assert listed == found


def test_what_is_frozen_is_written_where_it_is_made():
    """And nowhere else: who wants another one makes it (dataclasses.replace, model/edit.py)."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in ("__init__", "__post_init__")]
        inside = {inner for node in made for inner in ast.walk(node)}
        for node in ast.walk(tree):
            written = (
                isinstance(node, ast.Attribute)
                and node.attr == "__setattr__"
                or isinstance(node, ast.Subscript)
                and isinstance(node.ctx, ast.Store)
                and isinstance(node.value, ast.Attribute)
                and node.value.attr == "__dict__"
            )
            assert not written or node in inside, f"{path}:{node.lineno}"


def test_every_module_is_named_in_its_folder():
    """In the docstring of its __init__, headers and folders too; a pattern such as cell_*.h names several."""
    named = 0
    for root in (PACKAGE, ROOT / "converters"):
        for door in root.rglob("__init__.py"):
            words = re.findall(r"[\w*]+(?:\.\w+|/)", ast.get_docstring(ast.parse(door.read_text(encoding="utf-8"))))
            for path in door.parent.iterdir():
                name = f"{path.name}/" if (path / "__init__.py").exists() else path.name
                if name.endswith((".py", ".pyx", ".h", "/")) and path != door:
                    assert any(fnmatch(name, word) for word in words), f"{door}: {name}"
                    named += 1
    assert named > 150


def test_compiled_modules_have_stubs():
    assert (PACKAGE / "py.typed").exists()
    for path in PACKAGE.rglob("*.pyx"):
        assert path.with_suffix(".pyi").exists(), path


def test_sources_keep_their_size():
    for folder in ("fastrnn", "converters", "tests", "benchmarks", "examples"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".pyx", ".h", ".pxi"):
                assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path


def readme_commands() -> list[str]:
    """The shell blocks of the README."""
    blocks = (ROOT / "README.md").read_text(encoding="utf-8").split("```sh\n")[1:]
    return [block.split("```")[0].strip() for block in blocks]


def test_readme_commands_name_what_exists():
    commands = readme_commands()
    assert len(commands) >= 2
    assert any("examples/characters/run.py" in c for c in commands) and (ROOT / "examples/characters/run.py").exists()
    assert any(c.endswith("&& pytest -n auto") for c in commands)
