# cython: language_level=3
from libc.stdint cimport int64_t
from fastrnn.runtime._executor cimport Runner

cdef class StreamCore:
    cdef Runner _step, _chunk  # _chunk: for chunks of the length pushed last
    cdef int64_t _chunk_steps
    cdef bint _busy
