"""A damaged file: what it is, and how it is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """write: (folder) -> path of the file, made there; message: what the error must name, a regular expression."""

    name: str
    write: Callable[[Path], Path]
    message: str
    load: str  # "model": fr.load and what its caller does with it; "layers": fr.from_state_dict


def file_case(name: str, suffix: str, make: Callable[[], bytes], message: str, load: str) -> Case:
    """A case of one file."""

    def write(folder: Path) -> Path:
        path = folder / f"damaged{suffix}"
        path.write_bytes(make())
        return path

    return Case(name, write, message, load)
