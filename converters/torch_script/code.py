"""The code of a TorchScript archive: written by torch in a part of Python's grammar, one file for a module. Parsed, and looked up by name; never compiled by Python."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from fastrnn.errors import InvalidModelError, UnsupportedModelError

MAX_FUNCTIONS = 1 << 14


class Code:
    """Functions by their full name, methods by that of their class: __torch__.a.b.Class.forward."""

    def __init__(self, sources: Mapping[str, str], where: str):
        self.where = where
        self.functions: dict[str, ast.FunctionDef] = {}
        self.constants: dict[str, dict[str, object]] = {}  # of classes, by their name
        self.tuples: dict[str, list[str]] = {}  # fields of named tuples
        for module, text in sources.items():
            try:
                tree = ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                raise InvalidModelError(f"{where}: the code of {module} cannot be read: {str(error)[:200]}") from error
            for node in tree.body:
                if isinstance(node, ast.FunctionDef):
                    self._add(f"{module}.{node.name}", node)
                elif isinstance(node, ast.ClassDef):
                    self._class(f"{module}.{node.name}", node)

    def _class(self, name: str, node: ast.ClassDef) -> None:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        values: dict[str, object] = {}
        for entry in node.body:
            if isinstance(entry, ast.FunctionDef):
                self._add(f"{name}.{entry.name}", entry)
            elif isinstance(entry, ast.AnnAssign) and isinstance(entry.target, ast.Name) and entry.value is not None:
                try:
                    values[entry.target.id] = ast.literal_eval(entry.value)
                except (ValueError, TypeError, RecursionError, MemoryError):
                    continue  # a constant that only its own code could need
            elif isinstance(entry, ast.Assign) and len(entry.targets) == 1 and isinstance(entry.targets[0], ast.Name):
                try:
                    values[entry.targets[0].id] = ast.literal_eval(entry.value)
                except (ValueError, TypeError, RecursionError, MemoryError):
                    continue
        self.constants[name] = values
        if "NamedTuple" in bases:
            self.tuples[name] = [e.target.id for e in node.body if isinstance(e, ast.AnnAssign) and isinstance(e.target, ast.Name)]

    def _add(self, name: str, node: ast.FunctionDef) -> None:
        if name in self.functions or len(self.functions) >= MAX_FUNCTIONS:
            raise InvalidModelError(f"{self.where}: function {name} stands twice, or there are more than {MAX_FUNCTIONS}")
        self.functions[name] = node

    def function(self, name: str) -> ast.FunctionDef:
        """A function or method."""
        if name not in self.functions:
            raise UnsupportedModelError(f"{self.where}: {name} is called, whose code is not in the archive")
        return self.functions[name]
