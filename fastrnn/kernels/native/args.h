/* The kernel contract: one argument struct, one signature. fastrnn/kernels/contract.py mirrors this
 * struct field by field and says what each field means, _args.pxd declares it to Cython; tests/kernels/test_contract.py compares all three. */
/* clang-format off */
#ifndef FASTRNN_ARGS_H
#define FASTRNN_ARGS_H
#include <stdint.h>
#undef I /* complex.h, which NumPy's headers include, takes the letter */

typedef struct {
    int64_t kind; /* FR_ACT_*; the order of fastrnn.cells.ACTIVATIONS */
    float alpha, beta;
} fr_activation;

typedef struct {
    int64_t T, B, I, H, P;            /* time, batch, input, hidden, projected hidden (= H without projection) */
    const void *x;                    /* row (t, b) starts at x + t * x_t + b * x_b elements */
    float *y;
    int64_t x_t, x_b, y_t, y_b;
    const void *w_x, *w_h, *w_u;      /* packed panels [unit block][k][gate][lane]: over x, over h, over a second phase */
    const void *w_p;                  /* packed panel of the projection */
    const float *bias;                /* [unit block][accumulator][lane]: where every FMA chain starts */
    const float *peephole;            /* [3][H padded to lanes] in the order i, f, o; NULL without */
    const float *h0, *c0;             /* initial states (B, P) and (B, H); c0 may be NULL for zeros */
    float *hn, *cn;                   /* final states; hn may be h0 or NULL; cn may be c0, NULL for cells without c */
    int64_t h0_b, c0_b, hn_b, cn_b;   /* their row strides; h0_b = 0 lets all rows share one */
    const int64_t *state_rows;        /* NULL, or of each batch row the elements from h0, c0, hn and cn to its own, in place of strides */
    const int64_t *lengths, *order;   /* NULL, or lengths sorted descending and the row each belongs to */
    const float *keep;                /* what states of row (t, b) are multiplied by on their way into step t, at keep + t * keep_t + b * keep_b; 0: they are zero */
    int64_t keep_t, keep_b;           /* keep_b = 0: all states go on as they are */
    void *work;                       /* work_bytes(args) bytes, 64-byte aligned */
    int64_t chunk;                    /* steps whose input projection is done at once; 0: inside each step. Of a dense layer, segments that a row of x lies in; 0: one */
    int64_t ahead;                    /* 1, with a chunk, of 16 lanes: each chunk's projection is done beside the steps of the one before */
    int64_t sweep;                    /* steps that calls with these weights have done: odd ones run through the units backward */
    int64_t part, parts;              /* which share of the units this call computes, of how many calls at once that meet at `barrier`; 0, 0: all */
    void *barrier;                    /* an int64, 0 before the first arrives */
    void *ready, *done;               /* int64: steps of x that another call has made so far, steps of y that this one has; NULL without */
    const void *beside;               /* fr_args of another call of this kernel, over the same rows, whose steps are done in turn with this one's; NULL without */
    int64_t reverse, input_forget;
    float clip;                       /* +inf: no clipping */
    float scale;                      /* the divisor of reduce */
    const void *x2;                   /* a second operand; of a recurrent cell, row (t, b) of its scalars starts at x2 + t * x2_t + b * x2_b */
    int64_t x2_t, x2_b;
    const int64_t *axes;              /* T loops of (size, strides of y, x and x2), outermost first: grid.h */
    const void *x3, *x4, *x5, *x6, *x7, *x8; /* more operands, of chains: chain.h */
    int64_t weights;                  /* FR_FLOAT32, FR_BFLOAT16, FR_INT8: of the panels */
    int64_t far;                      /* 1: panels over x and h, or a dense layer's, come from beyond L2; every gate of theirs lies apart, [unit block][gate][k][lane] */
    int64_t x_bits, h_bits, p_bits;   /* of int8 weights: integers that x, what is made of h, and what is projected are rounded to, 8 or 14 (quantize.h) */
    fr_activation act[3];             /* f, g, h in ONNX's order for the cell */
} fr_args;

typedef void (*fr_run)(const fr_args *);
typedef int64_t (*fr_work_bytes)(const fr_args *);

typedef struct {
    const char *role, *cell, *dtype; /* contract.Key */
    fr_run run;
    fr_work_bytes work_bytes;
} fr_kernel;

enum { FR_FLOAT32, FR_BFLOAT16, FR_INT8 };

enum {
    FR_ACT_IDENTITY, FR_ACT_SIGMOID, FR_ACT_TANH, FR_ACT_RELU, FR_ACT_AFFINE, FR_ACT_LEAKY_RELU, FR_ACT_THRESHOLDED_RELU,
    FR_ACT_SCALED_TANH, FR_ACT_HARD_SIGMOID, FR_ACT_ELU, FR_ACT_SOFTSIGN, FR_ACT_SOFTPLUS, FR_ACT_EXP
};
#endif
