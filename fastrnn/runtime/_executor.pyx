# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The executor: walks a program's steps, calling kernels by address. It does not know who compiled them.

A Runner owns one copy of a program's arguments and its work space, so it serves one call at a time; Runners hands them out. Calls check
their arguments through NumPy's C API. Where the sizes of a call are those of the one before, nothing is computed but the result; where they are
others, the program's formulas are evaluated again (resize.h). With `out` given and arrays as the program wants them, nothing is allocated
unless the work space has to grow.
"""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcmp, memcpy
from fastrnn.kernels.native._args cimport fr_args, fr_run, fr_work_bytes

from fastrnn.errors import ShapeError, UnsupportedModelError
from fastrnn.kernels.contract import ARGS, POINTERS
from fastrnn.model.ops import MAX_RANK as MODEL_MAX_RANK
from fastrnn.model.sizes import LEAST as LEAST_SIZE, MOST as MOST_SIZE, Size, has_sizes
from fastrnn.plan.lowering.formulas import Formulas
from fastrnn.plan.policy import RELEASE_GIL_NS
from fastrnn.plan.program import CheckStep, JumpStep, KernelStep, PythonStep
from fastrnn.plan.weights.panels import aligned_zeros
from fastrnn.runtime import checks

cnp.import_array()
assert MODEL_MAX_RANK == MAX_RANK

cdef enum:
    MOST_IDLE = 16  # runners that are kept for the next calls
    MOST_DIMENSIONS = 64

cdef int64_t MOST_BYTES = 1 << 46  # of a block

cdef int64_t LEAST = LEAST_SIZE, MOST = MOST_SIZE

cdef extern from "../kernels/native/fpmode.h":
    uint64_t fr_flush_denormals() nogil
    void fr_restore_denormals(uint64_t) nogil

cdef extern from "resize.h":
    void fr_evaluate(const fr_formula *, int64_t *, int, int) nogil
    int fr_guards_hold(const fr_guard *, int, const int64_t *) nogil
    int64_t fr_lay_out(const int *, int, const int64_t *, int64_t *, fr_range *) nogil
    int64_t FR_ALIGNED(int64_t) nogil

cdef extern from "threads.h":
    ctypedef struct fr_team:
        int n
    int fr_claim(fr_team *, int) nogil
    void fr_release(fr_team *) nogil
    void fr_run_group(fr_team *, const fr_run *, fr_args *, int, int) nogil
    int fastrnn_get_num_threads() nogil
    void fastrnn_set_num_threads(int) nogil

cdef extern from "Python.h":
    PyObject *PyDict_GetItem(object, object)

cdef extern from "numpy/arrayobject.h":
    object PyArray_New(void *, int, cnp.npy_intp *, int, cnp.npy_intp *, void *, int, int, void *)
    object PyArray_EMPTY(int, cnp.npy_intp *, int, int)
    bint PyArray_ISBEHAVED_RO(cnp.ndarray)


def thread_limit():
    """How many threads all calls of this process may use together."""
    return fastrnn_get_num_threads()


def set_thread_limit(int n):
    """Sets it; at least 1."""
    fastrnn_set_num_threads(n)


def lay_out(events, nbytes):
    """Offsets of blocks of these bytes, and the bytes needed for all, as a Runner lays out its work space (plan.lowering.memory.Blocks)."""
    events, nbytes = np.ascontiguousarray(events, np.int32), np.ascontiguousarray(nbytes, np.int64)
    offsets, ranges = np.zeros(len(nbytes), np.int64), np.zeros((len(events) + 1, 2), np.int64)
    end = fr_lay_out(<const int *>cnp.PyArray_DATA(<cnp.ndarray>events), <int>len(events), <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>nbytes),
                     <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets), <fr_range *>cnp.PyArray_DATA(<cnp.ndarray>ranges))
    return offsets, end


@cython.final
cdef class Workspace:
    """Memory that grows to the most that was asked of it."""

    cdef int reserve(self, int64_t nbytes) except -1:
        if nbytes > self.nbytes:
            self._array = None
            self.nbytes, self.data = 0, NULL
            self._array = aligned_zeros((nbytes,), np.uint8)
            self.nbytes, self.data = nbytes, <char *><size_t>self._array.ctypes.data
        return 0


@cython.final
cdef class States:
    """The memory of a stream's states: one block, laid out as `layout` (runtime/states.py) says. initial: a block to start from."""

    def __cinit__(self, layout, initial):
        self.layout, self.block = layout, aligned_zeros((layout.nbytes,), np.uint8)
        self.data = <char *><size_t>self.block.ctypes.data
        self.offsets = <int64_t *><size_t>layout.offsets.ctypes.data
        self.block[...] = initial


cdef void *_room(size_t n, size_t nbytes) except NULL:
    cdef void *memory = PyMem_Calloc(n + 1, nbytes)
    if memory == NULL:
        raise MemoryError
    return memory


@cython.final
cdef class Runner:
    """One program, ready to be called. release_ns: the estimate above which the GIL is released."""

    def __cinit__(self, program, double release_ns=RELEASE_GIL_NS):
        everything = [*program.inputs, *program.outputs]
        self.program, self._owned, self._tables, self._keep = program, [], [], []
        self._names = [slot.name for slot in everything]
        self.n_inputs, self.n_slots, self.n_steps, self.first = len(program.inputs), len(everything), len(program.steps), program.first
        self.release_ns = <int64_t>release_ns
        self.slots = <Slot *>_room(self.n_slots, sizeof(Slot))
        self.bases = <char **>_room(self.n_slots, sizeof(char *))
        self.kernels = <fr_run *>_room(self.n_steps, sizeof(fr_run))
        self.controls = <Control *>_room(self.n_steps, sizeof(Control))
        self._work, self._kept = Workspace(), Workspace()
        formulas = Formulas(program.region.dimensions.values())
        self.n_dimensions = len(formulas)
        if self.n_dimensions > MOST_DIMENSIONS:
            raise UnsupportedModelError(f"{self.n_dimensions} free dimensions; at most {MOST_DIMENSIONS} are supported")
        guards = [formulas.guard(guard) for guard in program.region.guards]
        self.n_guarded = len(formulas)
        self._bind_slots(everything, formulas)
        self._bind_blocks(formulas)
        self._bind_steps(formulas)
        self._bind_formulas(formulas, guards)

    def _bind_slots(self, everything, formulas):
        cdef int k, d
        cdef Slot *slot
        states = {kept.input: i for i, kept in enumerate(self.program.states)}
        self.only_input = self.only_output = -1
        for k, wanted in enumerate(everything):
            slot = &self.slots[k]
            if len(wanted.shape) > MAX_RANK:
                raise UnsupportedModelError(f"{wanted.name!r} has {len(wanted.shape)} dimensions; at most {MAX_RANK} are supported")
            slot.dtype, slot.rank, slot.itemsize = wanted.dtype.num, len(wanted.shape), wanted.dtype.itemsize
            for d in range(slot.rank):
                slot.size[d] = formulas.number(wanted.shape[d])
            slot.state = states.get(wanted.name, -1) if k < self.n_inputs else -1
            if wanted.low is not None:
                if slot.state >= 0:
                    raise UnsupportedModelError(f"state {wanted.name!r} serves as an index or a length; only inputs may, their range is checked")
                slot.limited, slot.low_value, slot.high_value = 1, formulas.number(wanted.low), formulas.number(wanted.high)
                self._owned.append(None)
            if wanted.value is not None:
                value = np.require(wanted.value, requirements="CA")
                self._keep.append(value)
                slot.wanted, slot.nbytes = <char *><size_t>value.ctypes.data, value.nbytes
            if slot.state >= 0:
                continue
            if k < self.n_inputs:
                self.n_free_inputs, self.only_input = self.n_free_inputs + 1, k
            else:
                self.n_free_outputs, self.only_output = self.n_free_outputs + 1, k

    def _bind_blocks(self, formulas):
        """The blocks of the work space, those that are kept first."""
        cdef int k
        blocks = self.program.blocks
        self.n_blocks, self.n_events = len(blocks.nbytes), len(blocks.events)
        self.block_bytes = <int64_t *>_room(self.n_blocks, sizeof(int64_t))
        self.block_offsets = <int64_t *>_room(self.n_blocks, sizeof(int64_t))
        self.block_at = <char **>_room(self.n_blocks, sizeof(char *))
        self.ranges = <fr_range *>_room(self.n_events, sizeof(fr_range))
        self.events = <int *>_room(self.n_events, sizeof(int))
        for k, event in enumerate(blocks.events):
            self.events[k] = event
        self._keep.append(blocks)

    def _bind_steps(self, formulas):
        cdef int k
        # a cache line for each call's barrier and for its count of steps
        self._meeting = aligned_zeros((self.n_steps, 2, 8), np.int64)
        cdef size_t meeting = self._meeting.ctypes.data
        self.most_threads = 1
        self._args_array = np.zeros(self.n_steps, ARGS)
        self.args = <fr_args *><size_t>self._args_array.ctypes.data
        self._python = [None] * self.n_steps
        cdef size_t base = self._args_array.ctypes.data
        patches, places, scalars, asking = [], [], [], []
        for k, number in enumerate(self.program.blocks.nbytes):
            if number is not None:
                scalars.append((<size_t>&self.block_bytes[k], formulas.number(number), False))
        for k in range(self.n_slots):
            if self.slots[k].limited:
                scalars.append((<size_t>&self.slots[k].low, self.slots[k].low_value, False))
                scalars.append((<size_t>&self.slots[k].high, self.slots[k].high_value, False))

        def point(size_t field, view):
            """Notes where an address goes."""
            offset = formulas.number(view.offset)
            if view.space == "slot":
                patches.append((field, view.index, offset))
            elif view.space == "work":
                places.append((field, 0, view.index, offset))
            else:
                places.append((field, self._memory(view.array, formulas, scalars), -1, offset))

        for k, step in enumerate(self.program.steps):
            if isinstance(step, PythonStep):
                self.controls[k].kind = RUN_PYTHON
                self._python[k] = (step, *([None if view is None else self._described(view, formulas, scalars) for view in views] for views in (step.inputs, step.outputs)))
            elif isinstance(step, JumpStep):
                self.controls[k].kind, self.controls[k].target = JUMP, step.target
                if step.condition is not None:
                    point(<size_t>&self.controls[k].data, step.condition)
            elif isinstance(step, CheckStep):
                self.controls[k].kind = CHECK
                count = 1
                for n in step.view.shape:
                    count = count * n
                for field, value in ((<size_t>&self.controls[k].count, count), (<size_t>&self.controls[k].low, step.low), (<size_t>&self.controls[k].high, step.high)):
                    scalars.append((field, formulas.number(value), False))
                point(<size_t>&self.controls[k].data, step.view)
            else:
                self.kernels[k] = <fr_run><size_t>step.kernel.run
                record = self._args_array[k:k + 1]
                for field, value in step.args.items():
                    if isinstance(value, Size):
                        scalars.append((base + k * ARGS.itemsize + ARGS.fields[field][1], formulas.number(value), ARGS.fields[field][0].kind == "f"))
                    elif field == "act":
                        record[field][0] = value
                    else:
                        record[field] = value
                for field, view in step.pointers.items():
                    point(base + k * ARGS.itemsize + ARGS.fields[field][1], view)
                    record[field] = 1  # for work_bytes, which may ask whether a pointer is there
                if step.work is not None:
                    places.append((base + k * ARGS.itemsize + ARGS.fields["work"][1], 0, step.work, formulas.number(0)))
                    asking.append((k, step.work, step.kernel.work_bytes))
                if step.args["parts"] > 1:
                    record["barrier"] = meeting + 128 * k
                if step.follows:
                    record["ready"] = meeting + 128 * (k - 1) + 64
                    self._args_array[k - 1:k]["done"] = record["ready"]
                if step.together or step.args["parts"] > 1:
                    self.controls[k].kind, self.controls[k].count = TOGETHER, max(step.together, 1)
                    self.controls[k].target = sum(max(int(s.args["parts"]), 1) for s in self.program.steps[k:k + self.controls[k].count])
                    self.most_threads = max(self.most_threads, self.controls[k].target)
        self.n_commits = len(self.program.states)
        self.commits = <Commit *>_room(self.n_commits, sizeof(Commit))
        for k, kept in enumerate(self.program.states):
            point(<size_t>&self.commits[k].source, kept.following)
            nbytes = kept.following.dtype.itemsize
            for n in kept.following.shape:
                nbytes = nbytes * n
            scalars.append((<size_t>&self.commits[k].nbytes, formulas.number(nbytes), False))
        self.estimate = formulas.number(self.program.estimated_ns)
        self._note(patches, places, scalars, asking)

    def _note(self, patches, places, scalars, asking):
        cdef int k
        self.n_patches, self.n_places, self.n_scalars, self.n_asking = len(patches), len(places), len(scalars), len(asking)
        self.patches = <Patch *>_room(self.n_patches, sizeof(Patch))
        self.places = <Place *>_room(self.n_places, sizeof(Place))
        self.scalars = <Scalar *>_room(self.n_scalars, sizeof(Scalar))
        self.asks = <fr_work_bytes *>_room(self.n_asking, sizeof(fr_work_bytes))
        self.asking = <int *>_room(2 * self.n_asking, sizeof(int))
        for k, (field, slot, offset) in enumerate(patches):
            self.patches[k].field, self.patches[k].slot, self.patches[k].offset = <char **><size_t>field, slot, offset
        for k, (field, address, block, offset) in enumerate(places):
            self.places[k].field, self.places[k].base, self.places[k].block, self.places[k].offset = <char **><size_t>field, <char *><size_t>address, block, offset
        for k, (field, value, is_float) in enumerate(scalars):
            self.scalars[k].field, self.scalars[k].value, self.scalars[k].is_float = <void *><size_t>field, value, is_float
        for k, (step, block, address) in enumerate(asking):
            self.asking[2 * k], self.asking[2 * k + 1], self.asks[k] = step, block, <fr_work_bytes><size_t>address

    def _bind_formulas(self, formulas, guards):
        cdef int k
        cdef int64_t[:] first
        rows, first = formulas.arrays()
        self._formulas = np.ascontiguousarray(rows)
        self.formulas = <fr_formula *><size_t>self._formulas.ctypes.data
        self.n_values, self.n_guards = len(rows), len(guards)
        self.values = <int64_t *>_room(self.n_values, sizeof(int64_t))
        for k in range(self.n_values):
            self.values[k] = first[k]
        for k in range(self.n_dimensions):
            self.values[k] = -1  # none yet
        self.guards = <fr_guard *>_room(self.n_guards, sizeof(fr_guard))
        for k, (value, zero, holds) in enumerate(guards):
            self.guards[k].value, self.guards[k].zero, self.guards[k].holds = value, zero, holds

    def _memory(self, array, formulas, list scalars):
        """The address of an array that stays; of one that holds Sizes, of a table that is filled in when sizes change."""
        if not has_sizes(array):
            array = array if array.dtype != object else array.astype(np.int64)
            self._keep.append(array)
            return array.ctypes.data
        for before, table in self._tables:
            if before is array:
                return table.ctypes.data
        table = aligned_zeros((array.size,), np.int64)
        self._tables.append((array, table))
        for k, value in enumerate(array.ravel()):
            if isinstance(value, Size):
                scalars.append((table.ctypes.data + 8 * k, formulas.number(value), False))
            else:
                table[k] = value
        return table.ctypes.data

    def _described(self, view, formulas, list scalars):
        """A view as _array reads it: where it is, and the values that its offset, shape and strides are."""
        base = None if view.space in ("slot", "work") else self._memory(view.array, formulas, scalars)
        dtype = np.dtype(np.int64) if view.dtype == object else view.dtype
        return (view.space, view.index, base, formulas.number(view.offset), dtype.num, dtype.itemsize,
                [formulas.number(n) for n in view.shape], [formulas.number(n) for n in view.strides])

    def __dealloc__(self):
        for memory in (<size_t>self.slots, <size_t>self.patches, <size_t>self.places, <size_t>self.scalars, <size_t>self.commits, <size_t>self.bases,
                       <size_t>self.kernels, <size_t>self.asks, <size_t>self.asking, <size_t>self.controls, <size_t>self.guards, <size_t>self.ranges,
                       <size_t>self.values, <size_t>self.block_bytes, <size_t>self.block_offsets, <size_t>self.block_at, <size_t>self.events):
            PyMem_Free(<void *><size_t>memory)

    # Sizes.

    cdef bint _resize(self, int64_t *dimensions) except -1:
        """Other values for the free dimensions; False, and nothing changed, where the program does not hold for them."""
        cdef int k
        cdef int64_t before[MOST_DIMENSIONS]
        cdef bint same = self.sized
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
        self._settle()
        return True

    cdef int _settle(self) except -1:
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
            self._own_copies()
        self.release = self.values[self.estimate] > self.release_ns
        self.sized, self.settled = True, False
        return 0

    def _own_copies(self):
        """Memory for copies of integers that are checked."""
        cdef int k, i = 0
        for k in range(self.n_slots):
            if self.slots[k].limited:
                if self._owned[i] is None or len(self._owned[i]) < self.slots[k].count:
                    self._owned[i] = aligned_zeros((self.slots[k].count,), np.int64)
                self.slots[k].checked = <char *><size_t>self._owned[i].ctypes.data
                i += 1

    cdef bint _resize_to(self, list arrays) except -1:
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
        return self._resize(dimensions)

    def resize(self, dimensions):
        """To these sizes by name; whether the program holds for them."""
        cdef int64_t values[MOST_DIMENSIONS]
        cdef int k
        for k, name in enumerate(self.program.region.dimensions):
            values[k] = dimensions[name]
        return self._resize(values)

    cdef bint resize_to(self, object dimensions) except -1:
        """To these sizes, int64 in the order of the region's; whether the program holds for them."""
        return self._resize(<int64_t *>cnp.PyArray_DATA(<cnp.ndarray>dimensions))

    # What a call brings.

    cdef bint _is_like(self, int k, object value) noexcept:
        """Whether value is an array of slot k's dtype and rank, in C order, and holds what it must."""
        cdef cnp.ndarray a
        cdef Slot *slot = &self.slots[k]
        if not cnp.PyArray_Check(value):
            return False
        a = <cnp.ndarray>value
        if cnp.PyArray_TYPE(a) != slot.dtype or cnp.PyArray_NDIM(a) != slot.rank or not cnp.PyArray_IS_C_CONTIGUOUS(a) or not PyArray_ISBEHAVED_RO(a):
            return False
        return slot.wanted == NULL or cnp.PyArray_NBYTES(a) == <cnp.npy_intp>slot.nbytes and memcmp(slot.wanted, cnp.PyArray_DATA(a), slot.nbytes) == 0

    cdef bint _fits(self, int k, object value) noexcept:
        """Whether value is an array just as slot k wants it, for the sizes at hand."""
        cdef int d
        if not self._is_like(k, value):
            return False
        for d in range(self.slots[k].rank):
            if cnp.PyArray_DIM(<cnp.ndarray>value, d) != self.slots[k].dims[d]:
                return False
        return True

    cdef object _input(self, int k, object value):
        """Binds slot k to value's memory, or to a copy; returns the array that must stay alive."""
        cdef int64_t i, index
        if not self._fits(k, value):
            slot = self.program.inputs[k]
            value = checks.as_input(value, slot.name, slot.dtype, self.shape(k))
        self.bases[k] = <char *>cnp.PyArray_DATA(<cnp.ndarray>value)
        if self.slots[k].limited:
            memcpy(self.slots[k].checked, self.bases[k], self.slots[k].nbytes)
            self.bases[k] = self.slots[k].checked
            for i in range(self.slots[k].count):
                index = (<int64_t *>self.bases[k])[i]
                if index < self.slots[k].low or index > self.slots[k].high:
                    raise checks.out_of_range(self._names[k], index, self.slots[k].low, self.slots[k].high)
        return value

    def shape(self, int k):
        """The shape of slot k, inputs first, for the sizes at hand."""
        return tuple([self.slots[k].dims[d] for d in range(self.slots[k].rank)])

    cdef object _output(self, int k, object out):
        """Binds slot k to `out`, or to a new array."""
        cdef cnp.ndarray a
        cdef int i
        if out is None:
            out = PyArray_EMPTY(self.slots[k].rank, self.slots[k].dims, self.slots[k].dtype, 0)
        else:
            if not self._fits(k, out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
                slot = self.program.outputs[k - self.n_inputs]
                checks.refuse_out(out, slot.name, slot.dtype, self.shape(k))
            a = <cnp.ndarray>out
            for i in range(k):
                self._check_apart(k, <char *>cnp.PyArray_DATA(a), i)
        self.bases[k] = <char *>cnp.PyArray_DATA(<cnp.ndarray>out)
        return out

    cdef int _check_apart(self, int k, char *start, int other) except -1:
        cdef char *begin = self.bases[other]
        if self.slots[k].nbytes and start < begin + self.slots[other].nbytes and begin < start + self.slots[k].nbytes:
            raise checks.overlap(self._names[k], self._names[other])
        return 0

    def call(self, states, given, out):
        """Runs the program for the sizes at hand. states: of a stream (States), or None. given: an array for the only input, or a dict; out: None,
        or arrays as the result has. Returns the outputs: an array, or a tuple. On an error nothing was written to any state."""
        return self.run(states, given, out)

    def run_named(self, inputs):
        """Outputs by name, in new arrays, from a dict of arrays in C order; None, and nothing done, for anything that the program does not take."""
        cdef int k, d
        cdef bint same = self.sized
        cdef PyObject *value
        cdef Slot *slot
        if type(inputs) is not dict or len(<dict>inputs) != self.n_free_inputs:
            return None
        kept = []
        for k in range(self.n_inputs):
            value = PyDict_GetItem(inputs, self._names[k])
            if value == NULL or not self._is_like(k, <object>value):
                return None
            kept.append(<object>value)
            slot = &self.slots[k]
            for d in range(slot.rank):
                same = same and cnp.PyArray_DIM(<cnp.ndarray>value, d) == slot.dims[d]
        if not same and not self._resize_to(kept):
            return None
        for k in range(self.n_inputs):
            self._input(k, kept[k])
        outputs = {}
        for k in range(self.n_inputs, self.n_slots):
            outputs[self._names[k]] = self._output(k, None)
        self._execute(None)
        return outputs

    cdef object run_listed(self, tuple given):
        """The outputs, a tuple of new arrays, from arrays in the order of the inputs; None, and nothing done, for anything that the program does not
        take. For calls that skip the dicts of run_named."""
        cdef int k, d
        cdef bint same = self.sized
        cdef object value
        if len(given) != self.n_inputs or self.n_free_inputs != self.n_inputs:
            return None
        for k in range(self.n_inputs):
            value = given[k]
            if not self._is_like(k, value):
                return None
            for d in range(self.slots[k].rank):
                same = same and cnp.PyArray_DIM(<cnp.ndarray>value, d) == self.slots[k].dims[d]
        if not same and not self._resize_to(list(given)):
            return None
        for k in range(self.n_inputs):
            self._input(k, given[k])
        outputs = []
        for k in range(self.n_inputs, self.n_slots):
            outputs.append(self._output(k, None))
        self._execute(None)
        return tuple(outputs)

    cdef int _bind_states(self, States states) except -1:
        cdef int k
        if states is not None:
            for k in range(self.n_inputs):
                if self.slots[k].state >= 0:
                    self.bases[k] = states.data + states.offsets[self.slots[k].state]
        return 0

    cdef object run(self, States states, object given, object out):
        """call, without the look-up of a method that a subclass might replace."""
        cdef object kept, result
        cdef int k, j = 0
        if (states is None) != (self.n_commits == 0):
            raise ValueError("the program's states are missing")
        self._bind_states(states)
        if self.n_free_inputs == 1 and not isinstance(given, dict):
            kept = self._input(self.only_input, given)
        else:
            kept = self._inputs(given)
        if self.n_free_outputs == 1:
            result = self._output(self.only_output, out)
        else:
            if out is not None and (not isinstance(out, (tuple, list)) or len(out) != self.n_free_outputs):
                raise checks.count_mismatch("out", self.n_free_outputs, out)
            arrays = []
            for k in range(self.n_inputs, self.n_slots):
                arrays.append(self._output(k, None if out is None else out[j]))
                j += 1
            result = tuple(arrays)
        self._execute(states)
        return result

    cdef object _inputs(self, object given):
        cdef int k
        names = [self._names[k] for k in range(self.n_inputs) if self.slots[k].state < 0]
        if not isinstance(given, dict):
            raise checks.needs_dict(names)
        checks.same_names(given, names)
        return [self._input(k, given[self._names[k]]) for k in range(self.n_inputs) if self.slots[k].state < 0]

    cdef int _execute(self, States states) except -1:
        cdef int k = self.first if self.settled else 0
        cdef int i
        for i in range(self.n_patches):
            self.patches[i].field[0] = self.bases[self.patches[i].slot] + self.values[self.patches[i].offset]
        while k < self.n_steps:
            if self.release:
                with nogil:
                    k = self._walk(k)
            else:
                k = self._walk(k)
            if k < self.n_steps:
                if self.controls[k].kind == CHECK:
                    raise self._outside(k)
                self._run_python(k)
                k += 1
        self.settled = True
        for i in range(self.n_commits):
            memcpy(states.data + states.offsets[i], self.commits[i].source, self.commits[i].nbytes)
        return 0

    cdef int _walk(self, int k) noexcept nogil:
        """Runs steps from k on; stops at one that needs Python, at integers out of range, or at the end, and says where."""
        cdef uint64_t mode = fr_flush_denormals()
        cdef Control *control
        cdef fr_team team
        team.n = 0
        while k < self.n_steps:
            control = &self.controls[k]
            if control.kind == RUN_KERNEL:
                self.kernels[k](&self.args[k])
                self.args[k].sweep += self.args[k].T
                k += 1
            elif control.kind == TOGETHER:
                if team.n == 0:
                    fr_claim(&team, self.most_threads)
                fr_run_group(&team, &self.kernels[k], &self.args[k], <int>control.count, control.target)
                for k in range(k, k + <int>control.count):
                    self.args[k].sweep += self.args[k].T
                k += 1
            elif control.kind == JUMP:
                k = control.target if control.data == NULL or not control.data[0] else k + 1
            elif control.kind == CHECK and self._within(control):
                k += 1
            else:
                break
        if team.n:
            fr_release(&team)
        fr_restore_denormals(mode)
        return k

    cdef bint _within(self, Control *control) noexcept nogil:
        cdef int64_t i
        for i in range(control.count):
            if (<int64_t *>control.data)[i] < control.low or (<int64_t *>control.data)[i] > control.high:
                return False
        return True

    cdef object _outside(self, int k):
        """The error for the integers that a check has stopped at."""
        cdef Control *control = &self.controls[k]
        cdef int64_t i, value = 0
        for i in range(control.count):
            value = (<int64_t *>control.data)[i]
            if value < control.low or value > control.high:
                break
        return checks.index_outside(self.program.steps[k].node, value, control.low, control.high)

    cdef object _array(self, object view):
        cdef cnp.npy_intp shape[MAX_RANK]
        cdef cnp.npy_intp strides[MAX_RANK]
        cdef char *data
        cdef int d, i, rank
        space, index, base, offset, dtype, itemsize, sizes, steps = view
        rank = len(sizes)
        if base is not None:
            data = <char *><size_t>base
        else:
            data = self.bases[<int>index] if space == "slot" else self.block_at[<int>index]
        for d in range(rank):
            i = sizes[d]
            shape[d] = self.values[i]
            i = steps[d]
            strides[d] = self.values[i] * <int>itemsize
        i = offset
        return PyArray_New(<void *>np.ndarray, rank, shape, dtype, strides, data + self.values[i], 0, cnp.NPY_ARRAY_WRITEABLE | cnp.NPY_ARRAY_ALIGNED, NULL)

    cdef int _run_python(self, int k) except -1:
        step, inputs, outputs = self._python[k]
        results = step.function([None if view is None else self._array(view) for view in inputs])
        for view, value in zip(outputs, results):
            if view is not None:
                target = self._array(view)
                if value.shape != target.shape:
                    raise ShapeError(f"node {step.node!r}: computed shape {value.shape}, planned {target.shape}")
                target[...] = value
        return 0


@cython.final
cdef class Runners:
    """The runners of one program: each call takes one for itself and gives it back. Safe from many threads, by the GIL. names: the inputs of
    the model that it is a program of, in order."""

    def __cinit__(self, program, names=()):
        self.program, self._idle = program, [Runner(program)]
        given = [slot.name for slot in program.inputs]
        self._leading = given == list(names[:len(given)])
        self.steered = any(slot.value is not None for slot in program.inputs)

    cdef Runner take(self):
        try:
            return <Runner>self._idle.pop()
        except IndexError:
            return Runner(self.program)

    cdef give(self, Runner runner):
        if len(self._idle) < MOST_IDLE:
            self._idle.append(runner)

    def fits(self, sizes, values):
        """Whether the program holds for these sizes, and for what inputs hold, by name."""
        cdef Runner runner = self.take()
        try:
            for slot in self.program.inputs:
                if slot.value is not None and not np.array_equal(slot.value, values[slot.name]):
                    return False
            return runner.resize(sizes)
        finally:
            self.give(runner)

    cdef bint steered_by(self, object given) except -1:
        """Whether the program is for what these inputs, a dict, hold."""
        cdef Runner runner
        cdef int k
        cdef PyObject *value
        if type(given) is not dict:
            return False
        runner = self.take()
        try:
            for k in range(runner.n_inputs):
                if runner.slots[k].wanted != NULL:
                    value = PyDict_GetItem(given, runner._names[k])
                    if value == NULL or not runner._is_like(k, <object>value):
                        return False
            return True
        finally:
            self.give(runner)

    def call(self, sizes, States states, given, out):
        """Runner.call for these sizes by name, by one that is free."""
        cdef Runner runner = self.take()
        try:
            if not runner.resize(sizes):
                raise ShapeError(f"the program does not hold for {sizes}")
            return runner.run(states, given, out)
        finally:
            self.give(runner)

    def run_listed(self, tuple given):
        """Runner.run_listed, by one that is free, where the program takes the first inputs of the model."""
        cdef Runner runner
        if not self._leading:
            return None
        runner = self.take()
        try:
            return runner.run_listed(given)
        finally:
            self.give(runner)

    def run_named(self, inputs):
        """Runner.run_named, by one that is free."""
        cdef Runner runner = self.take()
        try:
            return runner.run_named(inputs)
        finally:
            self.give(runner)
