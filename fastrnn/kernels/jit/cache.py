"""Object code on disk, so that a process need not compile what an earlier one did.

In FASTRNN_CACHE_DIR, else fastrnn/ in the user's cache folder. A key names everything that the code depends on, so an entry is never stale. An entry
that is damaged, a folder that cannot be written or that others may write to: then there is no cache, and all works as it does without.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

_MAGIC = b"fastrnn jit 1\n"


def folder() -> Path:
    """Where entries lie; it need not exist."""
    chosen = os.environ.get("FASTRNN_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base if os.path.isabs(base) else os.devnull) / "fastrnn"  # a user without a home has no cache, not one wherever a process stands


def _is_ours(path: Path) -> bool:
    """Whether only this user can have written there: what is loaded from it is run."""
    if not hasattr(os, "getuid"):
        return True
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def read(key: str) -> tuple[bytes, list[str]] | None:
    """Object code and the names it goes by, or None."""
    try:
        where = folder()
        if not _is_ours(where):
            return None
        data = (where / key).read_bytes()
    except OSError:
        return None
    head, _, rest = data[len(_MAGIC) :].partition(b"\n")
    digest, _, code = rest.partition(b"\n")
    if not data.startswith(_MAGIC) or hashlib.sha256(head + code).hexdigest().encode() != digest:
        return None
    return code, json.loads(head)


def write(key: str, code: bytes, names: list[str]) -> None:
    """Keeps an entry if the folder allows it; whole or not at all."""
    head = json.dumps(names).encode()
    try:
        where = folder()
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_ours(where):
            return
        handle, name = tempfile.mkstemp(dir=where, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(_MAGIC + head + b"\n" + hashlib.sha256(head + code).hexdigest().encode() + b"\n" + code)
            os.replace(name, where / key)
        except OSError:
            os.unlink(name)
    except OSError:
        return
