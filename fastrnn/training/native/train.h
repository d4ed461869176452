/* The time loops of training, in float and in double, for one instruction set. */
#ifndef FASTRNN_TRAIN_H
#define FASTRNN_TRAIN_H
#include "activations.h"
#include "fpmode.h"

typedef struct {
    int64_t row, n, before, place;
} fr_piece; /* a row of Way.pieces */
typedef struct {
    int64_t where, k;
} fr_place; /* a value that a cell's instructions read or write, the k-th of its kind */
typedef struct {
    int32_t op, out, a, b, c;
} fr_instruction; /* out, a, b, c: slots; of those that read or write memory, b is a place */

#define FR_MOST_PORTS 64
/* As training/cellcode.py numbers them. */
enum {
    AT_GATE,
    AT_STATE,
    AT_NEW,
    AT_PARAMETER,
    AT_SCALAR,
    AT_INPUT,
    AT_OPERAND,
    AT_D_GATE,
    AT_D_STATE,
    AT_D_NEW,
    AT_D_PARAMETER,
    AT_D_SCALAR,
    AT_D_INPUT,
    AT_D_OPERAND
};
enum {
    DO_LOAD,
    DO_LOAD_SCALAR,
    DO_STORE,
    DO_ADD_TO,
    DO_ADD_SUM,
    DO_ADD,
    DO_SUBTRACT,
    DO_MULTIPLY,
    DO_DIVIDE,
    DO_NEGATIVE,
    DO_LESS,
    DO_LESS_EQUAL,
    DO_EQUAL,
    DO_NOT_EQUAL,
    DO_AND,
    DO_OR,
    DO_NOT,
    DO_WHERE,
    DO_ABS,
    DO_SQRT,
    DO_RELU,
    DO_MINIMUM,
    DO_MAXIMUM,
    DO_EXP,
    DO_TANH,
    DO_SIGMOID,
    DO_LOG1P
};

#define real float
#define NAME(n) n##_float
#define FR_SINGLE
#include "instance.h"
#undef FR_SINGLE
#undef NAME
#undef real
#define real double
#define NAME(n) n##_double
#include "instance.h"
#undef NAME
#undef real
#endif
