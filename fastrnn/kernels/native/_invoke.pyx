# cython: language_level=3
"""Calls kernels by address: how planning asks for work space, and how tests run one kernel alone."""

import numpy as np

from libc.stdint cimport uint64_t
from fastrnn.kernels.native._args cimport fr_args, fr_run, fr_work_bytes

cdef extern from "fpmode.h":
    uint64_t fr_flush_denormals() nogil
    void fr_restore_denormals(uint64_t) nogil


cdef const fr_args *_record(args) except NULL:
    if not isinstance(args, np.ndarray) or args.size != 1 or args.itemsize != sizeof(fr_args):
        raise ValueError("args must be one record of contract.ARGS")
    return <const fr_args *><size_t>args.ctypes.data


def work_bytes(size_t address, args) -> int:
    """What ``int64_t work_bytes(const Args *)`` at this address answers; 0 of a kernel that has none (address 0)."""
    if not address:
        return 0
    return (<fr_work_bytes>address)(_record(args))


def run(size_t address, args) -> None:
    """Calls ``void run(const Args *)`` at this address, denormals flushed. The caller keeps every pointer alive and right."""
    cdef const fr_args *record = _record(args)
    cdef uint64_t mode = fr_flush_denormals()
    (<fr_run>address)(record)
    fr_restore_denormals(mode)
