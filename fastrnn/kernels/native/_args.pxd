# cython: language_level=3
from libc.stdint cimport int64_t

cdef extern from "args.h":
    ctypedef struct fr_activation:
        int64_t kind
        float alpha, beta

    ctypedef struct fr_args:
        int64_t T, B, I, H, P
        const void *x
        float *y
        int64_t x_t, x_b, y_t, y_b
        const void *w_x
        const void *w_h
        const void *w_u
        const void *w_p
        const float *bias
        const float *peephole
        const float *h0
        const float *c0
        float *hn
        float *cn
        int64_t h0_b, c0_b, hn_b, cn_b
        const int64_t *state_rows
        const int64_t *lengths
        const int64_t *order
        const float *keep
        int64_t keep_t, keep_b
        void *work
        int64_t chunk, ahead, sweep, part, parts
        void *barrier
        void *ready
        void *done
        const void *beside
        int64_t reverse, input_forget
        float clip, scale
        const void *x2
        int64_t x2_t, x2_b
        const int64_t *axes
        const void *x3
        const void *x4
        const void *x5
        const void *x6
        const void *x7
        const void *x8
        int64_t weights, far, x_bits, h_bits, p_bits
        fr_activation act[3]

    ctypedef void (*fr_run)(const fr_args *) noexcept nogil
    ctypedef int64_t (*fr_work_bytes)(const fr_args *) noexcept nogil

    ctypedef struct fr_kernel:
        const char *role
        const char *cell
        const char *dtype
        fr_run run
        fr_work_bytes work_bytes
