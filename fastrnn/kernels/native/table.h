/* The kernels of one instruction set. A cell comes twice: with torch's default activations and nothing else, and
 * (`_any`) with every option read from the arguments. */
#include "ahead.h"
#include "chain.h"
#include "dense.h"
#include "integers.h"
#include "ops.h"
#include "pool.h"
#include "probe.h"
#include "product.h"
#include "reduce.h"

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)

#define CELL(name) JOIN(rnn, name)
#define CELL_GENERAL 0
#include "cell_rnn.h"
#include "cell_end.h"
#define CELL(name) JOIN(rnn_any, name)
#define CELL_GENERAL 1
#include "cell_rnn.h"
#include "cell_end.h"
#define CELL(name) JOIN(lstm, name)
#define CELL_GENERAL 0
#include "cell_lstm.h"
#include "cell_end.h"
#define CELL(name) JOIN(lstm_any, name)
#define CELL_GENERAL 1
#include "cell_lstm.h"
#include "cell_end.h"
#define CELL(name) JOIN(gru, name)
#define CELL_GENERAL 0
#include "cell_gru.h"
#include "cell_end.h"
#define CELL(name) JOIN(gru_any, name)
#define CELL_GENERAL 1
#include "cell_gru.h"
#include "cell_end.h"
#define CELL(name) JOIN(gru_before, name)
#define CELL_GENERAL 0
#include "cell_gru_before.h"
#include "cell_end.h"
#define CELL(name) JOIN(gru_before_any, name)
#define CELL_GENERAL 1
#include "cell_gru_before.h"
#include "cell_end.h"

#define ENTRY(cell) {#cell, cell##_run, cell##_work_bytes}
#define PLAIN(name) {#name, name##_run, 0}
#define INTEGER_ENTRY(name, type) {#name "_" #type, name##_##type##_t_run, 0}
#define INTEGER_ENTRIES(type)                                                                                          \
    INTEGER_ENTRY(add, type), INTEGER_ENTRY(sub, type), INTEGER_ENTRY(mul, type), INTEGER_ENTRY(div, type), INTEGER_ENTRY(mod, type), \
    INTEGER_ENTRY(fmod, type), INTEGER_ENTRY(min, type), INTEGER_ENTRY(max, type), INTEGER_ENTRY(neg, type), INTEGER_ENTRY(abs, type), \
    INTEGER_ENTRY(sign, type), INTEGER_ENTRY(equal, type), INTEGER_ENTRY(less, type), INTEGER_ENTRY(less_or_equal, type), \
    INTEGER_ENTRY(greater, type), INTEGER_ENTRY(greater_or_equal, type), INTEGER_ENTRY(reduce, type), INTEGER_ENTRY(reduce_prod, type), \
    INTEGER_ENTRY(reduce_max, type), INTEGER_ENTRY(reduce_min, type)
#define CASTS_FROM(from, a, b, c, d, e) \
    PLAIN(cast_##from##_##a), PLAIN(cast_##from##_##b), PLAIN(cast_##from##_##c), PLAIN(cast_##from##_##d), PLAIN(cast_##from##_##e)
static const fr_kernel fr_table[] = {
    ENTRY(rnn), ENTRY(rnn_any), ENTRY(lstm), ENTRY(lstm_any), ENTRY(gru), ENTRY(gru_any), ENTRY(gru_before),
    ENTRY(gru_before_any), PLAIN(dense), ENTRY(product),
    PLAIN(copy8),
    PLAIN(copy16),
    PLAIN(copy32),
    PLAIN(copy64),
    PLAIN(chain),
    PLAIN(depthwise),
    PLAIN(pool_max),
    PLAIN(pool_mean),
    PLAIN(reduce),
    PLAIN(reduce_squares),
    PLAIN(reduce_max),
    PLAIN(reduce_min),
    PLAIN(reduce_prod),
    PLAIN(softmax),
    PLAIN(logsoftmax),
    INTEGER_ENTRIES(int32),
    INTEGER_ENTRIES(int64),
    {"equal_uint8", equal_uint8_t_run, 0},
    PLAIN(choose8),
    PLAIN(choose16),
    PLAIN(choose32),
    PLAIN(choose64),
    PLAIN(take8),
    PLAIN(take16),
    PLAIN(take32),
    PLAIN(take64),
    PLAIN(put8),
    PLAIN(put16),
    PLAIN(put32),
    PLAIN(put64),
    PLAIN(offsets),
    CASTS_FROM(uint8, float32, float64, int32, int64, bool),
    CASTS_FROM(int32, float32, float64, int64, uint8, bool),
    CASTS_FROM(int64, float32, float64, int32, uint8, bool),
    CASTS_FROM(float32, float64, int32, int64, bool, bool),
    CASTS_FROM(float64, float32, int32, int64, bool, bool),
    PLAIN(pack),
    {"sort_lengths", sort_lengths_run, sort_work_bytes},
    PLAIN(probe_fma),
    PLAIN(probe_load),
    {0, 0, 0},
};
