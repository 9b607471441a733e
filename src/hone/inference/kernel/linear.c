/* y += x w for weights of one type: float32, or bfloat16, which is the upper half of a float32. Compiled once for each.

   x (n, in) and y (n, out) are float32; w is (out, in), as torch.nn.Linear has it, or (in, out), as GPT-2 has it.
   Called by all threads of a team, which share the outputs; they wait for each other nowhere here. */

#include "vector.h"
#include <string.h>

#ifdef BF16
#define LINEAR linear_bf16
typedef unsigned short weight;
typedef unsigned short halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef unsigned int bits __attribute__((vector_size(4 * LANES)));
#define WIDE(p) ((vec)(__builtin_convertvector(*(const halves *)(p), bits) << 16))
static inline float ONE(weight w) {
    union {
        unsigned int bits;
        float number;
    } of = {(unsigned int)w << 16};
    return of.number;
}
#else
#define LINEAR linear_f32
typedef float weight;
#define WIDE(p) LOAD(p)
#define ONE(w) (w)
#endif
#include "tiles.h"

#define BLOCK 96   /* rows of x that are read again for each tile have to stay in the second cache */
#define FEW 32     /* rows for which w (in, out) is read once, from left to right, … */
#define TOGETHER 8 /* … so many rows of w at a time */
#define KEPT 8192  /* numbers of y that are added to meanwhile */
#define AHEAD 2048 /* bytes: what is read is asked for so much earlier */
#define SHARES 8   /* a thread takes on average so many shares of the outputs */

static long rounded_up(long n, long to) { return (n + to - 1) / to * to; }

/* Outputs first .. end of w (out, in). For a few rows as OUTS streams: such that are far from each other come from
   memory faster than one. For many rows side by side; what comes next is asked for meanwhile. */
static void by_rows(const float *x, long x_apart, const weight *w, float *y, long y_apart, long n, long in, long first,
                    long end) {
    long tiles = (end - first) / OUTS, apart = n <= ROWS ? tiles : 1, step = n <= ROWS ? 1 : OUTS;
    long ahead = n <= ROWS ? (long)(AHEAD / sizeof(weight)) : OUTS * in;
    for (long o = first, i = 0; i < tiles; i++, o += step)
        for (long r = 0; r < n; r += ROWS)
            dots(n - r < ROWS ? n - r : ROWS, x + r * x_apart, x_apart, w + o * in, apart * in, in, OUTS, ahead,
                 y + r * y_apart + o, y_apart, apart);
    first += tiles * OUTS;
    for (long r = 0; r < n && first < end; r += ROWS)
        dots(n - r < ROWS ? n - r : ROWS, x + r * x_apart, x_apart, w + first * in, in, in, (int)(end - first), 0,
             y + r * y_apart + first, y_apart, 1);
}

/* A few rows and w (in, out): `wide` columns, eight rows of w at a time, each read from left to right. What is added up
   stands in a place of its own meanwhile: rows of y may lie so that they drive each other out of the first cache. */
static void across(const float *x, long x_apart, const weight *w, float *y, long y_apart, long n, long in, long out,
                   long wide) {
    float sums[KEPT + FEW * LANES];
    long apart = wide + LANES;
    for (long r = 0; r < n; r++) memcpy(sums + r * apart, y + r * y_apart, wide * sizeof(float));
    for (long k = 0; k < in; k += TOGETHER) {
        const weight *at = w + k * out;
        long j = 0, few = in - k < TOGETHER ? in - k : TOGETHER;
        for (; few == TOGETHER && j + LANES <= wide; j += LANES) {
            vec v[TOGETHER];
            for (int i = 0; i < TOGETHER; i++) {
                v[i] = WIDE(at + i * out + j);
                __builtin_prefetch(at + (i + TOGETHER) * out + j, 0, 2);
            }
            for (long r = 0; r < n; r++) {
                const float *xs = x + r * x_apart + k;
                vec s = LOAD(sums + r * apart + j);
                for (int i = 0; i < TOGETHER; i++) s += xs[i] * v[i];
                STORE(sums + r * apart + j, s);
            }
        }
        for (long r = 0; r < n && j < wide; r++)
            for (long i = 0; i < few; i++)
                for (long c = j; c < wide; c++) sums[r * apart + c] += x[r * x_apart + k + i] * ONE(at[i * out + c]);
    }
    for (long r = 0; r < n; r++) memcpy(y + r * y_apart, sums + r * apart, wide * sizeof(float));
}

/* bias, and what is in y if it is to be `added` to, come first: then the products, in the order of `in`. */
void LINEAR(const float *x, long x_apart, const weight *w, const float *bias, float *y, long y_apart, long n, long in,
            long out, int in_columns, int added, int threads) {
    long each = in_columns ? threads : SHARES * threads, block = in_columns ? FEW : BLOCK;
    long share = rounded_up((out + each - 1) / each, in_columns ? OUTS * LANES : 16);
    long shares = (out + share - 1) / share, blocks = (n + block - 1) / block;
#pragma omp for schedule(dynamic) nowait
    for (long i = 0; i < blocks * shares; i++) {
        long row = i / shares * block, rows = n - row < block ? n - row : block;
        long first = i % shares * share, end = first + share < out ? first + share : out;
        const float *from = x + row * x_apart;
        float *to = y + row * y_apart;
        for (long r = 0; r < rows; r++)
            for (long j = first; j < end; j++)
                to[r * y_apart + j] = (added ? to[r * y_apart + j] : 0) + (bias ? bias[j] : 0);
        if (in_columns)
            for (long wide = KEPT / rows / LANES * LANES, j = first; j < end; j += wide)
                across(from, x_apart, w + j, to + j, y_apart, rows, in, out, end - j < wide ? end - j : wide);
        else
            by_rows(from, x_apart, w, to, y_apart, rows, in, first, end);
    }
}
