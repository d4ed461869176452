"""Zip archives, as torch and NumPy write them, checked before anything of a claimed size is read."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from fastrnn.errors import InvalidModelError

# A directory entry of 47 bytes becomes a Python object of about 700, so this bounds memory; some 50,000 tensors fit.
MAX_DIRECTORY_BYTES = 4 << 20
_END, _LOCATOR, _END64 = b"PK\5\6", b"PK\6\7", b"PK\6\6"


def is_archive(path: Path) -> bool:
    """Whether a file starts like a zip archive; a damaged one does too."""
    with open(path, "rb") as file:
        return file.read(4) == b"PK\3\4"


def _check_directory(path: Path) -> int:
    """The file's size. Raises unless a directory of bounded size and the end record, without a comment, are the last of the file:
    then every reader of zip archives finds the same entries."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - 98))
        tail = file.read().rjust(98, b"\0")
    length, start = struct.unpack("<LL", tail[-10:-2])
    end = size - 22
    if tail[-42:-38] == _LOCATOR and tail[:4] == _END64:
        length, start = struct.unpack("<QQ", tail[40:56])
        end = size - 98
    if tail[-22:-18] != _END or tail[-2:] != b"\0\0" or start + length != end:
        raise InvalidModelError(f"{path}: a damaged zip archive: its directory is not at its end")
    if length > MAX_DIRECTORY_BYTES:
        raise InvalidModelError(f"{path}: a zip directory of {length} bytes; at most {MAX_DIRECTORY_BYTES} are read")
    return size


def entries_of(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive by name. Raises InvalidModelError for one that is damaged, and for names that stand twice or lead
    outside, encryption, and entries that claim more than the file holds."""
    size = _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except Exception as error:  # zipfile raises many types on damaged bytes
        raise InvalidModelError(f"{path}: a damaged zip archive: {error!r}") from error
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        name = entry.filename
        if name in found:
            raise InvalidModelError(f"{path}: entry {name!r} stands twice")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise InvalidModelError(f"{path}: entry {name!r} leads outside the archive")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidModelError(f"{path}: entry {name!r} is encrypted, or compressed in a way that is not read")
        if entry.compress_type == zipfile.ZIP_STORED and entry.file_size != entry.compress_size:
            raise InvalidModelError(f"{path}: entry {name!r} claims {entry.file_size} bytes, of which {entry.compress_size} are stored")
        found[name] = entry
    if sum(entry.compress_size for entry in entries) > size:
        raise InvalidModelError(f"{path}: the entries claim more bytes than the file holds")
    return found


def read_entry(path: Path, entry: zipfile.ZipInfo) -> bytes:
    """An entry's content, its checksum verified; no more than its directory entry claims."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(entry.filename)
    except Exception as error:  # zipfile and zlib raise many types on damaged bytes
        raise InvalidModelError(f"{path}: entry {entry.filename!r} is damaged: {error!r}") from error
