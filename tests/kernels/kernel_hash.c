/* Hashes of the bits that every cell and activation gives on made-up data. Compiled for two instruction sets, also for another
 * processor under emulation, it shows whether they agree: see .ci/neon. */
#include "fpmode.h"
#include "table.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct { const char *role, *name; int acc, gx, gh; } cell;
static const cell CELLS[] = {{"recurrent", "rnn", 1, 1, 1}, {"general", "rnn", 1, 1, 1}, {"recurrent", "lstm", 4, 4, 4}, {"general", "lstm", 4, 4, 4},
                             {"recurrent", "gru", 4, 3, 3}, {"general", "gru", 4, 3, 3}, {"recurrent", "gru_before", 3, 3, 2}, {"general", "gru_before", 3, 3, 2}};
static const int SHAPES[][5] = {{1, 1, 1, 1, 0}, {5, 3, 7, 17, 0}, {11, 5, 13, 37, 0}, {20, 1, 12, 16, 4}, {6, 9, 9, 24, 0}, {33, 2, 40, 40, 8}}; /* T B I H chunk */

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

/* NaNs count as one: their payload is no part of the promise. */
static void add(const float *a, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &a[i], sizeof bits);
        hash = (hash ^ (a[i] == a[i] ? bits : 0x7fc00000u)) * 1099511628211ull;
    }
}

static void run_cell(const cell *c, const int *shape, int kind) {
    const int T = shape[0], B = shape[1], I = shape[2], H = shape[3];
    const float scale = 1.0f / (float)H + 0.05f;
    fr_args a = {.T = T, .B = B, .I = I, .H = H, .P = H, .x_t = B * I, .x_b = I, .y_t = B * H, .y_b = H, .h0_b = H, .c0_b = H, .hn_b = H, .cn_b = H,
                 .chunk = shape[4], .clip = 2.5f};
    a.w_x = panel(uniform(c->gx * H * I, scale), c->gx, H, I);
    a.w_h = panel(uniform(c->gh * H * H, scale), c->gh, H, H);
    a.w_u = panel(uniform(H * H, scale), 1, H, H);
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
                run_cell(&CELLS[c], SHAPES[s], kind);
            }
    printf("cells %016llx\n", (unsigned long long)hash);
    const int64_t n = 1 << 20; /* bit patterns spread over all floats */
    float *x = malloc((size_t)n * sizeof(float)), *y = malloc((size_t)n * sizeof(float));
    for (int64_t i = 0; i < n; i++) {
        const uint32_t bits = (uint32_t)(i * 4099);
        memcpy(&x[i], &bits, sizeof bits);
    }
    for (int kind = FR_ACT_SIGMOID; kind <= FR_ACT_EXP; kind++) {
        const int64_t axes[] = {n, 1, 1, 1};
        fr_args a = {.T = 1, .x = x, .x2 = x, .y = y, .axes = axes, .scale = 1.0f, .act = {{kind, 0.7f, 0.3f}}};
        map_run(&a);
        add(y, n);
    }
    printf("activations %016llx\n", (unsigned long long)hash);
    return 0;
}
