/* A model and a pass over it, as native.py describes them. */

struct adapter { /* added to a product: up (out, rank) of down (rank, in) of x */
    const float *down, *up;
    long rank;
};

struct product { /* w (out, in), or (in, out) where it is in columns; bfloat16 where `bf16` */
    const void *w;
    const float *bias;
    long in, out, in_columns, bf16, n_adapters;
    const struct adapter *adapters;
};

struct norm { /* rms: without the mean */
    const float *weight, *bias;
    float eps;
    int rms;
};

enum activation { GELU, GELU_TANH, RELU, SILU };

struct layer { /* heads: queries, keys and values side by side in one product, or in three. gate: may have no w */
    struct norm before_attention, before_mlp;
    struct product heads[3], attention_out, gate, up, down;
    long n_heads, activation;
};

struct model {
    const void *embed, *positions; /* (V, E) and (P, E), or none */
    const float *turns;            /* cosine and sine of a position (P, 2, dim), or none */
    const struct layer *layers;
    struct norm norm;
    struct product head;
    long bf16, n_layers, width, n_heads, n_kept, dim, inner, rank; /* inner, rank: the largest of all layers */
    float scale;
};

/* Tokens first .. first + n of a pass: they belong to a slot in which `past` tokens stand. */
struct span {
    long slot, first, n, past;
};

typedef void linear(const float *x, long x_apart, const void *w, const float *bias, float *y, long y_apart, long n,
                    long in, long out, int in_columns, int added, int threads);
linear linear_f32, linear_bf16;

/* What the tokens of `spans` find in their slots of `kept` (slots, room, 2, kept heads, dim): q (n, q_apart) -> y. */
void attention(const struct model *m, const struct span *spans, long n_spans, const float *q, long q_apart,
               const float *kept, long room, float *y, int threads);
