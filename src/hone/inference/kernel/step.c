/* A pass of a whole model over tokens of several rows, by one team of threads that meet between its parts.

   Each number of a token is added up in an order of its own: it does not depend on the tokens beside it, on how a
   prompt was cut into stretches, or on how many threads there are. */

#include <math.h>
#include <string.h>

#include "vector.h"

#include "step.h"

#define MEET _Pragma("omp barrier")

/* y = w x + b, or y += ...; `thin` (n, rank) is where adapters compute. All threads may go on before all have ended. */
static void multiply(const struct product *p, const float *x, long x_apart, float *y, long y_apart, long n, int added,
                     float *thin, int threads) {
    linear *base = p->bf16 ? linear_bf16 : linear_f32;
    base(x, x_apart, p->w, p->bias, y, y_apart, n, p->in, p->out, (int)p->in_columns, added, threads);
    for (long i = 0; i < p->n_adapters; i++) {
        const struct adapter *a = p->adapters + i;
        linear_f32(x, x_apart, a->down, NULL, thin, a->rank, n, p->in, a->rank, 0, 0, threads);
        MEET
        linear_f32(thin, a->rank, a->up, NULL, y, y_apart, n, a->rank, p->out, 0, 1, threads);
        MEET
    }
}

static float added_up(const float *x, long n, float mean, int squares) {
    vec total = {0};
    float rest = 0;
    long k = 0;
    for (; k + LANES <= n; k += LANES) {
        vec v = LOAD(x + k) - mean;
        if (squares) v *= v;
        total += v;
    }
    for (; k < n; k++) rest += squares ? (x[k] - mean) * (x[k] - mean) : x[k] - mean;
    return sum(total) + rest;
}

static void normalize(const struct norm *w, const float *x, float *y, long n) {
    float mean = w->rms ? 0 : added_up(x, n, 0, 0) / n;
    float scale = 1 / sqrtf(added_up(x, n, mean, 1) / n + w->eps);
    for (long k = 0; k < n; k++) y[k] = (x[k] - mean) * scale * w->weight[k] + (w->bias ? w->bias[k] : 0);
}

static void normalize_all(const struct norm *w, const float *x, float *y, long n, long width) {
#pragma omp for schedule(static)
    for (long r = 0; r < n; r++) normalize(w, x + r * width, y + r * width, width);
}

/* x / (1 + e^-z) */
static inline vec gated(vec x, vec z) {
    const vec most = (vec){0} + 88.0f;
    return x / (1 + exponential(either(-z > most, most, -z)));
}

static inline vec activated(vec x, long kind) {
    const vec zero = {0};
    if (kind == SILU) return gated(x, x);
    if (kind == RELU) return either(x > zero, x, zero);
    if (kind == GELU_TANH) return gated(x, 1.5957691216f * (x + 0.044715f * x * x * x));
    for (int i = 0; i < LANES; i++) x[i] = 0.5f * x[i] * (1 + erff(x[i] * 0.70710678f));
    return x;
}

/* up = act(up), or act(gate) * up; a part of a vector at the end is computed in a whole one. */
static void activate_all(const float *gate, float *up, long n, long kind) {
#pragma omp for schedule(static)
    for (long k = 0; k < n; k += LANES) {
        float from[LANES] = {0}, to[LANES] = {0};
        long few = n - k < LANES ? n - k : LANES;
        memcpy(to, up + k, few * sizeof(float));
        memcpy(from, gate ? gate + k : to, few * sizeof(float));
        vec found = activated(LOAD(from), kind);
        if (gate) found *= LOAD(to);
        STORE(to, found);
        memcpy(up + k, to, few * sizeof(float));
    }
}

/* Rotary positions: (a, b) becomes (a cos - b sin, b cos + a sin); the sine of the first half is negated already. */
static void turn(float *x, const float *turns, long heads, long dim) {
    const float *cosine = turns, *sine = turns + dim;
    for (long h = 0; h < heads; h++, x += dim)
        for (long i = 0; i < dim / 2; i++) {
            float a = x[i], b = x[i + dim / 2];
            x[i] = a * cosine[i] + b * sine[i];
            x[i + dim / 2] = b * cosine[i + dim / 2] + a * sine[i + dim / 2];
        }
}

static void look_up(const void *table, long bf16, long row, float *x, long width, int added) {
    for (long k = 0; k < width; k++) {
        float found = bf16 ? 0 : ((const float *)table)[row * width + k];
        if (bf16) {
            unsigned int whole = (unsigned int)((const unsigned short *)table)[row * width + k] << 16;
            memcpy(&found, &whole, sizeof found);
        }
        x[k] = added ? x[k] + found : found;
    }
}

/* Turn queries and keys where positions turn them, and write keys and values into their slots. */
static void keep(const struct model *m, const long *slots, const long *positions, long n, float *joint, long apart,
                 float *kept, long room) {
    long cell = 2 * m->n_kept * m->dim;
#pragma omp for schedule(static)
    for (long t = 0; t < n; t++) {
        float *token = joint + t * apart;
        if (m->turns) turn(token, m->turns + positions[t] * 2 * m->dim, m->n_heads + m->n_kept, m->dim);
        memcpy(kept + (slots[t] * room + positions[t]) * cell, token + m->n_heads * m->dim, cell * sizeof(float));
    }
}

/* Scores (n_wanted, V) of the tokens after those wanted; of n tokens ids, slots and positions. kept (layers, all slots,
   room, 2, kept heads, dim). */
void step(const struct model *m, const struct span *spans, long n_spans, const long *ids, const long *slots,
          const long *positions, long n, const long *wanted, long n_wanted, float *kept, long all_slots, long room,
          float *scores, int threads) {
    long width = m->width, heads = m->n_heads * m->dim, apart = heads + 2 * m->n_kept * m->dim;
    long rows = n > n_wanted ? n : n_wanted;
    float *x = malloc(rows * width * 4), *h = malloc(rows * width * 4), *joint = malloc(n * apart * 4);
    float *found = malloc(n * heads * 4), *gate = malloc(n * m->inner * 4), *up = malloc(n * m->inner * 4);
    float *thin = malloc(rows * (m->rank + 1) * 4);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (long t = 0; t < n; t++) {
            look_up(m->embed, m->bf16, ids[t], x + t * width, width, 0);
            if (m->positions) look_up(m->positions, m->bf16, positions[t], x + t * width, width, 1);
        }
        for (const struct layer *l = m->layers; l < m->layers + m->n_layers; l++) {
            float *memory = kept + (l - m->layers) * all_slots * room * 2 * m->n_kept * m->dim;
            normalize_all(&l->before_attention, x, h, n, width);
            for (long i = 0, at = 0; i < l->n_heads; at += l->heads[i++].out)
                multiply(l->heads + i, h, width, joint + at, apart, n, 0, thin, threads);
            MEET
            keep(m, slots, positions, n, joint, apart, memory, room);
            attention(m, spans, n_spans, joint, apart, memory, room, found, threads);
            MEET
            multiply(&l->attention_out, found, heads, x, width, n, 1, thin, threads);
            MEET
            normalize_all(&l->before_mlp, x, h, n, width);
            if (l->gate.w) multiply(&l->gate, h, width, gate, l->gate.out, n, 0, thin, threads);
            multiply(&l->up, h, width, up, l->up.out, n, 0, thin, threads);
            MEET
            activate_all(l->gate.w ? gate : NULL, up, n * l->up.out, l->activation);
            multiply(&l->down, up, l->down.in, x, width, n, 1, thin, threads);
            MEET
        }
#pragma omp for schedule(static)
        for (long i = 0; i < n_wanted; i++) normalize(&m->norm, x + wanted[i] * width, h + i * width, width);
        multiply(&m->head, h, width, scores, m->head.out, n_wanted, 0, thin, threads);
    }
    free(x), free(h), free(joint), free(found), free(gate), free(up), free(thin);
}
