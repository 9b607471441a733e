/* y = x w + b for a few rows of x: what decoding does all the time, at the speed at which memory gives the weights.

   And attention of one token a row. Compiled by native.py on the machine it runs on. x (n, in) and y (n, out) are contiguous float32; w is (out, in), as
   torch.nn.Linear has it, or (in, out), as GPT-2 has it. Each weight is read once for each four rows. */

#include <stdlib.h>

#if defined(__AVX512F__)
#define LANES 16
#else
#define LANES 8
#endif
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

#define ROWS 4
#define OUTS 4
#define AHEAD 512 /* floats: what is read is asked for so much earlier */
#define LOAD(p) (*(const vec *)(p))

/* The weights: float32, or bfloat16, which is the upper half of a float32. */
#ifdef BF16
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
typedef float weight;
#define WIDE(p) LOAD(p)
#define ONE(w) (w)
#endif

/* By halves: adding lane after lane would take longer than the products of a short row. */
typedef float four __attribute__((vector_size(16)));
static inline float sum(vec v) {
    union {
        vec whole;
        four parts[LANES / 4];
    } of = {v};
    four s = of.parts[0];
    for (int i = 1; i < LANES / 4; i++) s += of.parts[i];
    return (s[0] + s[1]) + (s[2] + s[3]);
}

/* w (out, in): OUTS rows of w, `apart` rows from each other, with R rows of x, as dot products. Several streams that
   are far from each other come from memory faster than one: 22 GB/s instead of 15. */
#define DOTS(R)                                                                                                        \
    static inline void dots_##R(const float *x, const weight *w, float *y, long in, long out, long apart, int outs) {   \
        vec acc[R][OUTS] = {{{0}}};                                                                                    \
        const weight *at[OUTS];                                                                                         \
        for (int o = 0; o < OUTS; o++) at[o] = w + (o < outs ? o : 0) * apart * in;                                    \
        long k = 0;                                                                                                    \
        for (; k + LANES <= in; k += LANES) {                                                                          \
            vec v[OUTS];                                                                                               \
            for (int o = 0; o < OUTS; o++) {                                                                           \
                __builtin_prefetch(at[o] + k + AHEAD);                                                                \
                v[o] = WIDE(at[o] + k);                                                                                \
            }                                                                                                          \
            for (int r = 0; r < R; r++) {                                                                              \
                vec xs = LOAD(x + r * in + k);                                                                         \
                for (int o = 0; o < OUTS; o++) acc[r][o] += xs * v[o];                                                 \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int o = 0; o < outs; o++) {                                                                           \
                float s = sum(acc[r][o]);                                                                              \
                for (long j = k; j < in; j++) s += x[r * in + j] * ONE(at[o][j]);                                           \
                y[r * out + o * apart] += s;                                                                           \
            }                                                                                                          \
    }
DOTS(1) DOTS(2) DOTS(3) DOTS(4)

/* w (in, out): OUTS * LANES columns of w, each weight times R numbers of x. */
#define COLUMNS(R)                                                                                                     \
    static inline void columns_##R(const float *x, const weight *w, float *y, long in, long out) {                      \
        vec acc[R][OUTS] = {{{0}}};                                                                                    \
        for (long k = 0; k < in; k++) {                                                                                \
            const weight *row = w + k * out;                                                                            \
            vec v[OUTS];                                                                                               \
            for (int o = 0; o < OUTS; o++) {                                                                           \
                __builtin_prefetch(row + 12 * out + o * LANES);                                                        \
                v[o] = WIDE(row + o * LANES);                                                                          \
            }                                                                                                          \
            for (int r = 0; r < R; r++)                                                                                \
                for (int o = 0; o < OUTS; o++) acc[r][o] += x[r * in + k] * v[o];                                      \
        }                                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int o = 0; o < OUTS; o++) {                                                                           \
                vec *to = (vec *)(y + r * out + o * LANES);                                                            \
                *to += acc[r][o];                                                                                      \
            }                                                                                                          \
    }
COLUMNS(1) COLUMNS(2) COLUMNS(3) COLUMNS(4)

static void scalar_columns(const float *x, const weight *w, float *y, long n, long in, long out, long first, long end) {
    for (long r = 0; r < n; r++)
        for (long k = 0; k < in; k++)
            for (long j = first; j < end; j++) y[r * out + j] += x[r * in + k] * ONE(w[k * out + j]);
}

static void some_dots(const float *x, const weight *w, float *y, long n, long in, long out, long apart, int outs) {
    long r = 0;
    for (; r + ROWS <= n; r += ROWS) dots_4(x + r * in, w, y + r * out, in, out, apart, outs);
    switch (n - r) {
    case 3: dots_3(x + r * in, w, y + r * out, in, out, apart, outs); break;
    case 2: dots_2(x + r * in, w, y + r * out, in, out, apart, outs); break;
    case 1: dots_1(x + r * in, w, y + r * out, in, out, apart, outs); break;
    }
}

/* Rows first..end of w, as OUTS streams. */
static void by_rows(const float *x, const weight *w, float *y, long n, long in, long out, long first, long end) {
    long apart = (end - first) / OUTS;
    for (long o = first; o < first + apart; o++) some_dots(x, w + o * in, y + o, n, in, out, apart, OUTS);
    first += apart * OUTS;
    if (first < end) some_dots(x, w + first * in, y + first, n, in, out, 1, (int)(end - first));
}

static void by_columns(const float *x, const weight *w, float *y, long n, long in, long out, long j) {
    long r = 0;
    if (out - j < OUTS * LANES) {
        scalar_columns(x, w, y, n, in, out, j, out);
        return;
    }
    for (; r + ROWS <= n; r += ROWS) columns_4(x + r * in, w + j, y + r * out + j, in, out);
    switch (n - r) {
    case 3: columns_3(x + r * in, w + j, y + r * out + j, in, out); break;
    case 2: columns_2(x + r * in, w + j, y + r * out + j, in, out); break;
    case 1: columns_1(x + r * in, w + j, y + r * out + j, in, out); break;
    }
}

/* One row and w (in, out): columns first..end, four rows of w at a time, each read from left to right. */
static void one_row(const float *x, const weight *w, float *y, long in, long out, long first, long end) {
    long k = 0;
    for (; k + 4 <= in; k += 4) {
        const weight *a = w + k * out, *b = a + out, *c = b + out, *d = c + out;
        float p = x[k], q = x[k + 1], s = x[k + 2], t = x[k + 3];
        long j = first;
        for (; j + LANES <= end; j += LANES) {
            vec *to = (vec *)(y + j);
            __builtin_prefetch(a + 4 * out + j, 0, 2);
            __builtin_prefetch(b + 4 * out + j, 0, 2);
            __builtin_prefetch(c + 4 * out + j, 0, 2);
            __builtin_prefetch(d + 4 * out + j, 0, 2);
            *to += p * WIDE(a + j) + q * WIDE(b + j) + s * WIDE(c + j) + t * WIDE(d + j);
        }
        for (; j < end; j++) y[j] += p * ONE(a[j]) + q * ONE(b[j]) + s * ONE(c[j]) + t * ONE(d[j]);
    }
    for (; k < in; k++)
        for (long j = first; j < end; j++) y[j] += x[k] * ONE(w[k * out + j]);
}

void linear(const float *x, const weight *w, const float *bias, float *y, long n, long in, long out, int columns,
            int threads) {
    for (long r = 0; r < n; r++)
        for (long j = 0; j < out; j++) y[r * out + j] = bias ? bias[j] : 0;
    if (columns && n > 1) {
#pragma omp parallel for num_threads(threads) schedule(static)
        for (long j = 0; j < out; j += OUTS * LANES) by_columns(x, w, y, n, in, out, j);
        return;
    }
    long share = ((out + threads - 1) / threads + LANES - 1) / LANES * LANES;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        long first = t * share, end = first + share < out ? first + share : out;
        if (first >= end) continue;
        if (columns)
            one_row(x, w, y, in, out, first, end);
        else
            by_rows(x, w, y, n, in, out, first, end);
    }
}

/* ---- attention --------------------------------------------------------------------------------------------------- */

typedef int ints __attribute__((vector_size(4 * LANES)));

/* e to the x for x <= 0, to about 2e-7; below -87 as at -87. */
static inline vec exponential(vec x) {
    const vec zero = {0};
    vec least = zero - 87.0f;
    ints low = x < least;
    x = (vec)((low & (ints)least) | (~low & (ints)x));
    vec n = (x * 1.44269504f + 12582912.0f) - 12582912.0f; /* to the nearest whole number */
    vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vec p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    ints power = (__builtin_convertvector(n, ints) + 127) << 23;
    return p * (vec)power;
}

/* One head of queries q (dim) over n keys and values, each `cell` after the one before. p: room for n + LANES. */
static void one_head(const float *q, const float *keys, const float *values, float *y, float *p, long n, long cell,
                     long dim, float scale) {
    float top = -3e38f, total = 0;
    for (long t = 0; t < n; t++) {
        vec acc = {0};
        __builtin_prefetch(values + t * cell);
        for (long d = 0; d < dim; d += LANES) {
            __builtin_prefetch(keys + (t + 4) * cell + d);
            acc += LOAD(q + d) * LOAD(keys + t * cell + d);
        }
        p[t] = sum(acc) * scale;
        top = p[t] > top ? p[t] : top;
    }
    for (long t = n; t < n + LANES; t++) p[t] = top - 100;
    for (long t = 0; t < n; t += LANES) {
        *(vec *)(p + t) = exponential(LOAD(p + t) - top);
        for (long i = t; i < t + LANES && i < n; i++) total += p[i];
    }
    for (long d = 0; d < dim; d += LANES) {
        vec a = {0}, b = {0};
        long t = 0;
        for (; t + 2 <= n; t += 2) {
            a += p[t] * LOAD(values + t * cell + d);
            b += p[t + 1] * LOAD(values + (t + 1) * cell + d);
        }
        if (t < n) a += p[t] * LOAD(values + t * cell + d);
        *(vec *)(y + d) = (a + b) / total;
    }
}

/* Rows 0, 1, ... of q (rows, kept_heads * group, dim) over their slots of kept (slots, room, 2, kept_heads, dim). */
void attend(const float *q, long q_stride, const float *kept, const long *lengths, float *y, long rows,
            long kept_heads, long group, long dim, long room, float scale, int threads) {
    long cell = 2 * kept_heads * dim;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (long b = 0; b < rows; b++)
        for (long h = 0; h < kept_heads; h++) {
            const float *keys = kept + b * room * cell + h * dim;
            float *p = malloc((lengths[b] + LANES) * sizeof(float));
            for (long i = h * group; i < (h + 1) * group; i++)
                one_head(q + b * q_stride + i * dim, keys, keys + kept_heads * dim,
                         y + (b * kept_heads * group + i) * dim, p, lengths[b], cell, dim, scale);
            free(p);
        }
}
