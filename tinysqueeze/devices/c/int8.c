/* ------------------------------------------------------ arithmetic: integers and nothing else
 * A map holds bytes q that stand for scale * (q - zero). Weights are int8, sums int32. A sum is
 * brought to the scale of its target as floor((sum * multiplier + half) / 2^shift), in 64 bits. */

typedef uint8_t value_t; /* what maps hold */
typedef int8_t weight_t;
typedef int32_t sum_t;   /* what a convolution adds up in */
typedef int32_t logit_t;

/* The shift of a negative number must round down (it does on every compiler in use). */
typedef char shift_must_round_down[(-3 >> 1) == -2 ? 1 : -1];

typedef struct {
    const int32_t *multiplier; /* one a filter */
    const uint8_t *shift;      /* one a filter */
    const uint8_t *zero_in;    /* one a channel if zero_step is 1, else one for all */
    int zero_step;
    int zero_out, lowest;      /* lowest: zero_out after a ReLU, else 0; for logits 0, else -1 */
} finish_t;

static inline int64_t rescaled(int64_t sum, int shift)
{
    return (sum + ((int64_t)1 << (shift - 1))) >> shift;
}

static inline int64_t clamped(int64_t x, int64_t lowest, int64_t highest)
{
    return x < lowest ? lowest : x > highest ? highest : x;
}

/* What a value of the source counts for in a sum. */
static inline sum_t centred(const finish_t *how, int channel, value_t x)
{
    return (sum_t)x - how->zero_in[channel * how->zero_step];
}

static inline logit_t finish_logit(const finish_t *how, int filter, sum_t sum)
{
    int64_t scaled = rescaled((int64_t)sum * how->multiplier[filter], how->shift[filter]);
    return (logit_t)clamped(scaled, how->lowest < 0 ? INT32_MIN : 0, INT32_MAX);
}

static inline value_t finish(const finish_t *how, int filter, sum_t sum)
{
    int64_t scaled = rescaled((int64_t)sum * how->multiplier[filter], how->shift[filter]);
    return (value_t)clamped(scaled + how->zero_out, how->lowest, 255);
}

static inline value_t average(sum_t sum, int count)
{
    return (value_t)((2 * sum + count) / (2 * count));
}

/* The sum itself: the scale of the logits knows how many pixels there are. */
static inline logit_t mean_logit(logit_t sum, int pixels)
{
    (void)pixels;
    return sum;
}

typedef struct {
    int32_t first, second; /* multipliers */
    int shift, zero_first, zero_second, zero_out, lowest;
} addition_t;

static inline value_t added(const addition_t *how, value_t a, value_t b)
{
    int64_t sum = (int64_t)(a - how->zero_first) * how->first
                + (int64_t)(b - how->zero_second) * how->second;
    return (value_t)clamped(rescaled(sum, how->shift) + how->zero_out, how->lowest, 255);
}

static inline value_t rectified(value_t x, value_t zero)
{
    return x > zero ? x : zero;
}

static inline value_t swished(value_t x, const value_t *table)
{
    return table[x];
}
