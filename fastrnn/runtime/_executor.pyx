# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The executor: walks a program's steps, calling kernels by address. It does not know who compiled them.

A Runner owns one copy of a program's arguments and its work space, so it serves one call at a time; whoever shares a program
between threads makes several. Calls check their arguments through NumPy's C API and, with `out` given and arrays as the
program wants them, allocate nothing.
"""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy
from fastrnn.kernels.native._args cimport fr_args, fr_run

from fastrnn.errors import NotStreamableError, ShapeError, UnsupportedModelError
from fastrnn.model.ops import MAX_RANK as MODEL_MAX_RANK
from fastrnn.kernels.contract import ARGS, POINTERS
from fastrnn.plan.weights.panels import aligned_zeros
from fastrnn.plan.program import CheckStep, JumpStep, KernelStep
from fastrnn.runtime import checks

cnp.import_array()
assert MODEL_MAX_RANK == MAX_RANK

cdef extern from "../kernels/native/fpmode.h":
    uint64_t fr_flush_denormals() nogil
    void fr_restore_denormals(uint64_t) nogil

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


@cython.final
cdef class Runner:
    """One program, ready to be called.

    program: what to run. states: arrays that stay bound to slots, by slot name. commits: (target array, source array)
    copied after each successful call. release_ns: the estimate above which the GIL is released. work: work space to use, at least as
    much as the program wants, shared with runners that never run at the same time; its own if left out.
    """

    def __cinit__(self, program, states, commits, double release_ns, work=None):
        cdef int k, d
        everything = [*program.inputs, *program.outputs]
        self.program, self._keep, self._owned, self._work = program, (states, commits), [], work
        if work is not None and work.nbytes < program.work_bytes:
            raise ValueError(f"{work.nbytes} bytes of work space, the program wants {program.work_bytes}")
        self._names = [slot.name for slot in everything]
        self.n_inputs, self.n_slots = len(program.inputs), len(everything)
        self.n_steps, self.n_commits = len(program.steps), len(commits)
        self.slots = <Slot *>PyMem_Calloc(self.n_slots + 1, sizeof(Slot))
        self.bases = <char **>PyMem_Calloc(self.n_slots + 1, sizeof(char *))
        self.kernels = <fr_run *>PyMem_Calloc(self.n_steps + 1, sizeof(fr_run))
        self.controls = <Control *>PyMem_Calloc(self.n_steps + 1, sizeof(Control))
        self.commits = <Commit *>PyMem_Calloc(self.n_commits + 1, sizeof(Commit))
        if not (self.slots and self.bases and self.kernels and self.controls and self.commits):
            raise MemoryError
        self.only_input = self.only_output = -1
        for k, slot in enumerate(everything):
            if len(slot.shape) > MAX_RANK:
                raise UnsupportedModelError(f"{slot.name!r} has {len(slot.shape)} dimensions; at most {MAX_RANK} are supported")
            self.slots[k].dtype, self.slots[k].rank = slot.dtype.num, len(slot.shape)
            self.slots[k].count = 1
            for d in range(self.slots[k].rank):
                self.slots[k].dims[d] = slot.shape[d]
                self.slots[k].count *= slot.shape[d]
            self.slots[k].nbytes = self.slots[k].count * slot.dtype.itemsize
            if slot.low is not None:
                self.slots[k].limited, self.slots[k].low, self.slots[k].high = 1, slot.low, slot.high
                owned = aligned_zeros((self.slots[k].count,), np.int64)
                self.slots[k].checked = <char *><size_t>owned.ctypes.data
                self._owned.append(owned)
            key = ("input" if k < self.n_inputs else "output", slot.name)
            if key in states:
                if self.slots[k].limited:
                    raise UnsupportedModelError(f"state {slot.name!r} serves as an index or a length; only inputs may, their range is checked")
                if states[key].shape != tuple(slot.shape) or states[key].dtype != slot.dtype:
                    raise NotStreamableError(f"state {slot.name!r} holds {states[key].shape}, the program wants {tuple(slot.shape)}")
                self.slots[k].fixed = <char *><size_t>states[key].ctypes.data
                self.bases[k] = self.slots[k].fixed
            elif k < self.n_inputs:
                self.n_free_inputs, self.only_input = self.n_free_inputs + 1, k
            else:
                self.n_free_outputs, self.only_output = self.n_free_outputs + 1, k
        for k, (target, source) in enumerate(commits):
            self.commits[k].target = <char *><size_t>target.ctypes.data
            self.commits[k].source = <char *><size_t>source.ctypes.data
            self.commits[k].nbytes = target.nbytes
        self._bind_steps()
        self.release = program.estimated_ns > release_ns

    def _bind_steps(self):
        cdef int k
        # a cache line for each call's barrier and for its count of steps
        self._meeting = aligned_zeros((self.n_steps, 2, 8), np.int64)
        cdef size_t meeting = self._meeting.ctypes.data
        self.most_threads = 1
        if self._work is None:
            self._work = aligned_zeros((max(self.program.work_bytes, 1),), np.uint8)
        self._args_array = np.zeros(self.n_steps, ARGS)
        self.args = <fr_args *><size_t>self._args_array.ctypes.data
        patches, self._python = [], [None] * self.n_steps
        cdef size_t base = self._args_array.ctypes.data, work = self._work.ctypes.data
        for k, step in enumerate(self.program.steps):
            if not isinstance(step, KernelStep):
                view = self._bind_control(k, step)
                if view is not None and view.space == "slot":
                    patches.append((<size_t>&self.controls[k].data, view.index, view.offset))
                continue
            self.kernels[k] = <fr_run><size_t>step.kernel.run
            record = step.args.copy()
            for field, view in step.pointers.items():
                if view.space == "slot":
                    patches.append((base + k * ARGS.itemsize + ARGS.fields[field][1], view.index, view.offset))
                    record[field] = 0
                elif view.space == "work":
                    record[field] = work + view.offset
                else:
                    record[field] = view.array.ctypes.data + view.offset
            for field in POINTERS:
                if field not in step.pointers:
                    record[field] = 0
            if record["parts"] > 1:
                record["barrier"] = meeting + 128 * k
            if step.follows:
                record["ready"] = meeting + 128 * (k - 1) + 64
                self._args_array[k - 1]["done"] = record["ready"]
            self._args_array[k] = record
            if step.together or record["parts"] > 1:
                self.controls[k].kind, self.controls[k].count = TOGETHER, max(step.together, 1)
                self.controls[k].target = sum(max(int(s.args["parts"]), 1) for s in self.program.steps[k:k + self.controls[k].count])
                self.most_threads = max(self.most_threads, self.controls[k].target)
        self.n_patches = len(patches)
        self.patches = <Patch *>PyMem_Calloc(self.n_patches + 1, sizeof(Patch))
        if not self.patches:
            raise MemoryError
        for k, (field, slot, offset) in enumerate(patches):
            self.patches[k].field, self.patches[k].slot, self.patches[k].offset = <char **><size_t>field, slot, offset

    def _bind_control(self, int k, step):
        """Notes a step that is no kernel call; returns the view that it reads, if any."""
        if isinstance(step, JumpStep):
            self.controls[k].kind, self.controls[k].target, view = JUMP, step.target, step.condition
        elif isinstance(step, CheckStep):
            self.controls[k].kind, view = CHECK, step.view
            self.controls[k].count = int(np.prod(view.shape, dtype=np.int64))
            self.controls[k].low, self.controls[k].high = step.low, step.high
        else:
            # arrays over work space and weights stay; those over the caller's are made at each call
            inputs, outputs = ([v if v is None or v.space == "slot" else self._array(v) for v in views] for views in (step.inputs, step.outputs))
            self.controls[k].kind, self._python[k], view = RUN_PYTHON, (step, inputs, outputs), None
        if view is not None and view.space == "work":
            self.controls[k].data = <char *><size_t>self._work.ctypes.data + <int64_t>view.offset
        elif view is not None and view.space == "weight":
            self.controls[k].data = <char *><size_t>view.array.ctypes.data + <int64_t>view.offset
        return view

    def __dealloc__(self):
        PyMem_Free(self.slots)
        PyMem_Free(self.patches)
        PyMem_Free(self.commits)
        PyMem_Free(self.bases)
        PyMem_Free(self.kernels)
        PyMem_Free(self.controls)

    cdef bint _fits(self, int k, object value) noexcept:
        """Whether value is an array just as slot k wants it."""
        cdef cnp.ndarray a
        cdef int d
        cdef Slot *slot = &self.slots[k]
        if not cnp.PyArray_Check(value):
            return False
        a = <cnp.ndarray>value
        if cnp.PyArray_TYPE(a) != slot.dtype or cnp.PyArray_NDIM(a) != slot.rank or not cnp.PyArray_IS_C_CONTIGUOUS(a) or not PyArray_ISBEHAVED_RO(a):
            return False
        for d in range(slot.rank):
            if cnp.PyArray_DIM(a, d) != slot.dims[d]:
                return False
        return True

    cdef object _input(self, int k, object value):
        """Binds slot k to value's memory, or to a copy; returns the array that must stay alive."""
        cdef int64_t i, index
        if not self._fits(k, value):
            slot = self.program.inputs[k]
            value = checks.as_input(value, slot.name, slot.dtype, slot.shape)
        self.bases[k] = <char *>cnp.PyArray_DATA(<cnp.ndarray>value)
        if self.slots[k].limited:
            memcpy(self.slots[k].checked, self.bases[k], self.slots[k].nbytes)
            self.bases[k] = self.slots[k].checked
            for i in range(self.slots[k].count):
                index = (<int64_t *>self.bases[k])[i]
                if index < self.slots[k].low or index > self.slots[k].high:
                    raise checks.out_of_range(self._names[k], index, self.slots[k].low, self.slots[k].high)
        return value

    cdef object _output(self, int k, object out):
        """Binds slot k to `out`, or to a new array."""
        cdef cnp.ndarray a
        cdef int i
        if out is None:
            out = PyArray_EMPTY(self.slots[k].rank, self.slots[k].dims, self.slots[k].dtype, 0)
        else:
            if not self._fits(k, out) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
                slot = self.program.outputs[k - self.n_inputs]
                checks.refuse_out(out, slot.name, slot.dtype, slot.shape)
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

    def call(self, given, out):
        """Runs the program. given: an array for the only input, or a dict; out: None, or arrays as the result has.

        Returns the outputs that are not states: an array, or a tuple. On an error nothing was written to any state.
        """
        return self.run(given, out)

    def run_named(self, inputs):
        """Outputs by name, in new arrays, from a dict of arrays just as the program wants them; None, and nothing done, for anything else."""
        cdef int k
        cdef PyObject *value
        if type(inputs) is not dict or len(<dict>inputs) != self.n_free_inputs:
            return None
        kept = []
        for k in range(self.n_inputs):
            value = PyDict_GetItem(inputs, self._names[k])
            if value == NULL or not self._fits(k, <object>value):
                return None
            kept.append(<object>value)
        for k in range(self.n_inputs):
            self._input(k, kept[k])
        outputs = {}
        for k in range(self.n_inputs, self.n_slots):
            outputs[self._names[k]] = self._output(k, None)
        self._execute()
        return outputs

    cdef object run(self, object given, object out):
        """call, without the look-up of a method that a subclass might replace."""
        cdef object kept, result
        cdef int k, j = 0
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
                if not self.slots[k].fixed:
                    arrays.append(self._output(k, None if out is None else out[j]))
                    j += 1
            result = tuple(arrays)
        self._execute()
        return result

    cdef object _inputs(self, object given):
        cdef int k
        names = [self._names[k] for k in range(self.n_inputs) if not self.slots[k].fixed]
        if not isinstance(given, dict):
            raise checks.needs_dict(names)
        checks.same_names(given, names)
        return [self._input(k, given[self._names[k]]) for k in range(self.n_inputs) if not self.slots[k].fixed]

    cdef int _execute(self) except -1:
        cdef int k
        for k in range(self.n_patches):
            self.patches[k].field[0] = self.bases[self.patches[k].slot] + self.patches[k].offset
        k = 0
        while k < self.n_steps:
            if self.release:
                with nogil:
                    k = self._walk(k)
            else:
                k = self._walk(k)
            if k < self.n_steps:
                if self.controls[k].kind == CHECK:
                    raise self._outside(k)
                self._run_python(self._python[k])
                k += 1
        for k in range(self.n_commits):
            memcpy(self.commits[k].target, self.commits[k].source, self.commits[k].nbytes)
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
        cdef int64_t i, value
        for i in range(control.count):
            value = (<int64_t *>control.data)[i]
            if value < control.low or value > control.high:
                return False
        return True

    cdef object _outside(self, int k):
        """The error for a CheckStep that found something."""
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
        cdef int d, rank = len(view.shape)
        if view.space == "weight":
            data = <char *><size_t>view.array.ctypes.data
        else:
            data = self.bases[<int>view.index] if view.space == "slot" else <char *><size_t>self._work.ctypes.data
        for d in range(rank):
            shape[d], strides[d] = view.shape[d], view.strides[d] * view.dtype.itemsize
        return PyArray_New(<void *>np.ndarray, rank, shape, view.dtype.num, strides, data + <int64_t>view.offset, 0,
                           cnp.NPY_ARRAY_WRITEABLE | cnp.NPY_ARRAY_ALIGNED, NULL)

    cdef int _run_python(self, object step) except -1:
        step, inputs, outputs = step
        results = step.function([v if v is None or isinstance(v, np.ndarray) else self._array(v) for v in inputs])
        for target, value in zip(outputs, results):
            if target is not None:
                if value.shape != target.shape:
                    raise ShapeError(f"node {step.node!r}: computed shape {value.shape}, planned {target.shape}")
                target = target if isinstance(target, np.ndarray) else self._array(target)
                target[...] = value
        return 0
