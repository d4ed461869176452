# Memory that calls and streams own. Part of _executor.pyx.

cdef void *_room(size_t n, size_t nbytes) except NULL:
    cdef void *memory = PyMem_Calloc(n + 1, nbytes)
    if memory == NULL:
        raise MemoryError
    return memory


def lay_out(events, nbytes):
    """Offsets of blocks of these bytes, and the bytes needed for all, as a Runner lays out its work space (plan.lowering.memory.Blocks)."""
    events, nbytes = np.ascontiguousarray(events, np.int32), np.ascontiguousarray(nbytes, np.int64)
    offsets, ranges = np.zeros(len(nbytes), np.int64), np.zeros((len(events) + 1, 2), np.int64)
    end = fr_lay_out(<const int *>cnp.PyArray_DATA(<cnp.ndarray>events), <int>len(events), <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>nbytes),
                     <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets), <fr_range *>cnp.PyArray_DATA(<cnp.ndarray>ranges))
    return offsets, end


@cython.final
cdef class Workspace:
    """Memory that grows to the most that was asked of it; several Runners may share it, of which one runs at a time. moved: how often it has been somewhere else since."""

    cdef int reserve(self, int64_t nbytes) except -1:
        if nbytes > self.nbytes:
            self._array = None
            self.nbytes, self.data = 0, NULL
            self._array = aligned_zeros((nbytes,), np.uint8)
            self.nbytes, self.data = nbytes, <char *><size_t>self._array.ctypes.data
            self.moved += 1
        return 0


@cython.final
cdef class States:
    """The memory of a stream's states: one block, laid out as `layout` (runtime/streams/states.py) says. initial: a block to start from."""

    def __cinit__(self, layout, initial):
        self.layout, self.block = layout, aligned_zeros((layout.nbytes,), np.uint8)
        self.data = <char *><size_t>self.block.ctypes.data
        self.offsets = <int64_t *><size_t>layout.offsets.ctypes.data
        self.block[...] = initial
