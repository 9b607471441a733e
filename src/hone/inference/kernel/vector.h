/* Vectors as gcc and clang know them for any processor, and what is computed with them. */

#include <stdlib.h>

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 6 /* rows of x in a tile: its sums have to stay in registers */
#else
#define LANES 8
#define ROWS 3
#endif
#define OUTS 4 /* outputs in a tile */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int ints __attribute__((vector_size(4 * LANES)));
typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));
typedef int four_ints __attribute__((vector_size(16)));

#define LOAD(p) (*(const vec *)(p))
#define STORE(p, v) (*(vec *)(p) = (v))
#ifdef __clang__
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX(a, b, ...) __builtin_shuffle(a, b, (four_ints){__VA_ARGS__})
#endif
#if defined(__AVX512F__) /* read once, where a compiler would read it again for each product */
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#else
#define IN_REGISTER(v)
#endif

static inline four folded(vec v) {
    union {
        vec whole;
        eight halves[LANES / 8];
    } of = {v};
    union {
        eight whole;
        four halves[2];
    } half = {of.halves[0]};
#if LANES == 16
    half.whole += of.halves[1];
#endif
    return half.halves[0] + half.halves[1];
}

/* The sums of four vectors, together: one after another would take longer than the products of a short row. */
static inline four sums(const vec *v) {
    four a = folded(v[0]), b = folded(v[1]), c = folded(v[2]), d = folded(v[3]);
    four ab = MIX(a, b, 0, 4, 1, 5) + MIX(a, b, 2, 6, 3, 7);
    four cd = MIX(c, d, 0, 4, 1, 5) + MIX(c, d, 2, 6, 3, 7);
    return MIX(ab, cd, 0, 1, 4, 5) + MIX(ab, cd, 2, 3, 6, 7);
}

static inline float sum(vec v) {
    four f = folded(v);
    return (f[0] + f[2]) + (f[1] + f[3]);
}

static inline vec either(ints choice, vec yes, vec no) { return (vec)((choice & (ints)yes) | (~choice & (ints)no)); }

/* e to the x for x <= 88, to about 2e-7; below -87 as at -87. */
static inline vec exponential(vec x) {
    const vec least = (vec){0} - 87.0f;
    x = either(x < least, least, x);
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
