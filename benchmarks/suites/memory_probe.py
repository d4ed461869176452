"""A new process, one engine, one layer: bytes of resident memory that preparing and running it adds. `python memory_probe.py ENGINE KIND I H`"""

import ctypes
import gc
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cases import Case


def resident() -> int:
    """Bytes, once what is free has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def main(engine: str, kind: str, I: str, H: str) -> None:
    """A small layer first, so that what the engine loads on first use does not count."""
    prepare = import_module(f"contenders.{engine}_engine").prepare
    prepare(Case(kind, 8, 8, carried=True))[1]()
    case = Case(kind, int(I), int(H), carried=True)
    _ = case.parameters, case.x
    before = resident()
    run, result = prepare(case)
    result()
    run()
    print(resident() - before)


if __name__ == "__main__":
    main(*sys.argv[1:])
