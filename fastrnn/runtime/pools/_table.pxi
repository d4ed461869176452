# Streams by handle, and one call at a time. Part of _pool.pyx.

cdef inline bint _is_open(Entry *entries, int64_t capacity, int64_t handle) noexcept nogil:
    cdef int64_t slot = handle & ((1 << SLOT_BITS) - 1)
    return handle > 0 and slot < capacity and entries[slot].handle == handle


cdef int64_t _look_up(
    Entry *entries, int64_t capacity, const int64_t *handles, int64_t n, int64_t call, int64_t apart, int64_t *slots, int64_t *at
) noexcept nogil:
    """The slots of handles, which may lie where those go, and how many elements behind the first row theirs are: until one is not open, or was named before in this call. How many."""
    cdef int64_t k, slot
    for k in range(n):
        if k + AHEAD < n:
            fr_fetch(&entries[handles[k + AHEAD] & ((1 << SLOT_BITS) - 1)])
        slot = handles[k] & ((1 << SLOT_BITS) - 1)
        if not _is_open(entries, capacity, handles[k]) or entries[slot].mark == call:
            return k
        entries[slot].mark = call
        slots[k], at[k] = slot, slot * apart
    return n


cdef class StreamTable:
    """Which streams are open, by handle, and their states: the lower half of PoolCore. A handle is a slot and how many streams the process had opened before it."""

    def __cinit__(self, *args, **kwargs):
        self._busy, self._held = False, [None] * (2 * MOST_ARRAYS)

    def _furnish(self, int64_t capacity, first_row, lock, int threads):
        """Memory for so many streams, which start as first_row, and of whose rows a call may be shared by so many threads."""
        cdef int64_t slot
        self.capacity, self.stride, self._lock, self.n_threads = capacity, first_row.nbytes, lock, threads
        self._first_row = first_row
        self.block = aligned_zeros((capacity, self.stride), np.uint8)
        self._table = np.zeros((capacity, sizeof(Entry) // sizeof(int64_t)), np.int64)
        self._free = np.arange(capacity - 1, -1, -1, dtype=np.int32)
        self._slots, self._at, self._order = np.zeros(64, np.int64), np.zeros(64, np.int64), np.arange(64, dtype=np.int64)
        self.rows, self.first_row = <char *><size_t>self.block.ctypes.data, <char *><size_t>first_row.ctypes.data
        self.entries, self.free = <Entry *><size_t>self._table.ctypes.data, <int32_t *><size_t>self._free.ctypes.data
        self.n_free = capacity

    # One call at a time.

    cdef int enter(self) except -1:
        if self._lock is not None:
            if self._busy and self._owner == get_ident():  # by a finalizer that runs inside a call
                raise checks.busy("pool")
            self._lock.acquire()
            self._owner = get_ident()
        elif self._busy:
            raise checks.busy("pool")
        self._busy = True
        return 0

    cdef int leave(self) except -1:
        while self.n_held:
            self.n_held -= 1
            self._held[self.n_held] = None
        self._busy = False
        if self._lock is not None:
            self._lock.release()
        return 0

    cdef int hold(self, int k, object array) except -1:
        """Keeps an array of the call in hand alive until its end."""
        self._held[k] = array
        self.n_held = max(self.n_held, k + 1)
        return 0

    @property
    def nbytes(self):
        """Bytes that the states and handles of all streams, open or not, take."""
        return self.block.nbytes + self._table.nbytes + self._free.nbytes

    def _start_anew(self, lock):
        """In a forked child: no thread of the parent's is there to end its call."""
        self._lock, self._busy = lock, False

    def _exclusive(self, function):
        """function() while no other thread may call the pool."""
        self.enter()
        try:
            return function()
        finally:
            self.leave()

    # Handles.

    def __len__(self):
        return self.capacity - self.n_free

    def __contains__(self, handle):
        try:
            return self.is_open(checks.as_handle(handle))
        except TypeError:
            return False

    def _open_handles(self):
        return self._table[self._table[:, 0] > 0, 0]

    @cython.final
    cdef bint is_open(self, int64_t handle) noexcept:
        return _is_open(self.entries, self.capacity, handle)

    cdef int64_t handle_of(self, object handle) except -1:
        """An open stream's. Raises UnknownStreamError."""
        cdef int overflow = 0
        cdef int64_t number = PyLong_AsLongLongAndOverflow(handle, &overflow) if PyLong_CheckExact(handle) else checks.as_handle(handle)
        if overflow or not self.is_open(number):
            raise self._unknown(handle)
        return number

    cdef int64_t slot_of(self, object handle) except -1:
        """Where an open stream's states are. Raises UnknownStreamError."""
        return self.handle_of(handle) & ((1 << SLOT_BITS) - 1)

    def _unknown(self, handle):
        return UnknownStreamError(f"no stream of this pool has the handle {handle}: it was closed, or belongs to another pool")

    def open(self):
        """A new stream, its states as when nothing was stepped; its handle, an int. Raises PoolFullError."""
        self.enter()
        try:
            return self.take_slot()
        finally:
            self.leave()

    cdef int64_t take_slot(self) except -1:
        global opened
        cdef int64_t slot
        if self.n_free == 0:
            raise PoolFullError(f"all {self.capacity} streams of the pool are open")
        self.n_free -= 1
        slot = self.free[self.n_free]
        self.start_again(slot)
        opened += 1
        self.entries[slot].handle = opened << SLOT_BITS | slot
        return self.entries[slot].handle

    def _opened(self, row, steps):
        """A new stream with these states, which has done so many steps."""
        handle = self.take_slot()
        self._row_of(handle)[...] = row
        self._count(handle, steps)
        return handle

    def close(self, handle):
        """Ends a stream; its handle means nothing from then on. Raises UnknownStreamError."""
        cdef int64_t slot
        self.enter()
        try:
            slot = self.slot_of(handle)
            self.entries[slot].handle = 0
            self.free[self.n_free] = <int32_t>slot
            self.n_free += 1
        finally:
            self.leave()

    def reset(self, handles):
        """The states of a stream, or of a sequence of them, back to where they started. Raises UnknownStreamError, and then resets none."""
        cdef int64_t k, n
        self.enter()
        try:
            n = self.find((handles,) if isinstance(handles, (int, np.integer)) else handles)
            for k in range(n):
                self.start_again(self.work.slots[k])
        finally:
            self.leave()

    cdef void start_again(self, int64_t slot) noexcept:
        memcpy(self.rows + slot * self.stride, self.first_row, self.stride)
        self.entries[slot].count = 0

    def _steps_of(self, handle):
        return self.entries[self.slot_of(handle)].count

    def _row_of(self, handle):
        """The bytes of a stream's states, sharing memory."""
        return self.block[self.slot_of(handle)]

    def _count(self, handle, steps):
        self.entries[self.slot_of(handle)].count = steps

    cdef int64_t find(self, object handles) except -1:
        """The slots of the streams that a call names, to self._slots; how many. Raises UnknownStreamError, and ShapeError for one named twice."""
        cdef int64_t k, n, known, mine, fetched = min(self.stride, FETCHED)
        cdef int64_t *slots
        cdef int64_t *at
        cdef bint listed = type(handles) is list or type(handles) is tuple
        if listed:
            handles = tuple(handles)  # a list might change while handles that are no plain ints are looked at
        elif not _is_handles(handles):
            handles = checks.as_handles(handles)
        n = len(handles)
        if n > self.capacity:
            raise ShapeError(f"{n} handles for a pool of {self.capacity} streams: one is named twice")
        if n > len(self._slots):
            self._slots, self._at, self._order = np.zeros(2 * n, np.int64), np.zeros(2 * n, np.int64), np.arange(2 * n, dtype=np.int64)
        slots = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self._slots)
        at = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self._at)
        if listed:
            for k in range(n):
                slots[k] = self.handle_of(handles[k])
        self.calls += 1
        known = _look_up(
            self.entries, self.capacity, slots if listed else <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>handles), n, self.calls, self.stride // FR_ELEMENT, slots, at
        )
        if known < n:
            self.handle_of(handles[known])
            raise ShapeError(f"handle {handles[known]} is named twice: a stream takes one step at a time")
        mine = min(n // self.n_threads, FIRST)
        for k in range(mine):
            fr_fetch_row(self.rows + slots[k] * self.stride, fetched)
        self.work.slots, self.work.rows, self.work.at, self.work.order = slots, self.rows, at, <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self._order)
        self.work.n, self.work.first, self.work.end, self.work.in_order, self.work.from_step = n, 0, n, True, 0
        return n
