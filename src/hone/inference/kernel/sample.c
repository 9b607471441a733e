/* The next token of each row: temperature, top-k, top-p, min-p and the draw, as sampling.py has them.

   Each filter is a bound on the scores, so that nothing is sorted whole and nothing kept but the sums of blocks. */

#include <float.h>
#include <math.h>

#include "vector.h"

#define BLOCK 256 /* numbers whose sum is kept */

typedef double wide __attribute__((vector_size(64)));
typedef float narrow __attribute__((vector_size(32), aligned(4), may_alias));
typedef long longs __attribute__((vector_size(64)));

struct rule { /* min_p: its logarithm. draw: where in [0, 1) the token is */
    float temperature, min_p;
    double top_p, draw;
    long top_k;
};

/* Scores x over a temperature, the largest of which is top; kept are those above `least`, and those equal to it up to
   the token `last`. */
struct scale {
    const float *x;
    float top, temperature, least;
    long last;
};

struct token {
    float score;
    long id;
};

static float scaled(const struct scale *s, long i) { return (s->x[i] - s->top) / s->temperature + s->top; }

/* e to the x for x <= 0, to the last bits; 0 below -700. */
static inline wide exponential_of(wide x) {
    const wide half = {0};
    longs low = x < half - 700.0;
    x = (wide)(~low & (longs)x);
    wide t = x * 1.4426950408889634 + 6755399441055744.0, n = t - 6755399441055744.0;
    wide r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    wide p = r * (1 / 6227020800.0) + 1 / 479001600.0;
    p = p * r + 1 / 39916800.0;
    p = p * r + 1 / 3628800.0;
    p = p * r + 1 / 362880.0;
    p = p * r + 1 / 40320.0;
    p = p * r + 1 / 5040.0;
    p = p * r + 1 / 720.0;
    p = p * r + 1 / 120.0;
    p = p * r + 1 / 24.0;
    p = p * r + 1 / 6.0;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    return (wide)(~low & ((longs)p + ((longs)t << 52)));
}

/* What tokens begin .. end weigh, in e; their sum. */
static double weigh(const struct scale *s, long begin, long end, double *e) {
    float kept[BLOCK];
    double total = 0;
    for (long i = begin; i < end; i++) kept[i - begin] = scaled(s, i);
    for (long i = end - begin; i < BLOCK; i++) kept[i] = -INFINITY;
    for (long i = begin; i < end && s->least > -INFINITY; i++)
        if (kept[i - begin] < s->least || (kept[i - begin] == s->least && i > s->last)) kept[i - begin] = -INFINITY;
    wide sum = {0};
    for (long i = 0; i < BLOCK; i += 8) {
        wide found = exponential_of(__builtin_convertvector(*(const narrow *)(kept + i), wide) - (double)s->top);
        for (int j = 0; j < 8; j++) e[i + j] = found[j];
        sum += found;
    }
    for (int j = 0; j < 8; j++) total += sum[j];
    return total;
}

static int before(struct token a, struct token b) { return a.score > b.score || (a.score == b.score && a.id < b.id); }

/* Those before the middle one of tokens begin .. end come first, then itself: its place. */
static long parted(struct token *t, long begin, long end) {
    struct token a = t[begin], b = t[(begin + end) / 2], c = t[end - 1];
    long middle = before(a, b) ? (before(b, c) ? (begin + end) / 2 : before(a, c) ? end - 1 : begin)
                               : (before(a, c) ? begin : before(b, c) ? end - 1 : (begin + end) / 2);
    struct token pivot = t[middle];
    long place = begin;
    t[middle] = t[end - 1];
    for (long i = begin; i < end - 1; i++)
        if (before(t[i], pivot)) {
            struct token held = t[place];
            t[place++] = t[i];
            t[i] = held;
        }
    t[end - 1] = t[place];
    t[place] = pivot;
    return place;
}

/* The k-th of n tokens. */
static struct token kth(struct token *t, long n, long k) {
    for (long begin = 0, end = n;;) {
        long place = parted(t, begin, end);
        if (place == k - 1) return t[place];
        if (place < k - 1)
            begin = place + 1;
        else
            end = place;
    }
}

static double weight_of(const struct scale *s, struct token t) {
    return exp((double)t.score - (double)s->top);
}

/* The last of the fewest tokens that reach p together: one goes if it and all behind it make up no more than 1 - p. */
static struct token nucleus(const struct scale *s, struct token *t, long n, double p) {
    long begin = 0, end = n;
    double gone = 0, total = 0;
    for (long i = 0; i < n; i++) total += weight_of(s, t[i]);
    while (begin < end) {
        long place = parted(t, begin, end);
        double behind = 0, own = weight_of(s, t[place]);
        for (long i = place + 1; i < end; i++) behind += weight_of(s, t[i]);
        if (gone + behind + own <= (1 - p) * total) {
            gone += behind + own;
            end = place;
        } else if (gone + behind <= (1 - p) * total)
            return t[place];
        else
            begin = place + 1;
    }
    return end > 0 ? t[end - 1] : kth(t, n, 1);
}

/* Set the bound that the filters make together. */
static void filter(struct scale *s, const struct rule *rule, long size, struct token *t) {
    long n = 0;
    if (rule->top_k > 0 && rule->top_k < size) {
        for (long i = 0; i < size; i++) t[i] = (struct token){scaled(s, i), i};
        s->least = kth(t, size, rule->top_k).score;
    }
    if (rule->top_p < 1) {
        for (long i = 0; i < size; i++)
            if (scaled(s, i) >= s->least) t[n++] = (struct token){scaled(s, i), i};
        struct token last = nucleus(s, t, n, rule->top_p);
        s->least = last.score, s->last = last.id;
    }
    if (s->top + rule->min_p > s->least) s->least = s->top + rule->min_p, s->last = size;
}

/* The first token at which the weights so far are more than the draw's share of all. */
static long drawn(struct scale *s, double draw, long size, double *sums) {
    double e[BLOCK], total = 0, reached = 0;
    for (long b = 0; b * BLOCK < size; b++)
        total += sums[b] = weigh(s, b * BLOCK, (b + 1) * BLOCK < size ? (b + 1) * BLOCK : size, e);
    long block = 0, last = 0;
    while ((block + 1) * BLOCK < size && reached + sums[block] <= draw * total) reached += sums[block++];
    weigh(s, block * BLOCK, (block + 1) * BLOCK < size ? (block + 1) * BLOCK : size, e);
    for (long i = 0; i < BLOCK; i++) {
        if (e[i] > 0) last = i;
        if ((reached += e[i]) > draw * total) break;
    }
    return block * BLOCK + last;
}

/* A token for each row of scores (rows, size); 1 if one of them is no number. */
int draw(const float *scores, long rows, long size, const struct rule *rules, long *tokens, int threads) {
    int bad = 0;
#pragma omp parallel for num_threads(threads) schedule(dynamic) reduction(| : bad) if (rows > 1)
    for (long r = 0; r < rows; r++) {
        struct scale s = {scores + r * size, -INFINITY, rules[r].temperature, -INFINITY, size};
        long best = 0;
        int none = 0;
        for (long i = 0; i < size; i++) none |= s.x[i] != s.x[i];
        for (long i = 0; i < size; i++) s.top = s.x[i] > s.top ? s.x[i] : s.top;
        while (best < size - 1 && s.x[best] != s.top) best++;
        bad |= none;
        tokens[r] = best;
        if (none || s.temperature < FLT_MIN) continue;
        if (rules[r].top_k > 0 || rules[r].top_p < 1 || rules[r].min_p > -INFINITY) {
            struct token *room = malloc(size * sizeof(struct token));
            filter(&s, rules + r, size, room);
            free(room);
        }
        double *sums = malloc((size / BLOCK + 1) * sizeof(double));
        tokens[r] = drawn(&s, rules[r].draw, size, sums);
        free(sums);
    }
    return bad;
}
