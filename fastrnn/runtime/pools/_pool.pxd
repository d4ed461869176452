# cython: language_level=3
"""What the hot half of a pool holds."""

cimport cython
from libc.stdint cimport int32_t, int64_t
from fastrnn.runtime.executor._executor cimport Runner, Workspace

cdef enum:
    SHARED = -1           # an array that all rows read

cdef struct Field:        # an input or output of a call: shape[rows] is how many streams step, shape[steps] how long a chunk is; -1: none is
    int dtype, rank, rows, steps, limited
    int64_t shape[16]

cdef struct Row:          # a state among a stream's: from offset on, `outer` runs of `inner` bytes
    int64_t offset, outer, inner
    int64_t in_place      # whether kernels read and write it there

cdef struct Piece:        # how the rows of a tile's slot lie: the same run of all rows lies together
    int64_t outer, inner
    int axis              # the batch's, or SHARED
    int source            # which of the streams' states, of the caller's inputs or outputs
    char *room            # where its rows are put together

cdef struct Work:         # what a call works on
    int64_t *slots        # of the pool, by the caller's row
    char *rows            # the pool's states, of slot 0
    int64_t *at           # and how many elements behind them a row's lie
    int64_t *order        # rows as the tiles take them, from `first` to `end`; in_order: as they come
    bint in_order
    int64_t n             # rows of the caller's arrays
    int64_t from_step     # where a chunk starts in them
    char *inputs[64]
    char *outputs[64]
    int64_t first, end, size, n_tiles
    int n_shares          # of the tiles: one for each thread
    int64_t taken[65]     # of each
    void *tiles[65]       # of each thread
    void *rest            # of the last one, where it has fewer rows

cdef struct Entry:        # of a slot
    int64_t handle        # 0: free
    int64_t mark          # the last call that named it
    int64_t count         # steps since the stream was opened

@cython.final
cdef class Tile:
    cdef Runner runner
    cdef Piece *pieces
    cdef Workspace _room
    cdef object _dimensions, _table, _own_at, _in_place
    cdef Row *states
    cdef int64_t *at          # where the states of its rows are; in_order: the work's own
    cdef int64_t *own_at
    cdef int64_t *in_place    # steps that read and write states there
    cdef int64_t n_in_place
    cdef int64_t stride, rows, steps, room_moved
    cdef bint plain
    cdef int batch, time
    cdef int fit(self, int64_t rows, int64_t steps) except -1
    cdef void fetch(self, Work *work, int64_t first, int64_t end) noexcept nogil
    cdef void gather(self, Work *work, int64_t first) noexcept nogil
    cdef void scatter(self, Work *work, int64_t first) noexcept nogil

cdef class Tiles:
    cdef readonly int64_t most
    cdef readonly int threads
    cdef readonly tuple input_names, output_names
    cdef readonly bint steered  # by what an input holds: steered_by says whether a call's is the same
    cdef list kinds
    cdef Field inputs[64]
    cdef Field outputs[64]
    cdef list known           # by rows, where a step is taken
    cdef list tiles_of(self, int64_t rows, int64_t steps)

cdef class StreamTable:
    cdef readonly int64_t capacity, stride
    cdef readonly object block  # (capacity, stride) bytes: the states of a stream are a row
    cdef object _lock, _owner, _table, _free, _slots, _at, _order, _first_row
    cdef char *rows
    cdef Entry *entries       # by slot: what a call looks at of it lies together
    cdef int32_t *free
    cdef char *first_row
    cdef int64_t n_free, calls
    cdef int n_threads
    cdef Work work
    cdef bint _busy
    cdef list _held           # arrays of the call in hand: its inputs, then its outputs
    cdef int n_held
    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int hold(self, int k, object array) except -1
    @cython.final
    cdef bint is_open(self, int64_t handle) noexcept
    cdef int64_t handle_of(self, object handle) except -1
    cdef int64_t slot_of(self, object handle) except -1
    cdef int64_t take_slot(self) except -1
    cdef void start_again(self, int64_t slot) noexcept
    cdef int64_t find(self, object handles) except -1

cdef class PoolCore(StreamTable):
    cdef readonly Tiles _tiles  # of a step
    cdef readonly int waiting   # a thread has done the kernels of its step, and wants Python's lock back
    cdef int64_t ended          # when the last step did, by fr_now_ns
    cdef int brisk              # steps that came with hardly a pause before them
    cdef object _bind(self, Tiles tiles, int64_t n, int64_t steps, object x, object out)
    cdef int _bind_input(self, Tiles tiles, int k, int64_t n, int64_t steps, object value) except -1
    cdef object _bind_output(self, Tiles tiles, int k, int64_t n, int64_t steps, object out)
    cdef bint _is_brisk(self) noexcept
    cdef int _run_rows(self, Tiles tiles, int64_t steps) except -1
    cdef int _check_ranges(self, Tiles tiles, Tile tile, int64_t steps) except -1
    cdef int _run_with_python(self) except -1
