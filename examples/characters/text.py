"""Characters as token ids: 95 printable ASCII characters, newline, and one id for everything else."""

import sysconfig
from pathlib import Path

import numpy as np

ALPHABET = "".join(map(chr, range(32, 127))) + "\n"
UNKNOWN = len(ALPHABET)
VOCABULARY = len(ALPHABET) + 1

_ID = np.full(256, UNKNOWN, np.int64)
_ID[[ord(c) for c in ALPHABET]] = np.arange(len(ALPHABET))


def encode(text: str) -> np.ndarray:
    """Token ids (n,), int64."""
    return _ID[np.frombuffer(text.encode("latin-1", errors="replace"), np.uint8)]


def decode(ids) -> str:
    """The text of token ids; unknown characters become a replacement mark."""
    return "".join(ALPHABET[i] if i < UNKNOWN else "\N{REPLACEMENT CHARACTER}" for i in ids)


def library_sources() -> list[Path]:
    """The Python standard library's own modules, top level only, in a fixed order."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
