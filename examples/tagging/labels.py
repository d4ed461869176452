"""Characters of Python's own library, each labelled with what it is part of, one logical line after another."""

import io
import keyword
import sysconfig
import tokenize
from itertools import pairwise
from pathlib import Path

import numpy as np

KINDS = ("space", "comment", "string", "keyword", "name", "number", "operator")
LONGEST = 160  # characters of a logical line; longer ones are left out
CHARACTERS = 128


def kind(token: tokenize.TokenInfo) -> str:
    """Which of KINDS a token is; layout is space."""
    name = tokenize.tok_name[token.type]
    if name == "NAME":
        return "keyword" if keyword.iskeyword(token.string) else "name"
    if name.startswith("FSTRING"):
        return "string"
    return {"COMMENT": "comment", "STRING": "string", "NUMBER": "number", "OP": "operator"}.get(name, "space")


def label(text: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """The logical lines of a module, and comments between them: character codes and labels, int64 (n,) each. Indentation is left out."""
    lines = text.splitlines(keepends=True)
    starts = np.cumsum([0, *map(len, lines)])
    labels, cuts, depth = np.zeros(len(text), np.int64), [0], 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            begin, end = (int(starts[row - 1]) + column for row, column in (token.start, token.end))
            labels[begin:end] = KINDS.index(kind(token))
            depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
            if token.type in (tokenize.NEWLINE, tokenize.NL) and not depth:
                cuts.append(end)
    codes = np.minimum([ord(c) for c in text], CHARACTERS - 1)
    found = []
    for begin, end in pairwise(cuts):
        begin, end = begin + len(text[begin:end]) - len(text[begin:end].lstrip()), begin + len(text[begin:end].rstrip())
        if 0 < end - begin <= LONGEST:
            found.append((codes[begin:end], labels[begin:end]))
    return found


def modules() -> list[Path]:
    """The standard library's top level, in a fixed order."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def read(paths: list[Path]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Codes and labels of several modules, one array a logical line."""
    lines = [line for path in paths for line in label(path.read_text(encoding="utf-8"))]
    return [codes for codes, _ in lines], [labels for _, labels in lines]
