/* The time loops of training, in float and in double, for one instruction set. */
#ifndef FASTRNN_TRAIN_H
#define FASTRNN_TRAIN_H
#include "activations.h"
#include "fpmode.h"

typedef struct { int64_t row, n, before, place; } fr_piece; /* a row of Packing.pieces */

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
