/* Hashes of the bits that every cell and activation gives on made-up data. Compiled for two instruction sets, also for another
 * processor under emulation, it shows whether they agree: see .ci/neon. */
#include "fpmode.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    const char *role, *name;
    int acc, gx, gh;
} cell;
static const cell CELLS[] = {{"recurrent", "rnn", 1, 1, 1},        {"general", "rnn", 1, 1, 1},       {"recurrent", "lstm", 4, 4, 4},
                             {"general", "lstm", 4, 4, 4},         {"recurrent", "gru", 4, 3, 3},     {"general", "gru", 4, 3, 3},
                             {"recurrent", "gru_before", 3, 3, 2}, {"general", "gru_before", 3, 3, 2}};
static const int SHAPES[][5] = {{1, 1, 1, 1, 0},    {5, 3, 7, 17, 0}, {11, 5, 13, 37, 0},
                                {20, 1, 12, 16, 4}, {6, 9, 9, 24, 0}, {33, 2, 40, 40, 8}}; /* T B I H chunk */

static uint64_t state, hash = 1469598103934665603ull;

/* Uniform in [-scale, scale), the same on every machine. */
static float *uniform(int64_t n, float scale) {
    float *a = aligned_alloc(64, ((size_t)n * sizeof(float) + 127) / 64 * 64);
    for (int64_t i = 0; i < n; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        a[i] = scale * (float)((int32_t)(state >> 33) - (1 << 30)) / (float)(1 << 30);
    }
    return a;
}

/* [unit block][k][gate][lane] from (G, H, K). */
static float *panel(const float *w, int G, int H, int K) {
    const int64_t blocks = fr_blocks(H);
    float *packed = aligned_alloc(64, ((size_t)(blocks * K * G * LANES) * sizeof(float) + 127) / 64 * 64);
    for (int64_t b = 0; b < blocks; b++)
        for (int k = 0; k < K; k++)
            for (int g = 0; g < G; g++)
                for (int l = 0; l < LANES; l++) {
                    const int64_t unit = b * LANES + l;
                    packed[((b * K + k) * G + g) * LANES + l] = unit < H ? w[(g * H + unit) * K + k] : 0.0f;
                }
    return packed;
}

/* The same as bfloat16 or int8 (product_bfloat16.h, product_int8.h): numbers cut off, or rounded over the largest of a row. */
static void *small_panel(const float *w, int G, int H, int K, int64_t weights) {
    const int64_t blocks = fr_blocks(H), vectors = blocks * G, bytes = fr_panel_bytes(weights, 8, H, G, K);
    char *packed = aligned_alloc(64, ((size_t)bytes + 127) / 64 * 64);
    memset(packed, 0, (size_t)bytes);
    for (int64_t unit = 0; unit < H; unit++)
        for (int g = 0; g < G; g++) {
            const float *row = w + (g * H + unit) * K;
            const int64_t block = unit / LANES, lane = unit % LANES, at = (block * G + g) * LANES + lane;
            float most = 0.0f;
            for (int k = 0; k < K; k++) most = fabsf(row[k]) > most ? fabsf(row[k]) : most;
            for (int k = 0; k < K; k++) {
                uint32_t bits;
                memcpy(&bits, &row[k], sizeof bits);
                if (weights == FR_BFLOAT16) {
                    ((uint16_t *)packed)[(((block * ((K + 1) / 2) + k / 2) * G + g) * LANES + lane) * 2 + k % 2] = (uint16_t)(bits >> 16);
                    continue;
                }
                const int8_t q = (int8_t)rintf(row[k] / (most / 127.0f));
                packed[fr_int8_head(vectors, K, 8) + (((block * ((K + 3) / 4) + k / 4) * G + g) * LANES + lane) * 4 + k % 4] = q;
                ((int32_t *)packed)[vectors * LANES + at] += q; /* K stays below a block */
            }
            if (weights == FR_INT8) ((float *)packed)[at] = most / 127.0f;
        }
    return packed;
}

static void *panel_of(const float *w, int G, int H, int K, int64_t weights) {
    return weights ? small_panel(w, G, H, K, weights) : (void *)panel(w, G, H, K);
}

/* NaNs count as one: their payload is no part of the promise. */
static void add(const float *a, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &a[i], sizeof bits);
        hash = (hash ^ (a[i] == a[i] ? bits : 0x7fc00000u)) * 1099511628211ull;
    }
}

static void run_cell(const cell *c, const int *shape, int kind, int64_t weights) {
    const int T = shape[0], B = shape[1], I = shape[2], H = shape[3];
    const float scale = 1.0f / (float)H + 0.05f;
    fr_args a = {.T = T,
                 .B = B,
                 .I = I,
                 .H = H,
                 .P = H,
                 .x_t = B * I,
                 .x_b = I,
                 .y_t = B * H,
                 .y_b = H,
                 .h0_b = H,
                 .c0_b = H,
                 .hn_b = H,
                 .cn_b = H,
                 .chunk = shape[4],
                 .clip = 2.5f,
                 .weights = weights,
                 .x_bits = 14,
                 .h_bits = shape[0] % 2 ? 8 : 14};
    a.w_x = panel_of(uniform(c->gx * H * I, scale), c->gx, H, I, weights);
    a.w_h = panel_of(uniform(c->gh * H * H, scale), c->gh, H, H, weights);
    a.w_u = panel_of(uniform(H * H, scale), 1, H, H, weights);
    a.bias = panel(uniform(c->acc * H, 1.0f), c->acc, H, 1);
    float *peepholes = uniform(3 * H, 1.0f), *padded = calloc((size_t)(3 * fr_blocks(H) * LANES), sizeof(float));
    for (int g = 0; g < 3; g++) memcpy(padded + g * fr_blocks(H) * LANES, peepholes + g * H, (size_t)H * sizeof(float));
    a.peephole = strcmp(c->name, "lstm") || strcmp(c->role, "general") ? NULL : padded;
    a.x = uniform(T * B * I, 2.0f);
    a.h0 = uniform(B * H, 1.0f);
    a.c0 = uniform(B * H, 1.0f);
    a.y = uniform(T * B * H, 1.0f);
    a.hn = uniform(B * H, 1.0f);
    a.cn = strstr(c->name, "lstm") ? uniform(B * H, 1.0f) : NULL;
    for (int k = 0; k < 3; k++) a.act[k] = (fr_activation){k || strstr(c->name, "rnn") ? kind : FR_ACT_SIGMOID, 0.7f, 0.3f};
    const fr_kernel *kernel = fr_table;
    while (strcmp(kernel->cell, c->name) || strcmp(kernel->role, c->role)) kernel++;
    a.work = aligned_alloc(64, ((size_t)kernel->work_bytes(&a) + 127) / 64 * 64);
    kernel->run(&a);
    add(a.y, T * B * H);
    add(a.hn, B * H);
}

int main(void) {
    fr_flush_denormals();
    for (size_t c = 0; c < sizeof CELLS / sizeof *CELLS; c++)
        for (size_t s = 0; s < sizeof SHAPES / sizeof *SHAPES; s++)
            for (int kind = FR_ACT_SIGMOID; kind <= (strcmp(CELLS[c].role, "recurrent") ? FR_ACT_SOFTPLUS : FR_ACT_SIGMOID); kind++) {
                state = c * 100 + s + 1;
                for (int64_t weights = FR_FLOAT32; weights <= FR_INT8; weights++) run_cell(&CELLS[c], SHAPES[s], kind, weights);
            }
    printf("cells %016llx\n", (unsigned long long)hash);
    const int64_t n = 1 << 20; /* bit patterns spread over all floats */
    float *x = malloc((size_t)n * sizeof(float)), *y = malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)(i * 4099);
        if (!(bits & 0x7f800000u)) bits &= 0x80000000u; /* what becomes of denormals is a kernel's affair */
        memcpy(&x[i], &bits, sizeof bits);
    }
    for (int kind = FR_ACT_SIGMOID; kind <= FR_ACT_EXP; kind++) {
        const fr_activation act = {kind, 0.7f, 0.3f};
        for (int64_t i = 0; i < n; i += LANES) vf_store(y + i, vf_activate(&act, vf_load(x + i)));
        add(y, n);
    }
    printf("activations %016llx\n", (unsigned long long)hash);
    return 0;
}
