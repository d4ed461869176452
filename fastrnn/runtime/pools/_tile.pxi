# A program with rows of a pool, and which program so many rows take. Part of _pool.pyx.

cdef extern from "rows_of_bytes.h":
    int FR_ELEMENT
    void fr_gather_rows(char *, const char *, const int64_t *, int64_t, int64_t) nogil
    void fr_scatter_rows(char *, const int64_t *, const char *, int64_t, int64_t) nogil
    void fr_fetch_row(const char *, int64_t) nogil
    void fr_fetch(const void *) nogil

cdef extern from *:
    """
    static inline int64_t fr_take_one(int64_t *at) { return __atomic_fetch_add(at, 1, __ATOMIC_RELAXED); }
    """
    int64_t fr_take_one(int64_t *) nogil


@cython.final
cdef class Tile:
    """A program with its work space, for any number of rows that it holds for.

    program: its states are those of the pool, its batch is `batch`, its chunk's length `time` (symbols of its region; None where fixed).
    axes: of each slot, the batch's, or SHARED. sources: of each slot, which of the caller's inputs or outputs it is.
    plain: its steps are kernels alone: none needs Python, and none can fail. states: (offset, outer, inner, whether kernels read and write it where it lies) of each of the
    program's states in a row of the pool, of `stride` bytes. in_place: the steps that do (in_place.py). work, room: memory for the program and for rows that are put together, which
    tiles share that never run at once.
    """

    def __cinit__(self, program, sizes, batch, time, axes, sources, states, in_place, int64_t stride, bint plain, Workspace work, Workspace room):
        cdef int k
        self.runner, self._room = Runner(program, work=work), room
        names = list(program.region.dimensions)
        self._dimensions = np.array([sizes[name] for name in names], np.int64)
        self.batch = names.index(batch) if batch in names else -1
        self.time = names.index(time) if time in names else -1
        self.pieces = <Piece *>PyMem_Calloc(self.runner.n_slots + 1, sizeof(Piece))
        if self.pieces == NULL:
            raise MemoryError
        for k in range(self.runner.n_slots):
            self.pieces[k].axis, self.pieces[k].source = axes[k], sources[k]
        self._table, self._in_place = np.array(states, np.int64).reshape(-1, 4), np.array(in_place, np.int64)
        self.states, self.in_place = <Row *><size_t>self._table.ctypes.data, <int64_t *><size_t>self._in_place.ctypes.data
        self.n_in_place = len(in_place)
        self.rows, self.stride, self.plain = -1, stride, plain

    def __dealloc__(self):
        PyMem_Free(self.pieces)

    @property
    def in_place_states(self):
        """Of each of the program's states, whether kernels read and write it in the pool's rows."""
        return self._table[:, 3].astype(bool).tolist()

    cdef int fit(self, int64_t rows, int64_t steps) except -1:
        """To so many rows and steps. Raises MemoryError."""
        cdef int64_t *dimensions
        cdef int64_t total = 0
        cdef int k, d
        cdef Piece *piece
        if rows == self.rows and steps == self.steps and self.runner.is_settled_in() and self.room_moved == self._room.moved:
            return 0
        self.rows = -1
        dimensions = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self._dimensions)
        if self.batch >= 0:
            dimensions[self.batch] = rows
        if self.time >= 0:
            dimensions[self.time] = steps
        if not self.runner.resize_to(self._dimensions):
            raise AssertionError("a program that was made for a pool does not hold for it")
        for k in range(self.runner.n_slots):
            piece = &self.pieces[k]
            piece.outer, piece.inner = 1, self.runner.slots[k].nbytes
            if piece.axis >= 0:
                for d in range(piece.axis):
                    piece.outer *= self.runner.slots[k].dims[d]
                piece.inner //= piece.outer * rows
            total += (self.runner.slots[k].nbytes + 63) // 64 * 64
        self._room.reserve(total)
        self.room_moved = self._room.moved
        if self._own_at is None or len(self._own_at) < rows:
            self._own_at = np.zeros(rows, np.int64)
            self.own_at = <int64_t *><size_t>self._own_at.ctypes.data
        total = <int64_t><size_t>self._room.data
        for k in range(self.runner.n_slots):
            self.pieces[k].room = <char *>total
            total += (self.runner.slots[k].nbytes + 63) // 64 * 64
        self.rows, self.steps = rows, steps
        return 0

    cdef void fetch(self, Work *work, int64_t first, int64_t end) noexcept nogil:
        """Asks for the states of rows that come next, so that they are there when a tile gathers them."""
        cdef int64_t r
        for r in range(first, end):
            fr_fetch_row(work.rows + FR_ELEMENT * work.at[r if work.in_order else work.order[r]], self.stride)

    cdef void gather(self, Work *work, int64_t first) noexcept nogil:
        """Points every slot at its rows, the caller's from `first` on in their order; what does not lie together is put together."""
        cdef int k
        cdef int64_t r, o
        cdef Piece *piece
        cdef Row *state
        cdef char *base
        self.at = work.at + first
        if not work.in_order:
            self.at = self.own_at
            for r in range(self.rows):
                self.at[r] = work.at[work.order[first + r]]
        for k in range(self.n_in_place):
            self.runner.args[self.in_place[k]].state_rows = self.at
        for k in range(self.runner.n_slots):
            piece = &self.pieces[k]
            self.runner.bases[k] = piece.room
            if self.runner.slots[k].state >= 0:
                state = &self.states[self.runner.slots[k].state]
                base = work.rows + state.offset
                if state.in_place:
                    self.runner.bases[k] = base
                    continue
                for o in range(state.outer):
                    fr_gather_rows(piece.room + o * self.rows * state.inner, base + o * state.inner, self.at, self.rows, state.inner)
                continue
            base = work.inputs[piece.source] if k < self.runner.n_inputs else work.outputs[piece.source]
            if piece.axis == SHARED:
                self.runner.bases[k] = base + work.from_step * (piece.inner // self.steps)
                continue
            base += work.from_step * (piece.outer // self.steps) * work.n * piece.inner
            if work.in_order and (piece.outer == 1 or self.rows == work.n):
                self.runner.bases[k] = base + first * piece.inner
            elif k < self.runner.n_inputs:
                for o in range(piece.outer):
                    for r in range(self.rows):
                        memcpy(piece.room + (o * self.rows + r) * piece.inner, base + (o * work.n + work.order[first + r]) * piece.inner, piece.inner)

    cdef void scatter(self, Work *work, int64_t first) noexcept nogil:
        """New states to the pool, and outputs that were put together to the caller's rows."""
        cdef int k
        cdef int64_t r, o
        cdef Piece *piece
        cdef Row *state
        cdef char *base
        for k in range(self.runner.n_commits):
            state = &self.states[k]
            for o in range(0 if state.in_place else state.outer):
                fr_scatter_rows(
                    work.rows + state.offset + o * state.inner, self.at, self.runner.commits[k].source + o * self.rows * state.inner, self.rows, state.inner
                )
        for k in range(self.runner.n_inputs, self.runner.n_slots):
            piece = &self.pieces[k]
            if self.runner.bases[k] == piece.room:
                base = work.outputs[piece.source] + work.from_step * (piece.outer // self.steps) * work.n * piece.inner
                for o in range(piece.outer):
                    for r in range(self.rows):
                        memcpy(base + (o * work.n + work.order[first + r]) * piece.inner, piece.room + (o * self.rows + r) * piece.inner, piece.inner)


cdef void _run_tiles(void *context, int index) noexcept nogil:
    """Tiles, one after the other, until none is left; for one of several threads. Each begins with its own share, so that streams that step in the same order call by call stay in
    one core's cache, and goes on with what others have not got to."""
    cdef Work *work = <Work *>context
    cdef int64_t k, first, end
    cdef int share, each
    for each in range(work.n_shares):
        share = (index + each) % work.n_shares
        first, end = work.n_tiles * share // work.n_shares, work.n_tiles * (share + 1) // work.n_shares
        if index and each == 0:  # the caller's first rows are on their way
            _fetch_tile(work.tiles[index], work, work.first + first * work.size, end)
        while True:
            k = first + fr_take_one(&work.taken[share])
            if k >= end:
                break
            _run_tile(work.rest if work.rest != NULL and k + 1 == work.n_tiles else work.tiles[index], work, work.first + k * work.size, end)


cdef void _fetch_tile(void *at, Work *work, int64_t first, int64_t end) noexcept nogil:
    """Asks for the rows of a tile that is soon run; not past tile `end`, whose rows another thread has."""
    if FETCHED >= (<Tile>at).stride:
        (<Tile>at).fetch(work, first, min(first + (<Tile>at).rows, work.first + end * work.size, work.end))


cdef void _run_tile(void *at, Work *work, int64_t first, int64_t end) noexcept nogil:
    (<Tile>at).gather(work, first)
    _fetch_tile(at, work, first + (<Tile>at).rows, end)
    (<Tile>at).runner.run_kernels()
    (<Tile>at).scatter(work, first)


cdef class Tiles:
    """What runtime.pools.tiling.Tiling is built on: the programs of a pool's step, or of its chunks, for every number of rows up to `most`.

    inputs, outputs: (name, dtype, shape, where rows stand in it, where steps do (-1: nowhere), whether it holds integers whose range is checked).
    """

    def __cinit__(self, int64_t most, int threads, *args):
        self.most, self.threads, self.known = most, threads, [None] * (most + 1)

    def _describe(self, inputs, outputs, bint steered):
        self.input_names, self.output_names, self.steered = tuple(f[0] for f in inputs), tuple(f[0] for f in outputs), steered
        self.kinds = [f[1] for f in (*inputs, *outputs)]
        if max(len(inputs), len(outputs)) > MOST_ARRAYS:
            raise UnsupportedModelError(f"a pool takes at most {MOST_ARRAYS} inputs and outputs")
        for k, field in enumerate(inputs):
            _note(&self.inputs[k], field)
        for k, field in enumerate(outputs):
            _note(&self.outputs[k], field)

    def _find(self, rows, steps):
        """The tiles for so many rows and steps: one for each thread; and one more, the last, where rows that are left over may run beside those, or would change their sizes."""
        raise NotImplementedError

    cdef list tiles_of(self, int64_t rows, int64_t steps):
        cdef object found = self.known[rows] if steps == 0 else None
        if found is None:
            found = self._find(rows, steps)
            if steps == 0:
                self.known[rows] = found
        return <list>found

    def output_slots(self, int64_t n):
        """dtype and shape of a step's outputs for n rows, by name."""
        return {name: (self.kinds[len(self.input_names) + k], _shape(&self.outputs[k], n, 0)) for k, name in enumerate(self.output_names)}

    def warm(self):
        """Makes all that a step needs; what takes most memory first, which all share."""
        cdef int64_t rows
        for rows in range(self.most, 0, -1):
            for tile in self.tiles_of(rows, 0):
                (<Tile>tile).fit(rows, 1)


cdef int _note(Field *field, described) except -1:
    _, dtype, shape, field.rows, field.steps, field.limited = described
    field.dtype, field.rank = dtype.num, len(shape)
    for d in range(field.rank):
        field.shape[d] = shape[d]
    return 0
