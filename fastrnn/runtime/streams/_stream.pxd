# cython: language_level=3
from libc.stdint cimport int64_t
from fastrnn.runtime.executor._executor cimport Runners, States

cdef class StreamCore:
    cdef readonly States _memory
    cdef Runners _step, _chunk   # of a step; of the chunk pushed last
    cdef object _step_sizes, _chunk_sizes  # the free dimensions of each, int64 in the order of its region
    cdef int _time               # where the number of steps stands in _chunk_sizes; -1 where it is fixed
    cdef int64_t _chunk_steps
    cdef bint _busy
    cdef object __weakref__
    cdef object step_now(self, object x, object out)
