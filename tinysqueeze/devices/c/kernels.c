/* ------------------------------------------------------------------------------- kernels
 * Maps are (height, width, channels). Each pixel is finished in `sums` before it is stored, so that
 * a map may be written over the part of its source that has been read; the planner saw to that. */

typedef struct {
    int height, width, channels;                /* of the source */
    int kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w;
    int out_height, out_width, out_channels;    /* of the whole target map */
    int first;                                  /* the first of its channels that is written here */
} geometry_t;

typedef struct {
    geometry_t at;
    int filters, groups;
    const weight_t *weight;                     /* (kernel_h, kernel_w, channels / groups, filters) */
    const sum_t *bias;
    finish_t how;
} conv_t;

static sum_t sums[SCRATCH];

/* sum += value * w, for many filters at once. */
static inline void add_scaled(sum_t *restrict sum, const weight_t *restrict w, sum_t value, int count)
{
    for (int f = 0; f < count; f++)
        sum[f] += value * w[f];
}

/* The sums of one output pixel for all filters. Zeros, of which ReLU leaves many, are skipped. */
static inline void conv_pixel(const conv_t *conv, const value_t *x, int row, int column)
{
    const geometry_t *at = &conv->at;
    const int channels = at->channels / conv->groups, filters = conv->filters / conv->groups;
    for (int f = 0; f < conv->filters; f++)
        sums[f] = conv->bias[f];
    for (int ky = 0; ky < at->kernel_h; ky++) {
        const int iy = row * at->stride_h + ky - at->pad_h;
        if (iy < 0 || iy >= at->height)
            continue;
        for (int kx = 0; kx < at->kernel_w; kx++) {
            const int ix = column * at->stride_w + kx - at->pad_w;
            if (ix < 0 || ix >= at->width)
                continue;
            const value_t *pixel = x + (iy * at->width + ix) * at->channels;
            const weight_t *weight =
                conv->weight + (ky * at->kernel_w + kx) * channels * conv->filters;
            for (int c = 0; c < at->channels; c++) {
                const int group = c / channels;
                const weight_t *w = weight + c % channels * conv->filters + group * filters;
                const sum_t value = centred(&conv->how, c, pixel[c]);
                if (value != 0)
                    add_scaled(sums + group * filters, w, value, filters);
            }
        }
    }
}

/* One row of a convolution, into row `y` of the target. */
static inline void conv_row(const conv_t *conv, const value_t *x, int row, value_t *y)
{
    for (int column = 0; column < conv->at.out_width; column++) {
        value_t *pixel = y + column * conv->at.out_channels + conv->at.first;
        conv_pixel(conv, x, row, column);
        for (int f = 0; f < conv->filters; f++)
            pixel[f] = finish(&conv->how, f, sums[f]);
    }
}

/* One pixel of a pool; row i of its source lies at x + i % ring * (row size). `mean` as in pool_t. */
static inline void pool_pixel(const geometry_t *at, int mean, const value_t *x, int ring, int row,
                       int column, value_t zero)
{
    const int around = mean == 1; /* does padding count? */
    int top = row * at->stride_h - at->pad_h, left = column * at->stride_w - at->pad_w;
    int bottom = top + at->kernel_h, right = left + at->kernel_w, seen = 0;
    if (bottom > at->height + at->pad_h * around) /* what hangs over it never does */
        bottom = at->height + at->pad_h * around;
    if (right > at->width + at->pad_w * around)
        right = at->width + at->pad_w * around;
    if (top < -at->pad_h * around)
        top = 0;
    if (left < -at->pad_w * around)
        left = 0;
    for (int c = 0; c < at->channels; c++)
        sums[c] = 0;
    for (int iy = top; iy < bottom; iy++) {
        for (int ix = left; ix < right; ix++) {
            const int inside = iy >= 0 && iy < at->height && ix >= 0 && ix < at->width;
            const value_t *pixel = x + (iy % ring * at->width + ix) * at->channels;
            for (int c = 0; c < at->channels; c++) {
                const sum_t value = inside ? pixel[c] : zero;
                if (mean)
                    sums[c] += value;
                else if (!seen || value > sums[c])
                    sums[c] = value;
            }
            seen = 1;
        }
    }
    if (mean)
        for (int c = 0; c < at->channels; c++)
            sums[c] = average(sums[c], (bottom - top) * (right - left));
}

typedef struct {
    geometry_t at;
    int mean; /* 0: the maximum; 1: the average, padding counted; 2: of what is inside alone */
    value_t zero;
} pool_t;

static inline void pool_row(const pool_t *pool, const value_t *x, int ring, int row, value_t *y)
{
    for (int column = 0; column < pool->at.out_width; column++) {
        value_t *pixel = y + column * pool->at.out_channels + pool->at.first;
        pool_pixel(&pool->at, pool->mean, x, ring, row, column, pool->zero);
        for (int c = 0; c < pool->at.channels; c++)
            pixel[c] = (value_t)sums[c];
    }
}

static inline int row_size(const geometry_t *at)
{
    return at->out_width * at->out_channels;
}

/* ------------------------------------------------------------------------------- stages */

/* Convolutions side by side, into one map. */
static inline void run_convs(const conv_t *convs, int count, const value_t *x, value_t *y)
{
    for (int row = 0; row < convs->at.out_height; row++)
        for (int i = 0; i < count; i++)
            conv_row(convs + i, x, row, y + row * row_size(&convs->at));
}

/* The same and the pool on their rows, of which only as many exist as the pool looks at. */
static inline void run_convs_pool(const conv_t *convs, int count, const pool_t *pool, const value_t *x,
                           value_t *ring, value_t *y)
{
    int ready = 0;
    for (int row = 0; row < pool->at.out_height; row++) {
        const int stop = row * pool->at.stride_h - pool->at.pad_h + pool->at.kernel_h;
        for (; ready < stop && ready < pool->at.height; ready++)
            for (int i = 0; i < count; i++)
                conv_row(convs + i, x, ready,
                         ring + ready % pool->at.kernel_h * row_size(&convs->at));
        pool_row(pool, ring, pool->at.kernel_h, row, y + row * row_size(&pool->at));
    }
}

static inline void run_pool(const pool_t *pool, const value_t *x, value_t *y)
{
    for (int row = 0; row < pool->at.out_height; row++)
        pool_row(pool, x, pool->at.height, row, y + row * row_size(&pool->at));
}

static inline void run_add(const addition_t *how, const value_t *a, const value_t *b, value_t *y, int count)
{
    for (int i = 0; i < count; i++)
        y[i] = added(how, a[i], b[i]);
}

static inline void run_rectify(const value_t *x, value_t *y, value_t zero, int count)
{
    for (int i = 0; i < count; i++)
        y[i] = rectified(x[i], zero);
}

static inline void run_swish(const value_t *x, value_t *y, const value_t *table, int count)
{
    for (int i = 0; i < count; i++)
        y[i] = swished(x[i], table);
}

/* The end of a network: convolutions whose pixels add up to the logits and are never stored. */
static inline void run_convs_mean(const conv_t *convs, int count, const value_t *x, logit_t *logits)
{
    const geometry_t *at = &convs->at;
    for (int c = 0; c < at->out_channels; c++)
        logits[c] = 0;
    for (int row = 0; row < at->out_height; row++)
        for (int column = 0; column < at->out_width; column++)
            for (int i = 0; i < count; i++) {
                conv_pixel(convs + i, x, row, column);
                for (int f = 0; f < convs[i].filters; f++)
                    logits[convs[i].at.first + f] += finish_logit(&convs[i].how, f, sums[f]);
            }
    for (int c = 0; c < at->out_channels; c++)
        logits[c] = mean_logit(logits[c], at->out_height * at->out_width);
}

/* Another end: the mean over all pixels of a map. */
static inline void run_mean(const value_t *x, int pixels, int channels, value_t zero, logit_t *logits)
{
    for (int c = 0; c < channels; c++)
        logits[c] = 0;
    for (int i = 0; i < pixels * channels; i++)
        logits[i % channels] += (logit_t)x[i] - zero;
    for (int c = 0; c < channels; c++)
        logits[c] = mean_logit(logits[c], pixels);
}

/* A third: convolutions over the whole map, which are fully connected layers. */
static inline void run_logits(const conv_t *convs, int count, const value_t *x, logit_t *logits)
{
    for (int i = 0; i < count; i++) {
        conv_pixel(convs + i, x, 0, 0);
        for (int f = 0; f < convs[i].filters; f++)
            logits[convs[i].at.first + f] = finish_logit(&convs[i].how, f, sums[f]);
    }
}
