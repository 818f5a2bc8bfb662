/* ------------------------------------------------------------- weights out of a .tsq file
 * Batch norms are folded into the convolutions before them after unpacking, as in Python. */

static inline void fill(float *values, float value, int count)
{
    for (int i = 0; i < count; i++)
        values[i] = value;
}

/* Newton's method from above: no library has to be there. */
static inline double square_root(double x)
{
    double root = x > 1 ? x : 1, better = (root + x / root) / 2;
    while (better < root) {
        root = better;
        better = (root + x / root) / 2;
    }
    return root;
}

typedef struct {
    const float *weight, *bias, *mean, *var; /* one a channel */
    double eps;
} norm_t;

/* y = norm(x @ weight + bias) as one convolution: weight (rows, filters), bias (filters). */
static inline void fold(const norm_t *norm, float *weight, float *bias, int rows, int filters)
{
    for (int f = 0; f < filters; f++) {
        const double scale = norm->weight[f] / square_root(norm->var[f] + norm->eps);
        for (int row = 0; row < rows; row++)
            weight[row * filters + f] = (float)(weight[row * filters + f] * scale);
        bias[f] = (float)((bias[f] - (double)norm->mean[f]) * scale + norm->bias[f]);
    }
}
