/* The kernels of one instruction set, by role, cell and dtype (contract.Key). A cell comes twice, from the same tiles: with torch's default activations
 * and nothing else (recurrent), and with every option read from the arguments (general). */
#include "ahead.h"
#include "bytes.h"
#include "chain.h"
#include "dense.h"
#include "depthwise.h"
#include "integers.h"
#include "multiply.h"
#include "ops.h"
#include "pool.h"
#include "probe.h"
#include "reduce.h"
#include "select.h"
#include "winograd.h"

#define JOIN2(a, b) a##_##b
#define JOIN(a, b) JOIN2(a, b)

#define CELL(name) JOIN(rnn, name)
#include "cell_rnn.h"
#include "cell_end.h"
#define CELL(name) JOIN(lstm, name)
#include "cell_lstm.h"
#include "cell_end.h"
#define CELL(name) JOIN(gru, name)
#include "cell_gru.h"
#include "cell_end.h"
#define CELL(name) JOIN(gru_before, name)
#include "cell_gru_before.h"
#include "cell_end.h"

#define KERNEL(role, dtype, run) {role, "", dtype, run, 0}
#define PLAIN(name) KERNEL(#name, "float32", name##_run)
/* The weights' dtype stands in the arguments too. */
#define BOTH_OVER(cell, dtype) \
    {"recurrent", #cell, dtype, cell##_run, cell##_work_bytes}, { "general", #cell, dtype, cell##_general_run, cell##_work_bytes }
#define BOTH(cell) BOTH_OVER(cell, "float32"), BOTH_OVER(cell, "bfloat16"), BOTH_OVER(cell, "int8")
#define MOVES(name) \
    KERNEL(#name, "bits8", name##8_run), KERNEL(#name, "bits16", name##16_run), KERNEL(#name, "bits32", name##32_run), \
        KERNEL(#name, "bits64", name##64_run)
#define INTEGER(name, type) KERNEL(#name, #type, name##_##type##_t_run)
#define INTEGERS(type) \
    INTEGER(add, type), INTEGER(sub, type), INTEGER(mul, type), INTEGER(div, type), INTEGER(mod, type), INTEGER(fmod, type), INTEGER(min, type), \
        INTEGER(max, type), INTEGER(neg, type), INTEGER(abs, type), INTEGER(sign, type), INTEGER(equal, type), INTEGER(less, type), \
        INTEGER(less_or_equal, type), INTEGER(greater, type), INTEGER(greater_or_equal, type), INTEGER(reduce, type), INTEGER(reduce_prod, type), \
        INTEGER(reduce_max, type), INTEGER(reduce_min, type)
#define SELECTS(dtype, type) \
    KERNEL("argmax", dtype, argmax_##type##_run), KERNEL("argmin", dtype, argmin_##type##_run), KERNEL("top", dtype, top_##type##_run), \
        KERNEL("running", dtype, running_##type##_run)
#define CAST(from, to) KERNEL("cast_" #to, #from, cast_##from##_##to##_run)
static const fr_kernel fr_table[] = {
    BOTH(rnn),
    BOTH(lstm),
    BOTH(gru),
    BOTH(gru_before),
    PLAIN(dense),
    KERNEL("dense", "bfloat16", dense_run),
    {"dense", "", "int8", dense_run, dense_int8_work_bytes},
    {"product", "", "float32", product_run, product_work_bytes},
    {"winograd", "", "float32", winograd_run, winograd_work_bytes},
    MOVES(copy),
    PLAIN(chain),
    PLAIN(depthwise),
    KERNEL("pool_max", "float32", pool_max_float32_run),
    KERNEL("pool_max", "uint8", pool_max_uint8_run),
    KERNEL("pool_max", "int8", pool_max_int8_run),
    PLAIN(pool_mean),
    PLAIN(reduce),
    PLAIN(reduce_squares),
    PLAIN(reduce_max),
    PLAIN(reduce_min),
    PLAIN(reduce_prod),
    PLAIN(softmax),
    PLAIN(logsoftmax),
    INTEGERS(int32),
    INTEGERS(int64),
    INTEGER(equal, uint8),
    MOVES(choose),
    MOVES(take),
    MOVES(put),
    KERNEL("offsets", "int64", offsets_run),
    SELECTS("float32", fr_number),
    SELECTS("int32", int32_t),
    SELECTS("int64", int64_t),
    CAST(uint8, float32),
    CAST(uint8, float64),
    CAST(uint8, int32),
    CAST(uint8, int64),
    CAST(uint8, bool),
    CAST(int32, float32),
    CAST(int32, float64),
    CAST(int32, int64),
    CAST(int32, uint8),
    CAST(int32, bool),
    CAST(int64, float32),
    CAST(int64, float64),
    CAST(int64, int32),
    CAST(int64, uint8),
    CAST(int64, bool),
    CAST(float32, float64),
    CAST(float32, int32),
    CAST(float32, int64),
    CAST(float32, bool),
    CAST(float64, float32),
    CAST(float64, int32),
    CAST(float64, int64),
    CAST(float64, bool),
    {"quantize", "", "uint8", quantize_uint8_t_run, 0},
    {"quantize", "", "int8", quantize_int8_t_run, 0},
    {"dequantize", "", "uint8", dequantize_uint8_t_run, 0},
    {"dequantize", "", "int8", dequantize_int8_t_run, 0},
    {"dequantize", "", "int32", dequantize_int32_t_run, 0},
    {"dynamic_quantize", "", "float32", dynamic_quantize_run, 0},
    {"integer_product", "", "int8", integer_product_run, integer_product_work_bytes},
    PLAIN(pack),
    {"sort_lengths", "", "int64", sort_lengths_run, sort_work_bytes},
    PLAIN(probe_fma),
    PLAIN(probe_load),
    {0, 0, 0, 0, 0},
};
