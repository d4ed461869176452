# What an array is, and the way of a call that brings nothing to decide: one array in, one out, kernels alone. Part of _executor.pyx.


cdef bint is_array(object value) noexcept:
    """Whether value is an array and nothing of it would be ignored, as a mask would."""
    return cnp.PyArray_CheckExact(value) or cnp.PyArray_Check(value) and not isinstance(value, np.ma.MaskedArray)  # looked up late: numpy.ma is a tenth of an import


cdef bint _exactly(Runner self, int k, object value) noexcept:
    """Whether value is an array, of no subclass, just as slot k wants it for the sizes at hand."""
    cdef cnp.ndarray a
    cdef Slot *slot = &self.slots[k]
    cdef int d
    if not cnp.PyArray_CheckExact(value):
        return False
    a = <cnp.ndarray>value
    if cnp.PyArray_TYPE(a) != slot.dtype or cnp.PyArray_NDIM(a) != slot.rank or not cnp.PyArray_IS_C_CONTIGUOUS(a) or not PyArray_ISBEHAVED_RO(a):
        return False
    for d in range(slot.rank):
        if cnp.PyArray_DIM(a, d) != slot.dims[d]:
            return False
    return True


cdef bint _is_plain(Runner self) noexcept:
    """Whether calls with all as it should be need no Python: nothing to check in what arrays hold, no step that is not a kernel."""
    cdef int k
    if self.n_free_inputs != 1 or self.n_free_outputs != 1 or self.slots[self.only_input].limited or self.slots[self.only_input].wanted != NULL:
        return False
    for k in range(self.n_steps):
        if self.controls[k].kind != RUN_KERNEL and self.controls[k].kind != JUMP:
            return False
    return True


cdef object at_once(Runner self, States states, object dimensions, object given, object out):
    """Runner.run for these sizes; None, and nothing done, where anything is not as the call before had it. The GIL is held throughout and no Python
    runs, so nobody can come between: a step of a small cell takes as long as such provisions would (60 of 200 ns)."""
    cdef int64_t *wanted = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>dimensions)
    cdef int k
    cdef char *x
    cdef char *y
    if not self.plain or self.taken or self.release or not self.sized:
        return None
    for k in range(self.n_dimensions):
        if wanted[k] != self.values[k]:
            return None
    if not _exactly(self, self.only_input, given):
        return None
    x = <char *>cnp.PyArray_DATA(<cnp.ndarray>given)
    if out is None:
        out = PyArray_EMPTY(self.slots[self.only_output].rank, self.slots[self.only_output].dims, self.slots[self.only_output].dtype, 0)
        y = <char *>cnp.PyArray_DATA(<cnp.ndarray>out)
    else:
        if not _exactly(self, self.only_output, out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
            return None
        y = <char *>cnp.PyArray_DATA(<cnp.ndarray>out)
        if y < x + self.slots[self.only_input].nbytes and x < y + self.slots[self.only_output].nbytes:
            return None
    self.bases[self.only_input], self.bases[self.only_output] = x, y
    for k in range(self.n_inputs):
        if self.slots[k].state >= 0:
            self.bases[k] = states.data + states.offsets[self.slots[k].state]
    self._walk(self.start())
    self.settled = True
    for k in range(self.n_commits):
        fr_copy_row(states.data + states.offsets[k], self.commits[k].source, self.commits[k].nbytes)
    return out
