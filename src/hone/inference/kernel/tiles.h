/* Tiles of a product: R rows of x with four columns of w' (dots) or with vectors of columns of w (columns).

   Included with `weight`, WIDE and ONE defined. A number of the result is added up in the same order whatever R is,
   and wherever in a tile it stands: that is why an answer does not depend on the rows beside it. */

/* y[r][o] += x[r] . w[o]: rows of x are x_apart from each other, rows of w w_apart; `outs` of four are wanted, o_apart
   from each other in y. Memory is asked for what stands `ahead` numbers further in w. */
#define DOTS(R)                                                                                                        \
    static inline void dots_##R(const float *x, long x_apart, const weight *w, long w_apart, long in, int outs,        \
                                long ahead, float *y, long y_apart, long o_apart) {                                    \
        vec acc[R][OUTS] = {{{0}}};                                                                                    \
        const weight *at[OUTS];                                                                                        \
        for (int o = 0; o < OUTS; o++) at[o] = w + (o < outs ? o : 0) * w_apart;                                       \
        long k = 0;                                                                                                    \
        for (; k + LANES <= in; k += LANES) {                                                                          \
            vec v[OUTS];                                                                                               \
            for (int o = 0; o < OUTS; o++) {                                                                           \
                __builtin_prefetch(at[o] + k + ahead, 0, 2);                                                           \
                v[o] = WIDE(at[o] + k);                                                                                \
            }                                                                                                          \
            for (int r = 0; r < R; r++) {                                                                              \
                vec xs = LOAD(x + r * x_apart + k);                                                                    \
                IN_REGISTER(xs);                                                                                       \
                for (int o = 0; o < OUTS; o++) acc[r][o] += xs * v[o];                                                 \
            }                                                                                                          \
        }                                                                                                              \
        for (int r = 0; r < R; r++) {                                                                                  \
            four s = sums(acc[r]);                                                                                     \
            for (long j = k; j < in; j++)                                                                              \
                for (int o = 0; o < OUTS; o++) s[o] += x[r * x_apart + j] * ONE(at[o][j]);                             \
            float *to = y + r * y_apart;                                                                               \
            if (outs == OUTS && o_apart == 1)                                                                          \
                *(four *)to += s;                                                                                      \
            else                                                                                                       \
                for (int o = 0; o < outs; o++) to[o * o_apart] += s[o];                                                \
        }                                                                                                              \
    }

/* y[r][0 .. O * LANES] += x[r] w: rows of w are w_apart from each other. */
#define COLUMNS(R, O)                                                                                                  \
    static inline void columns_##R##_##O(const float *x, long x_apart, const weight *w, long w_apart, long in,         \
                                         float *y, long y_apart) {                                                     \
        vec acc[R][O];                                                                                                 \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int o = 0; o < O; o++) acc[r][o] = LOAD(y + r * y_apart + o * LANES);                                 \
        for (long k = 0; k < in; k++) {                                                                                \
            const weight *row = w + k * w_apart;                                                                       \
            vec v[O];                                                                                                  \
            for (int o = 0; o < O; o++) {                                                                              \
                __builtin_prefetch(row + 12 * w_apart + o * LANES);                                                    \
                v[o] = WIDE(row + o * LANES);                                                                          \
            }                                                                                                          \
            for (int r = 0; r < R; r++)                                                                                \
                for (int o = 0; o < O; o++) acc[r][o] += x[r * x_apart + k] * v[o];                                    \
        }                                                                                                              \
        for (int r = 0; r < R; r++)                                                                                    \
            for (int o = 0; o < O; o++) STORE(y + r * y_apart + o * LANES, acc[r][o]);                                 \
    }

DOTS(1) DOTS(2) DOTS(3)
COLUMNS(1, 4) COLUMNS(2, 4) COLUMNS(3, 4) COLUMNS(1, 1) COLUMNS(2, 1) COLUMNS(3, 1)
#if ROWS == 6
DOTS(4) DOTS(5) DOTS(6)
COLUMNS(4, 4) COLUMNS(5, 4) COLUMNS(6, 4) COLUMNS(4, 1) COLUMNS(5, 1) COLUMNS(6, 1)
#define MORE_ROWS(call)                                                                                                \
    case 4: call(4); break;                                                                                            \
    case 5: call(5); break;                                                                                            \
    case 6: call(6); break;
#else
#define MORE_ROWS(call)
#endif

/* `call` for the number of rows, which is known when it runs only. */
#define WITH_ROWS(n, call)                                                                                             \
    switch (n) {                                                                                                       \
    case 1: call(1); break;                                                                                            \
    case 2: call(2); break;                                                                                            \
    case 3: call(3); break;                                                                                            \
    MORE_ROWS(call)                                                                                                    \
    }

static inline void dots(long rows, const float *x, long x_apart, const weight *w, long w_apart, long in, int outs,
                        long ahead, float *y, long y_apart, long o_apart) {
#define CALL(R) dots_##R(x, x_apart, w, w_apart, in, outs, ahead, y, y_apart, o_apart)
    WITH_ROWS(rows, CALL)
#undef CALL
}

/* y[r][0 .. width] += x[r] w, for any width. */
static inline void columns(long rows, const float *x, long x_apart, const weight *w, long w_apart, long in, long width,
                           float *y, long y_apart) {
    long j = 0;
#define CALL(R) columns_##R##_4(x, x_apart, w + j, w_apart, in, y + j, y_apart)
    for (; j + 4 * LANES <= width; j += 4 * LANES) WITH_ROWS(rows, CALL)
#undef CALL
#define CALL(R) columns_##R##_1(x, x_apart, w + j, w_apart, in, y + j, y_apart)
    for (; j + LANES <= width; j += LANES) WITH_ROWS(rows, CALL)
#undef CALL
    for (long r = 0; r < rows && j < width; r++)
        for (long k = 0; k < in; k++)
            for (long i = j; i < width; i++) y[r * y_apart + i] += x[r * x_apart + k] * ONE(w[k * w_apart + i]);
}
