/* ------------------------------------------------------------------ arithmetic: float32 */

typedef float value_t;   /* what maps hold */
typedef float weight_t;
typedef float sum_t;     /* what a convolution adds up in */
typedef float logit_t;

typedef struct {
    int relu;
} finish_t;

/* What a value of the source counts for in a sum. */
static inline sum_t centred(const finish_t *how, int channel, value_t x)
{
    (void)how;
    (void)channel;
    return x;
}

static inline logit_t finish_logit(const finish_t *how, int filter, sum_t sum)
{
    (void)filter;
    return how->relu && sum < 0 ? 0 : sum;
}

static inline value_t finish(const finish_t *how, int filter, sum_t sum)
{
    return finish_logit(how, filter, sum);
}

static inline value_t average(sum_t sum, int count)
{
    return sum / (float)count;
}

/* What the sum of a filter over all pixels makes as a logit. */
static inline logit_t mean_logit(logit_t sum, int pixels)
{
    return sum / (float)pixels;
}

typedef struct {
    int relu;
} addition_t;

static inline value_t added(const addition_t *how, value_t a, value_t b)
{
    return how->relu && a + b < 0 ? 0 : a + b;
}

static inline value_t rectified(value_t x, value_t zero)
{
    return x > zero ? x : zero;
}

/* Hard-swish; integers look it up in a table. */
static inline value_t swished(value_t x, const value_t *table)
{
    (void)table;
    return x <= -3 ? 0 : x >= 3 ? x : x * (x / 6 + 0.5f);
}
