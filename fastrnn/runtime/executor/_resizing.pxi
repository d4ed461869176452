# What a Runner does when a call brings other sizes. Part of _executor.pyx.


cdef bint _resize(Runner self, int64_t *dimensions) except -1:
    """Other values for the free dimensions; False, and nothing changed, where the program does not hold for them."""
    cdef int k
    cdef int64_t before[MOST_DIMENSIONS]
    cdef bint same = self.is_settled_in()
    for k in range(self.n_dimensions):
        if dimensions[k] < LEAST or dimensions[k] > MOST:
            return False
        same = same and dimensions[k] == self.values[k]
    if same:
        return True
    memcpy(before, self.values, self.n_dimensions * sizeof(int64_t))
    memcpy(self.values, dimensions, self.n_dimensions * sizeof(int64_t))
    fr_evaluate(self.formulas, self.values, self.n_dimensions, self.n_guarded)
    if not fr_guards_hold(self.guards, self.n_guards, self.values):
        memcpy(self.values, before, self.n_dimensions * sizeof(int64_t))
        fr_evaluate(self.formulas, self.values, self.n_dimensions, self.n_guarded)
        return False
    self.sized = False
    fr_evaluate(self.formulas, self.values, self.n_guarded, self.n_values)
    _settle(self)
    return True


cdef int _settle(Runner self) except -1:
    """Everything that follows from the values."""
    cdef int k, d
    cdef int64_t work, kept = 0
    cdef Slot *slot
    cdef Place *place
    for k in range(self.n_slots):
        slot = &self.slots[k]
        slot.count = 1
        for d in range(slot.rank):
            slot.dims[d] = self.values[slot.size[d]]
            slot.count *= slot.dims[d]
        slot.nbytes = slot.count * slot.itemsize
    for k in range(self.n_scalars):
        if self.scalars[k].is_float:
            (<float *>self.scalars[k].field)[0] = <float>self.values[self.scalars[k].value]
        else:
            (<int64_t *>self.scalars[k].field)[0] = self.values[self.scalars[k].value]
    for k in range(self.n_asking):
        self.block_bytes[self.asking[2 * k + 1]] = self.asks[k](&self.args[self.asking[2 * k]])
    for k in range(self.n_blocks):
        if self.block_bytes[k] < 0 or self.block_bytes[k] > MOST_BYTES:
            raise MemoryError(f"a block of work space of {self.block_bytes[k]} bytes")
    work = fr_lay_out(self.events, self.n_events, self.block_bytes, self.block_offsets, self.ranges)
    self._work.reserve(work)
    self.work_moved = self._work.moved
    for k in range(self.n_blocks):
        self.block_at[k] = self._work.data + self.block_offsets[k]
    if self.first:
        for block in self.program.blocks.kept:
            self.block_offsets[<int>block] = kept
            kept += FR_ALIGNED(self.block_bytes[<int>block] + 1)
        self._kept.reserve(kept)
        for block in self.program.blocks.kept:
            self.block_at[<int>block] = self._kept.data + self.block_offsets[<int>block]
    for k in range(self.n_places):
        place = &self.places[k]
        place.field[0] = (place.base if place.block < 0 else self.block_at[place.block]) + self.values[place.offset]
    if self._owned:
        _own_copies(self)
    self.release = self.values[self.estimate] > self.release_ns
    self.sized, self.settled = True, False
    return 0


def _own_copies(Runner self):
    """Memory for copies of integers that are checked."""
    cdef int k, i = 0
    for k in range(self.n_slots):
        if self.slots[k].limited:
            if self._owned[i] is None or len(self._owned[i]) < self.slots[k].count:
                self._owned[i] = aligned_zeros((self.slots[k].count,), np.int64)
            self.slots[k].checked = <char *><size_t>self._owned[i].ctypes.data
            i += 1


cdef bint _resize_to(Runner self, list arrays) except -1:
    """To the sizes of a call's inputs, arrays of the right dtypes and ranks in the order of their slots, None for states; False where the
    program does not hold for them."""
    cdef int64_t dimensions[MOST_DIMENSIONS]
    cdef int k, d, value
    cdef cnp.ndarray a
    for k in range(self.n_dimensions):
        dimensions[k] = -1
    for k in range(self.n_inputs):
        if arrays[k] is None:
            continue
        a = <cnp.ndarray>arrays[k]
        for d in range(self.slots[k].rank):
            value = self.slots[k].size[d]
            if value < self.n_dimensions:
                if dimensions[value] >= 0 and dimensions[value] != cnp.PyArray_DIM(a, d):
                    return False
                dimensions[value] = cnp.PyArray_DIM(a, d)
            elif self.values[value] != cnp.PyArray_DIM(a, d):
                return False
    return _resize(self, dimensions)
