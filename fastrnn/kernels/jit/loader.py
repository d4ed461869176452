"""Object code to addresses: the sections of an ELF file in one block of memory, its relocations applied.

LLVM's own loader places sections one by one. Code reaches its constants by 32-bit distances, and in a process with gigabytes mapped they end up
farther apart than that, which LLVM answers by ending the process. One block cannot be too large.
Formats: System V ABI, "Object files", and its AMD64 supplement, "Relocation". Other processors use LLVM's loader, whose code reaches far.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import struct
from dataclasses import dataclass

from fastrnn.errors import UnsupportedModelError

PAGE = mmap.PAGESIZE
NOBITS, SYMBOLS, RELOCATIONS = 8, 2, 4  # kinds of sections
WRITE, ALLOC = 1, 2  # their flags
ABSOLUTE_64, RELATIVE_32, CALL_32 = 1, 2, 4  # relocations
ELSEWHERE = ("memcpy", "memset", "memmove")  # which LLVM calls on its own account
JUMP = struct.Struct("<2sQ2s")  # movabs rax, address; jmp rax
_kept: list[object] = []  # what was loaded stays for as long as the process does


@dataclass
class Section:
    """A section header, and where its content goes."""

    name: int
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    at: int = -1  # in the block; -1: not loaded


def load(code: bytes, names: list[str]) -> list[int]:
    """The addresses of these functions of an object file. It stays in memory for as long as the process does."""
    return _load(code, names) if platform.machine() in ("x86_64", "AMD64") else _load_by_llvm(code, names)


def _sections(code: bytes) -> list[Section]:
    (table,) = struct.unpack_from("<Q", code, 0x28)
    size, count = struct.unpack_from("<HH", code, 0x3A)
    found = []
    for k in range(count):
        name, kind, flags, _, offset, length, link, info, align, _ = struct.unpack_from("<IIQQQQIIQQ", code, table + k * size)
        found.append(Section(name, kind, flags, offset, length, link, info, max(align, 1)))
    return found


def _place(sections: list[Section], writable: bool, at: int, names: bytes) -> int:
    """Gives loaded sections of one protection their places; where they end. Tables for unwinding are left out: nothing here throws."""
    for s in sections:
        unwinding = names[s.name :].startswith((b".eh_frame\0", b".rela.eh_frame\0"))
        if s.flags & ALLOC and bool(s.flags & WRITE) == writable and not unwinding:
            s.at = -(-at // s.align) * s.align
            at = s.at + s.size
    return at


def _load(code: bytes, names: list[str]) -> list[int]:
    sections = _sections(code)
    headers = sections[struct.unpack_from("<H", code, 0x3E)[0]]
    section_names = code[headers.offset : headers.offset + headers.size]
    jumps = _place(sections, False, 0, section_names)
    writable = -(-(jumps + JUMP.size * len(ELSEWHERE)) // PAGE) * PAGE
    size = -(-_place(sections, True, writable, section_names) // PAGE) * PAGE + PAGE
    block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # a forked child has its own
    base = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for s in sections:
        if s.at >= 0 and s.kind != NOBITS:
            block[s.at : s.at + s.size] = code[s.offset : s.offset + s.size]
    libc = ctypes.CDLL(None, use_errno=True)
    for k, name in enumerate(ELSEWHERE):
        JUMP.pack_into(block, jumps + k * JUMP.size, b"\x48\xb8", ctypes.cast(getattr(libc, name), ctypes.c_void_p).value, b"\xff\xe0")
    symbols = _symbols(code, sections, base, {name: base + jumps + k * JUMP.size for k, name in enumerate(ELSEWHERE)})
    for s in sections:
        if s.kind == RELOCATIONS and sections[s.info].at >= 0:
            _relocate(code, s, sections[s.info].at, block, base, [address for _, address in symbols])
    if libc.mprotect(ctypes.c_void_p(base), ctypes.c_size_t(writable), mmap.PROT_READ | mmap.PROT_EXEC):
        raise UnsupportedModelError(
            f"backend 'jit': this system lets no memory be made executable ({os.strerror(ctypes.get_errno())}); use backend 'reference'"
        )
    _kept.append(block)
    by_name = dict(symbols)
    return [by_name[name] for name in names]


def _symbols(code: bytes, sections: list[Section], base: int, elsewhere: dict[str, int]) -> list[tuple[str, int | None]]:
    """(name, address) of every symbol, by its number."""
    table = next(s for s in sections if s.kind == SYMBOLS)
    text, found = sections[table.link], []
    for at in range(table.offset, table.offset + table.size, 24):
        name_at, _, _, index, value, _ = struct.unpack_from("<IBBHQQ", code, at)
        name = code[text.offset + name_at : code.index(b"\0", text.offset + name_at)].decode()
        inside = index < len(sections) and index and sections[index].at >= 0
        found.append((name, base + sections[index].at + value if inside else elsewhere.get(name)))
    return found


def _relocate(code: bytes, table: Section, target: int, block: mmap.mmap, base: int, addresses: list[int | None]) -> None:
    for at in range(table.offset, table.offset + table.size, 24):
        offset, kind, symbol, addend = struct.unpack_from("<QIIq", code, at)
        address, place = addresses[symbol], target + offset
        if address is None or kind not in (ABSOLUTE_64, RELATIVE_32, CALL_32):
            raise AssertionError(f"object code with relocation {kind} against a symbol that is {'unknown' if address is None else 'known'}")
        if kind == ABSOLUTE_64:
            struct.pack_into("<Q", block, place, address + addend)
        else:
            struct.pack_into("<i", block, place, address + addend - (base + place))


def _load_by_llvm(code: bytes, names: list[str]) -> list[int]:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    libc = ctypes.CDLL(None)
    for name in ELSEWHERE:
        llvm.add_symbol(name, ctypes.cast(getattr(libc, name), ctypes.c_void_p).value)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), llvm.Target.from_default_triple().create_target_machine(jit=True))
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _kept.append(engine)
    return [engine.get_function_address(name) for name in names]
