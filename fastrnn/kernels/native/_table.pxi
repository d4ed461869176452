# cython: language_level=3
from libc.stdint cimport int64_t
from fastrnn.kernels.native._args cimport fr_args, fr_kernel

cdef extern from "table.h":
    int _LANES "LANES"
    const fr_kernel fr_table[]
    int fr_has_dot

LANES = _LANES
SIZEOF_ARGS = sizeof(fr_args)


def kernels():
    """(role, cell, dtype, address of run, address of work_bytes) of every kernel; see contract.Key."""
    result, k = [], 0
    while fr_table[k].role != NULL:
        key = [(<bytes>part).decode() for part in (fr_table[k].role, fr_table[k].cell, fr_table[k].dtype)]
        result.append((*key, <size_t>fr_table[k].run, <size_t>fr_table[k].work_bytes))
        k += 1
    return result


def use_dot(bint there) -> None:
    """Whether the processor has dot products of bytes, which products over int8 weights then use; changes no bit. Not during calls."""
    global fr_has_dot
    fr_has_dot = there
