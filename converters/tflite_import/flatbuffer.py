"""FlatBuffers, read with every offset checked: a table is fields behind a vtable, a vector a count and what follows it.

The format is that of https://flatbuffers.dev/internals: numbers are little-endian; an offset counts bytes from where it stands, forward to a vector, a string or a table, and from a
table back to its vtable.
"""

from __future__ import annotations

import struct

import numpy as np

from fastrnn.errors import InvalidModelError

SMALLEST_TABLE = 4  # bytes of the file that each table takes for itself, where none stands for two


class File:
    """The bytes, and how much may yet be read of them: tables and vectors that stand for many are refused, since no writer makes them and they would fill memory."""

    def __init__(self, data: bytes, identifier: bytes):
        self.data = data
        self._tables, self._bytes = len(data) // SMALLEST_TABLE, 2 * len(data)
        if len(data) < 8 or data[4:8] != identifier:
            raise InvalidModelError(f"not a file of kind {identifier.decode()!r}, or a damaged one")

    def root(self) -> Table:
        """The table that holds everything."""
        return Table(self, self.offset(0))

    def number(self, at: int, form: str) -> int | float:
        """A number in struct's notation."""
        if at < 0 or at + struct.calcsize(form) > len(self.data):
            raise InvalidModelError(f"an offset points to byte {at} of {len(self.data)}")
        return struct.unpack_from("<" + form, self.data, at)[0]

    def offset(self, at: int) -> int:
        """Where an offset that stands there points to."""
        return at + self.number(at, "I")

    def take_table(self) -> None:
        """Counts a table."""
        self._tables -= 1
        if self._tables < 0:
            raise InvalidModelError("it names more tables than it has room for")

    def span(self, at: int, itemsize: int) -> tuple[int, int]:
        """Where a vector's entries start, and how many there are."""
        n = self.number(at, "I")
        self._bytes -= 4 + n * itemsize
        if at + 4 + n * itemsize > len(self.data) or self._bytes < 0:
            raise InvalidModelError(f"a vector of {n} entries at byte {at} does not fit the file")
        return at + 4, n


class Table:
    """Fields by their place in the schema."""

    def __init__(self, file: File, at: int):
        file.take_table()
        self.file, self._at = file, at
        self._vtable = at - file.number(at, "i")
        n, self._nbytes = file.number(self._vtable, "H"), file.number(self._vtable + 2, "H")
        if n < 4 or self._vtable + n > len(file.data) or self._nbytes < 4 or at + self._nbytes > len(file.data):
            raise InvalidModelError(f"a table at byte {at} does not fit the file")
        self._n_fields = (n - 4) // 2

    def _field(self, k: int, nbytes: int) -> int:
        """Where a field lies, 0 where it is left out."""
        place = self.file.number(self._vtable + 4 + 2 * k, "H") if k < self._n_fields else 0
        if place and not 4 <= place <= self._nbytes - nbytes:
            raise InvalidModelError(f"field {k} of the table at byte {self._at} does not fit it")
        return self._at + place if place else 0

    def number(self, k: int, form: str, default=0):
        """A number."""
        at = self._field(k, struct.calcsize(form))
        return self.file.number(at, form) if at else default

    def flag(self, k: int) -> bool:
        """A bool, false where it is left out."""
        return bool(self.number(k, "B"))

    def table(self, k: int) -> Table | None:
        """A table."""
        at = self._field(k, 4)
        return Table(self.file, self.file.offset(at)) if at else None

    def tables(self, k: int) -> list[Table]:
        """A vector of tables."""
        at = self._field(k, 4)
        if not at:
            return []
        start, n = self.file.span(self.file.offset(at), 4)
        return [Table(self.file, self.file.offset(start + 4 * j)) for j in range(n)]

    def array(self, k: int, dtype) -> np.ndarray | None:
        """A vector of numbers, a view of the file; None where it is left out."""
        at = self._field(k, 4)
        if not at:
            return None
        dtype = np.dtype(dtype).newbyteorder("<")
        start, n = self.file.span(self.file.offset(at), dtype.itemsize)
        return np.frombuffer(self.file.data, dtype, n, start)

    def text(self, k: int) -> str:
        """A string, empty where it is left out."""
        array = self.array(k, np.uint8)
        return "" if array is None else array.tobytes().decode("utf-8", "replace")
