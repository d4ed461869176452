# cython: language_level=3
"""What the executor's objects hold."""

cimport cython
cimport numpy as cnp
from libc.stdint cimport int64_t
from fastrnn.kernels.native._args cimport fr_args, fr_run

cdef enum:
    MAX_RANK = 8
    RUN_KERNEL = 0
    RUN_PYTHON = 1
    JUMP = 2
    CHECK = 3
    TOGETHER = 4

cdef struct Control:     # a step: a kernel call by default
    int kind, target     # JUMP: where to; TOGETHER: threads for all parts of all calls
    char *data           # JUMP: the condition, NULL for none; CHECK: the integers
    int64_t count, low, high  # TOGETHER: count calls

cdef struct Slot:
    int dtype, rank, limited
    cnp.npy_intp dims[MAX_RANK]
    int64_t low, high, count
    size_t nbytes
    char *fixed          # memory of a state; NULL where the caller brings the array
    char *checked        # copy of integers that were checked: the caller's could change under the kernels

cdef struct Patch:       # an address in the arguments that moves with a slot
    char **field
    int slot
    int64_t offset

cdef struct Commit:      # a state's new value goes back to where the next step reads it
    char *target
    char *source
    size_t nbytes


@cython.final
cdef class Runner:
    cdef Slot *slots
    cdef Patch *patches
    cdef Commit *commits
    cdef char **bases
    cdef fr_run *kernels
    cdef Control *controls
    cdef fr_args *args
    cdef int n_inputs, n_slots, n_patches, n_commits, n_steps, n_free_inputs, n_free_outputs, only_input, only_output, most_threads
    cdef bint release
    cdef readonly object program
    cdef object _args_array, _work, _meeting, _keep
    cdef list _python, _names, _owned

    cdef bint _fits(self, int k, object value) noexcept
    cdef object _input(self, int k, object value)
    cdef object _output(self, int k, object out)
    cdef int _check_apart(self, int k, char *start, int other) except -1
    cdef object run(self, object given, object out)
    cdef object _inputs(self, object given)
    cdef int _execute(self) except -1
    cdef int _walk(self, int k) noexcept nogil
    cdef bint _within(self, Control *control) noexcept nogil
    cdef object _outside(self, int k)
    cdef object _array(self, object view)
    cdef int _run_python(self, object step) except -1
