"""What type checkers say of fastrnn: `make types`.

the package     mypy, strict where callers enter (pyproject.toml), over the tree laid out as it is installed: build/types
calls.py        mypy and pyright, each at its strictest: a caller's code, every result asserted, so that none is Any or unknown
compiled parts  names and parameters of the stubs against the modules themselves: tests/repo/test_stubs.py, without this
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAID_OUT, CALLS = ROOT / "build/types", ROOT / "tests/typing/calls.py"


def lay_out() -> None:
    """fastrnn and fastrnn.converters in one folder, by links."""
    package = LAID_OUT / "fastrnn"
    package.mkdir(parents=True, exist_ok=True)
    for link in package.iterdir():
        link.unlink()
    for path in [*(ROOT / "fastrnn").iterdir(), ROOT / "converters"]:
        (package / path.name).symlink_to(path)


def run(*command: str | Path) -> bool:
    """Whether a checker is content; it says itself what it is not content with."""
    return subprocess.run(list(map(str, command)), cwd=ROOT, check=False).returncode == 0


def main() -> int:
    lay_out()
    good = run(sys.executable, "-m", "mypy")
    good &= run(sys.executable, "-m", "mypy", CALLS)
    good &= run(sys.executable, "-m", "pyright", "--project", CALLS.parent, "--pythonpath", sys.executable)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
