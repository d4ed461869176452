# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The hot half of runtime.pools.pool.Pool: handles, and a step of those streams that are ready.

A call's rows are cut into tiles of at most `most` rows, so that what a tile works on stays in cache, and each runs a program that was made for so many rows. States of built-in
cells are read and written where they lie, by an index a row (in_place.py); a Tile gathers its rows of the others, and puts the new ones back where they came from.
The caller's rows are read and written where they lie.
"""

from threading import get_ident

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memcpy
from fastrnn.runtime.executor._executor cimport Runner, Workspace, is_array, rouse, together

from fastrnn.errors import PoolFullError, ShapeError, UnknownStreamError, UnsupportedModelError
from fastrnn.plan.lowering.parallel import WORTH_NS
from fastrnn.plan.policy import RELEASE_GIL_NS
from fastrnn.plan.weights.panels import aligned_zeros
from fastrnn.runtime import checks

cnp.import_array()

cdef extern from "numpy/arrayobject.h":
    object PyArray_EMPTY(int, cnp.npy_intp *, int, int)
    bint PyArray_ISBEHAVED_RO(cnp.ndarray)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from *:
    """
    static inline void fr_set(int *at, int value) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }
    static inline int fr_is_set(const int *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    """
    void fr_set(int *, int) nogil
    bint fr_is_set(const int *) nogil

cdef extern from "../../kernels/native/system.h":
    int64_t fr_now_ns() nogil

cdef extern from "Python.h":
    bint PyLong_CheckExact(object)
    long long PyLong_AsLongLongAndOverflow(object, int *)

cdef enum:
    SLOT_BITS = 24
    MOST_ARRAYS = 64
    FIRST = 32  # rows that are on their way from where a call names them
    MOST_YIELDS = 1000  # some hundred us: another program may have the processor that the waiting thread needs
    AHEAD = 8  # handles that are looked up while the entry of one is on its way
    BRISK_STEPS = 4
    FETCHED = 4096  # bytes of a stream, at most, whose rows are asked for ahead: more than that of a tile would not stay in the first cache

SHARED_SLOT = SHARED
MOST_STREAMS = 1 << SLOT_BITS
cdef int64_t SHARE_NS = <int64_t>WORTH_NS  # LSTM(40, 64), 50 rows, 200 us from one step to the next: 26 us alone, 42 with a thread that has to be woken
cdef int64_t BRISK_NS = 16_000  # a step that takes less than SHARE_NS, and more than this, is shared with threads that are awake
cdef int64_t BRISK_PAUSE_NS = 20_000  # after several steps with no longer pauses between them: threads sleep after some 40 us
cdef int64_t RELEASE_NS = <int64_t>RELEASE_GIL_NS
cdef int64_t opened = 0  # streams so far, of all pools: no two handles of a process are equal


include "_arrays.pxi"
include "_tile.pxi"
include "_table.pxi"


cdef class PoolCore(StreamTable):
    """What runtime.pools.pool.Pool is built on."""

    # A step.

    def _use(self, Tiles tiles):
        """The programs of a step from now on."""
        self._tiles = tiles

    def _prepare(self, x):
        """Plans a step by what it brings."""
        raise TypeError("pools come from Session.pool")

    def _forget(self):
        """Sizes that a first step has fixed are open again: it was refused, or stepped nothing."""
        self._tiles = None

    def step(self, handles, x, *, out=None):
        """A step of the streams named, each by its row of x; see Pool."""
        cdef int64_t n, k
        cdef Tiles before = self._tiles
        self.enter()
        try:
            n = self.find(handles)
            if before is None or before.steered and not before.steered_by(x):
                self._prepare(x)
            try:
                result = self._bind(self._tiles, n, 0, x, out)
            except BaseException:
                if before is None:
                    self._forget()
                raise
            if before is None and n == 0:
                self._forget()
            if n:
                self._run_rows(self._tiles, 0)
                for k in range(n):
                    self.entries[self.work.slots[k]].count += 1
            return result
        finally:
            self.leave()

    # A chunk: what runtime.pools.pool.Pool does it with.

    def _name(self, handles):
        """The streams of the call, which are the work from now on; how many."""
        return self.find(handles)

    def _snapshot(self):
        """Which streams the work is on, their states and counts of steps."""
        slots = self._slots[:self.work.n].copy()
        return slots, self.block[slots], self._table[slots, 2]

    def _put_back(self, before):
        slots, self.block[slots], self._table[slots, 2] = before

    def _reset_rows(self, rows):
        """Streams of the work, by their rows (int64), back to where they started."""
        cdef int64_t row
        for row in rows.tolist():
            self.start_again(self.work.slots[row])

    def _advance(self, steps):
        """Steps that the streams of the work have done since they were opened or reset, as far as this call knows: how many it did, or -1 - n for n since a reset."""
        slots = self._slots[:self.work.n]
        self._table[slots, 2] = np.where(steps < 0, -1 - steps, self._table[slots, 2] + steps)

    def _bind_chunk(self, Tiles tiles, steps, x, out):
        """Points the work at the arrays of a chunk of so many steps; the result."""
        return self._bind(tiles, self.work.n, steps, x, out)

    def _run_part(self, Tiles tiles, order, first, end, from_step, steps):
        """Rows first..end of an order (int64; None: as they come) take so many steps of the chunk; steps 0: a step."""
        self.work.in_order = order is None
        self.work.order = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>(self._order if order is None else order))
        self.work.first, self.work.end, self.work.from_step = first, end, from_step
        if end > first:
            self._run_rows(tiles, steps)

    cdef object _bind(self, Tiles tiles, int64_t n, int64_t steps, object x, object out):
        """Points the work at the arrays of a call of n rows, and steps where it is a chunk; the result. The arrays stay alive until the call is over."""
        cdef int k, n_outputs = len(tiles.output_names)
        if len(tiles.input_names) == 1 and not isinstance(x, dict):
            self._bind_input(tiles, 0, n, steps, x)
        else:
            if not isinstance(x, dict):
                raise checks.needs_dict(tiles.input_names)
            checks.same_names(x, tiles.input_names)
            for k in range(<int>len(tiles.input_names)):
                self._bind_input(tiles, k, n, steps, x[tiles.input_names[k]])
        if n_outputs == 1:
            return self._bind_output(tiles, 0, n, steps, out)
        if out is not None and (not isinstance(out, (tuple, list)) or len(out) != n_outputs):
            raise checks.count_mismatch("out", n_outputs, out)
        return tuple([self._bind_output(tiles, k, n, steps, None if out is None else out[k]) for k in range(n_outputs)])

    cdef int _bind_input(self, Tiles tiles, int k, int64_t n, int64_t steps, object value) except -1:
        value = _input(tiles, k, n, steps, value)
        self.hold(k, value)
        self.work.inputs[k] = <char *>cnp.PyArray_DATA(<cnp.ndarray>value)
        return 0

    cdef object _bind_output(self, Tiles tiles, int k, int64_t n, int64_t steps, object out):
        cdef int i, n_inputs = len(tiles.input_names)
        cdef object value = _output(tiles, k, n, steps, out)
        self.hold(n_inputs + k, value)
        self.work.outputs[k] = <char *>cnp.PyArray_DATA(<cnp.ndarray>value)
        if out is not None:
            for i in range(n_inputs + k):
                name = tiles.input_names[i] if i < n_inputs else tiles.output_names[i - n_inputs]
                _check_apart(tiles.output_names[k], <cnp.ndarray>value, name, <cnp.ndarray>self._held[i])
        return value

    cdef int _run_rows(self, Tiles tiles, int64_t steps) except -1:
        """The streams of the work from `first` to `end`, one step, or so many steps of a chunk."""
        cdef Work *work = &self.work
        cdef int64_t count = work.end - work.first, each = max(steps, 1), estimate, rest
        cdef int t, threads = 1
        cdef list found, left
        cdef Tile tile
        work.n_tiles = (count + tiles.most - 1) // tiles.most
        work.size = (count + work.n_tiles - 1) // work.n_tiles
        found = tiles.tiles_of(work.size, steps)
        (<Tile>found[0]).fit(work.size, each)
        estimate = (<Tile>found[0]).runner.values[(<Tile>found[0]).runner.estimate] * work.n_tiles
        if tiles.threads > 1 and count > 1 and (estimate > SHARE_NS or estimate > BRISK_NS and self._is_brisk()):
            threads = <int>min(tiles.threads, count)
            if work.n_tiles % threads:
                work.n_tiles += threads - work.n_tiles % threads
                work.size = (count + work.n_tiles - 1) // work.n_tiles
                found = tiles.tiles_of(work.size, steps)
        work.n_tiles = (count + work.size - 1) // work.size
        threads = <int>min(threads, work.n_tiles)
        for t in range(threads):
            tile = <Tile>found[t]
            tile.fit(work.size, each)
            work.tiles[t] = <void *>tile
        rest = count - work.size * (work.n_tiles - 1)
        work.rest = NULL
        if rest != work.size:
            left = tiles.tiles_of(rest, steps)
            tile = <Tile>left[len(left) - 1]
            tile.fit(rest, each)
            work.rest = <void *>tile
        self._check_ranges(tiles, <Tile>found[0], steps)
        work.n_shares = threads
        for t in range(threads):
            work.taken[t] = 0
        if not ((<Tile>found[0]).plain and (work.rest == NULL or tile.plain)):
            self._run_with_python()
        elif estimate <= RELEASE_NS:
            _run_tiles(work, 0)
        else:
            with nogil:
                if threads == 1:
                    _run_tiles(work, 0)
                elif estimate > SHARE_NS:
                    together(threads, False, _run_tiles, work)
                elif together(threads, True, _run_tiles, work) < threads:
                    rouse(threads)
                fr_set(&self.waiting, 1)
            fr_set(&self.waiting, 0)
        if tiles.threads > 1:
            self.ended = fr_now_ns()
        return 0

    cdef bint _is_brisk(self) noexcept:
        """Whether the caller goes from step to step with hardly a pause."""
        self.brisk = self.brisk + 1 if fr_now_ns() - self.ended < BRISK_PAUSE_NS else 0
        return self.brisk >= BRISK_STEPS

    def give_way(self):
        """Gives up Python's lock until the thread that has done a step's kernels, and is `waiting` for it, has it. Whoever keeps the lock has it for 5 ms
        otherwise, in which a step of many rows could be done."""
        cdef int tries = 0
        with nogil:
            while fr_is_set(&self.waiting) and tries < MOST_YIELDS:
                sched_yield()
                tries += 1

    cdef int _check_ranges(self, Tiles tiles, Tile tile, int64_t steps) except -1:
        """Raises ShapeError for an integer of the call that is no index or length. The arrays are copies (_input)."""
        cdef int k
        cdef int64_t i, count
        cdef int64_t *values
        for k in range(tile.runner.n_inputs):
            if not tile.runner.slots[k].limited:
                continue
            count = _count(&tiles.inputs[tile.pieces[k].source], self.work.n, steps)
            values = <int64_t *>self.work.inputs[tile.pieces[k].source] + (self.work.from_step * (count // steps) if steps else 0)
            for i in range(count):
                if values[i] < tile.runner.slots[k].low or values[i] > tile.runner.slots[k].high:
                    raise checks.out_of_range(tiles.input_names[tile.pieces[k].source], values[i], tile.runner.slots[k].low, tile.runner.slots[k].high)
        return 0

    cdef int _run_with_python(self) except -1:
        """Tiles whose steps may raise: then every stream is as it was."""
        cdef Work *work = &self.work
        cdef int64_t k, first
        cdef Tile tile
        slots = np.array([work.slots[work.order[k]] for k in range(work.first, work.end)])
        before = self.block[slots]
        try:
            for k in range(work.n_tiles):
                tile = <Tile>(work.rest if work.rest != NULL and k + 1 == work.n_tiles else work.tiles[0])
                first = work.first + k * work.size
                tile.gather(work, first)
                tile.runner.run_steps()
                tile.scatter(work, first)
        except BaseException:
            self.block[slots] = before
            raise
        return 0
