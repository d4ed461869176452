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

cdef extern from "../../kernels/native/fpmode.h":
    uint64_t fr_flush_denormals() nogil
    void fr_restore_denormals(uint64_t) nogil

cdef extern from "resize.h":
    void fr_evaluate(const fr_formula *, int64_t *, int, int) nogil
    int fr_guards_hold(const fr_guard *, int, const int64_t *) nogil
    int64_t fr_lay_out(const int *, int, const int64_t *, int64_t *, fr_range *) nogil
    int64_t FR_ALIGNED(int64_t) nogil

cdef extern from "rows_of_bytes.h":
    void fr_copy_row(char *, const char *, int64_t) nogil

cdef extern from "Python.h":
    PyObject *PyDict_GetItem(object, object)

cdef extern from "numpy/arrayobject.h":
    object PyArray_New(void *, int, cnp.npy_intp *, int, cnp.npy_intp *, void *, int, int, void *)
    object PyArray_EMPTY(int, cnp.npy_intp *, int, int)
    bint PyArray_ISBEHAVED_RO(cnp.ndarray)


include "_threads.pxi"
include "_memory.pxi"


@cython.final
cdef class Runner:
    """One program, ready to be called. release_ns: the estimate above which the GIL is released. work: its work space; None: of its own."""

    def __cinit__(self, program, double release_ns=RELEASE_GIL_NS, Workspace work=None):
        everything = [*program.inputs, *program.outputs]
        self.program, self._owned, self._tables, self._keep = program, [], [], []
        self._names = [slot.name for slot in everything]
        self.n_inputs, self.n_slots, self.n_steps, self.first = len(program.inputs), len(everything), len(program.steps), program.first
        self.release_ns = <int64_t>release_ns
        self.slots = <Slot *>_room(self.n_slots, sizeof(Slot))
        self.bases = <char **>_room(self.n_slots, sizeof(char *))
        self.kernels = <fr_run *>_room(self.n_steps, sizeof(fr_run))
        self.controls = <Control *>_room(self.n_steps, sizeof(Control))
        self._work, self._kept = Workspace() if work is None else work, Workspace()
        formulas = Formulas(program.region.dimensions.values())
        self.n_dimensions = len(formulas)
        if self.n_dimensions > MOST_DIMENSIONS:
            raise UnsupportedModelError(f"{self.n_dimensions} free dimensions; at most {MOST_DIMENSIONS} are supported")
        guards = [formulas.guard(guard) for guard in program.region.guards]
        self.n_guarded = len(formulas)
        _bind_slots(self, everything, formulas)
        _bind_blocks(self, formulas)
        _bind_steps(self, formulas)
        _bind_formulas(self, formulas, guards)
        self.plain = _is_plain(self)

    def __dealloc__(self):
        for memory in (<size_t>self.slots, <size_t>self.patches, <size_t>self.places, <size_t>self.scalars, <size_t>self.commits, <size_t>self.bases,
                       <size_t>self.kernels, <size_t>self.asks, <size_t>self.asking, <size_t>self.controls, <size_t>self.guards, <size_t>self.ranges,
                       <size_t>self.values, <size_t>self.block_bytes, <size_t>self.block_offsets, <size_t>self.block_at, <size_t>self.events):
            PyMem_Free(<void *><size_t>memory)

    def resize(self, dimensions):
        """To these sizes by name; whether the program holds for them."""
        cdef int64_t values[MOST_DIMENSIONS]
        cdef int k
        for k, name in enumerate(self.program.region.dimensions):
            values[k] = dimensions[name]
        return _resize(self, values)

    cdef bint is_settled_in(self) noexcept:
        """Whether addresses are those of the sizes at hand, and of the work space where it is."""
        return self.sized and self.work_moved == self._work.moved

    cdef bint resize_to(self, object dimensions) except -1:
        """To these sizes, int64 in the order of the region's; whether the program holds for them."""
        cdef int64_t *wanted = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>dimensions)
        cdef int k
        for k in range(self.n_dimensions):
            if wanted[k] != self.values[k]:
                return _resize(self, wanted)
        return self.is_settled_in() or _resize(self, wanted)

    # What a call brings.

    cdef bint _is_like(self, int k, object value) noexcept:
        """Whether value is an array of slot k's dtype and rank, in C order, and holds what it must."""
        cdef cnp.ndarray a
        cdef Slot *slot = &self.slots[k]
        if not is_array(value):
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
        if not same and not _resize_to(self, kept):
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
        if not same and not _resize_to(self, list(given)):
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
        cdef int i
        self.run_steps()
        for i in range(self.n_commits):
            fr_copy_row(states.data + states.offsets[i], self.commits[i].source, self.commits[i].nbytes)
        return 0

    cdef int start(self) noexcept nogil:
        """Points the arguments at the slots; the step that comes first."""
        cdef int i
        for i in range(self.n_patches):
            self.patches[i].field[0] = self.bases[self.patches[i].slot] + self.values[self.patches[i].offset]
        return self.first if self.settled else 0

    cdef bint run_kernels(self) noexcept nogil:
        """All steps, where none needs Python; False where one does, or a check fails."""
        cdef bint done = self._walk(self.start()) == self.n_steps
        self.settled = self.settled or done
        return done

    cdef int run_steps(self) except -1:
        """All steps, from the slots' memory to it and the work space; no state is written."""
        cdef int k = self.start()
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
                    fr_claim(&team, self.most_threads, False)
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


include "_at_once.pxi"
include "_binding.pxi"
include "_resizing.pxi"
include "_runners.pxi"
