/* Attention over the slots of keys and values: of a token of a row that grows, or of many of a prompt. */

#include <string.h>

#include "vector.h"

#include "step.h"

typedef float weight;
#define WIDE(p) LOAD(p)
#define ONE(w) (w)
#include "tiles.h"

#define STRETCH 16 /* tokens whose keys, or values, are read head after head */

/* Scores of n keys become shares in place, zero from n to end; what they have to be divided by. */
static float shares(float *p, long n, long end, float scale) {
    float top = -3e38f;
    for (long t = 0; t < n; t++) {
        p[t] *= scale;
        top = p[t] > top ? p[t] : top;
    }
    vec total = {0};
    for (long t = 0; t < n; t += LANES) {
        vec e = exponential(LOAD(p + t) - top);
        STORE(p + t, e);
        if (t + LANES > n) memset(p + n, 0, (t + LANES - n) * sizeof(float));
        total += LOAD(p + t);
    }
    for (long t = n; t < end; t++) p[t] = 0;
    return sum(total);
}

/* `rows` queries for each of some heads that stand side by side, over the keys of these heads: of the first query
   `length` keys are to be seen, of each next one `more`. Keys of all heads are read together, as they lie in memory. */
struct group {
    const float *q;
    float *y;
    long q_apart, y_apart, q_heads_apart, y_heads_apart, rows, heads, length, more;
};

static void look(const struct group *g, const float *keys, const float *values, long cell, long dim, float scale) {
    long n = g->length + (g->rows - 1) * g->more, apart = n + LANES, each = g->rows * apart;
    float *p = calloc(g->heads * each, sizeof(float)), *total = malloc(g->heads * g->rows * sizeof(float));
    for (long begin = 0; begin < n; begin += STRETCH)
        for (long h = 0; h < g->heads; h++)
            for (long t = begin; t < begin + STRETCH && t < n; t += OUTS)
                dots(g->rows, g->q + h * g->q_heads_apart, g->q_apart, keys + t * cell + h * dim, cell, dim,
                     n - t < OUTS ? (int)(n - t) : OUTS, STRETCH * cell, p + h * each + t, apart, 1);
    for (long h = 0; h < g->heads; h++)
        for (long r = 0; r < g->rows; r++) {
            total[h * g->rows + r] = shares(p + h * each + r * apart, g->length + r * g->more, n, scale);
            memset(g->y + h * g->y_heads_apart + r * g->y_apart, 0, dim * sizeof(float));
        }
    for (long t = 0; t < n; t += STRETCH)
        for (long h = 0; h < g->heads; h++)
            columns(g->rows, p + h * each + t, apart, values + t * cell + h * dim, cell,
                    n - t < STRETCH ? n - t : STRETCH, dim, g->y + h * g->y_heads_apart, g->y_apart);
    for (long h = 0; h < g->heads; h++)
        for (long r = 0; r < g->rows; r++)
            for (long d = 0; d < dim; d++) g->y[h * g->y_heads_apart + r * g->y_apart + d] /= total[h * g->rows + r];
    free(p), free(total);
}

/* Tokens first .. first + n of a span, and the queries of kept heads head .. head + n_heads. */
static void some_tokens(const struct model *m, const struct span *s, long first, long n, long head, long n_heads,
                        const float *q, long q_apart, const float *kept, long room, float *y) {
    long per = m->n_heads / m->n_kept, dim = m->dim, cell = 2 * m->n_kept * dim, y_apart = m->n_heads * dim;
    const float *keys = kept + s->slot * room * cell + head * dim, *values = keys + m->n_kept * dim;
    struct group g = {.q_apart = q_apart, .y_apart = y_apart, .rows = n, .heads = n_heads, .more = 1};
    g.q_heads_apart = g.y_heads_apart = per * dim;
    g.length = s->past + first + 1;
    for (long i = 0; i < per;) {
        g.q = q + (s->first + first) * q_apart + (head * per + i) * dim;
        g.y = y + (s->first + first) * y_apart + (head * per + i) * dim;
        if (n == 1) { /* the queries that share a head together, else tokens together */
            g.rows = per - i < ROWS ? per - i : ROWS;
            g.q_apart = g.y_apart = dim, g.more = 0;
        }
        look(&g, keys, values, cell, dim, m->scale);
        i += n == 1 ? g.rows : 1;
    }
}

void attention(const struct model *m, const struct span *spans, long n_spans, const float *q, long q_apart,
               const float *kept, long room, float *y, int threads) {
    long pieces = 0, heads = n_spans >= 2 * threads ? m->n_kept : (m->n_kept + threads - 1) / threads;
    long parts = (m->n_kept + heads - 1) / heads;
    for (long i = 0; i < n_spans; i++) pieces += (spans[i].n + ROWS - 1) / ROWS * parts;
    long share = pieces / (8 * threads) > 1 ? pieces / (8 * threads) : 1;
#pragma omp for schedule(dynamic) nowait
    for (long begin = 0; begin < pieces; begin += share) {
        long i = 0, at = 0, end = begin + share < pieces ? begin + share : pieces;
        for (long piece = begin; piece < end; piece++) {
            while (piece >= at + (spans[i].n + ROWS - 1) / ROWS * parts) at += (spans[i++].n + ROWS - 1) / ROWS * parts;
            long first = (piece - at) / parts * ROWS, n = spans[i].n - first < ROWS ? spans[i].n - first : ROWS;
            long head = (piece - at) % parts * heads, few = m->n_kept - head < heads ? m->n_kept - head : heads;
            some_tokens(m, spans + i, first, n, head, few, q, q_apart, kept, room, y);
        }
    }
}
