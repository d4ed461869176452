/* The kernels of one instruction set. A cell comes twice: with torch's default activations and nothing else, and
 * (`_any`) with every option read from the arguments. */
#include "ops.h"
#include "probe.h"

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
static const fr_kernel fr_table[] = {
    ENTRY(rnn), ENTRY(rnn_any), ENTRY(lstm), ENTRY(lstm_any), ENTRY(gru), ENTRY(gru_any), ENTRY(gru_before),
    ENTRY(gru_before_any), ENTRY(dense),
    {"gather", gather_run, no_work},
    {"copy8", copy8_run, no_work},
    {"copy16", copy16_run, no_work},
    {"copy32", copy32_run, no_work},
    {"copy64", copy64_run, no_work},
    {"add", add_run, no_work},
    {"sub", sub_run, no_work},
    {"mul", mul_run, no_work},
    {"div", div_run, no_work},
    {"prelu", prelu_run, no_work},
    {"sqrt", sqrt_run, no_work},
    {"map", map_run, no_work},
    {"sigmoid", sigmoid_run, no_work},
    {"clip", clip_run, no_work},
    {"reduce", reduce_run, no_work},
    {"softmax", softmax_run, no_work},
    {"cast_uint8_float32", cast_uint8_float32_run, no_work},
    {"cast_uint8_int64", cast_uint8_int64_run, no_work},
    {"cast_int32_float32", cast_int32_float32_run, no_work},
    {"cast_int32_int64", cast_int32_int64_run, no_work},
    {"cast_int64_float32", cast_int64_float32_run, no_work},
    {"cast_int64_int32", cast_int64_int32_run, no_work},
    {"pack", pack_run, no_work},
    {"sort_lengths", sort_lengths_run, sort_work_bytes},
    {"probe_fma", probe_fma_run, no_work},
    {"probe_load", probe_load_run, no_work},
    {0, 0, 0},
};
