# cython: language_level=3
from libc.stdint cimport int64_t
from fastrnn.kernels.native._args cimport fr_args, fr_kernel

cdef extern from "table.h":
    int _LANES "LANES"
    const fr_kernel fr_table[]

LANES = _LANES
SIZEOF_ARGS = sizeof(fr_args)


def kernels():
    """(name, address of run, address of work_bytes) of every kernel."""
    result, k = [], 0
    while fr_table[k].name != NULL:
        result.append(((<bytes>fr_table[k].name).decode(), <size_t>fr_table[k].run, <size_t>fr_table[k].work_bytes))
        k += 1
    return result
