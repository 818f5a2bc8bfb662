/* What a page runs as WebAssembly: the layers and the decoder of the exported C, convolutions four pixels
 * at a time, and photographs made ready. The page holds the memory and says where everything lies. */

#define SCRATCH 65536 /* the most channels of any map */

#include "../c/tsq.c"

#include "../c/float32.c"
#include "../c/kernels.c"
#include "../c/unpacked.c"

#define EXPORT(name) __attribute__((export_name(#name)))

/* ---------------------------------------------------------------------------- convolutions
 * Sums of PIXELS pixels for BLOCK filters at a time stay in registers: each weight that is fetched
 * serves four pixels, each pixel eight filters. Weights lie in blocks of that many filters. */

enum { PIXELS = 4, LANES = 4, VECTORS = 2, BLOCK = LANES * VECTORS };

typedef float lanes_t __attribute__((vector_size(4 * LANES), aligned(4)));

/* weight (rows, filters) -> (blocks, rows, BLOCK), zeros for filters that there are not. */
EXPORT(pack) void pack(const float *weight, int rows, int filters, float *packed)
{
    for (int first = 0; first < filters; first += BLOCK)
        for (int row = 0; row < rows; row++)
            for (int f = first; f < first + BLOCK; f++)
                *packed++ = f < filters ? weight[row * filters + f] : 0;
}

/* The windows of some pixels side by side: `lines` runs of `run` numbers each. */
typedef struct {
    int lines, run; /* of a window */
    int line;       /* from one run of a window to the next */
    int step;       /* from one pixel's window to the next one's */
} windows_t;

/* `pixels` pixels for BLOCK filters, of which the first `filters` are stored. */
static inline void tile(const windows_t *at, const int pixels, const float *x, const float *w,
                        const float *bias, int filters, int relu, float *y, int y_step)
{
    lanes_t sum[PIXELS][VECTORS];
    for (int v = 0; v < VECTORS; v++)
        for (int p = 0; p < pixels; p++)
            for (int i = 0; i < LANES; i++)
                sum[p][v][i] = v * LANES + i < filters ? bias[v * LANES + i] : 0;
    for (int line = 0; line < at->lines; line++, x += at->line)
        for (int k = 0; k < at->run; k++, w += BLOCK) {
            const lanes_t first = *(const lanes_t *)w, second = *(const lanes_t *)(w + LANES);
#pragma clang loop unroll(full)
            for (int p = 0; p < pixels; p++) {
                const float value = x[p * at->step + k];
                sum[p][0] += first * value;
                sum[p][1] += second * value;
            }
        }
    for (int p = 0; p < pixels; p++)
        for (int f = 0; f < filters; f++) {
            const float value = sum[p][f / LANES][f % LANES];
            y[p * y_step + f] = relu && value < 0 ? 0 : value;
        }
}

/* `count` pixels of a row. The last tile begins early enough to be whole. */
static void tiles(const windows_t *at, int count, const float *x, const float *w, const float *bias,
                  int filters, int relu, float *y, int y_step)
{
    if (count < PIXELS) {
        for (int p = 0; p < count; p++)
            tile(at, 1, x + p * at->step, w, bias, filters, relu, y + p * y_step, y_step);
        return;
    }
    for (int done = 0; done < count; done += PIXELS) {
        const int p = done + PIXELS > count ? count - PIXELS : done;
        if (filters == BLOCK)
            tile(at, PIXELS, x + p * at->step, w, bias, BLOCK, relu, y + p * y_step, y_step);
        else
            tile(at, PIXELS, x + p * at->step, w, bias, filters, relu, y + p * y_step, y_step);
    }
}

/* A map with a ring of zeros around it. */
static void pad(const geometry_t *at, const float *x, float *padded)
{
    const int width = at->width + 2 * at->pad_w, run = at->width * at->channels;
    for (int row = -at->pad_h; row < at->height + at->pad_h; row++) {
        const int inside = row >= 0 && row < at->height;
        for (int i = 0; i < width * at->channels; i++) {
            const int k = i - at->pad_w * at->channels;
            *padded++ = inside && k >= 0 && k < run ? x[row * run + k] : 0;
        }
    }
}

/* A whole convolution of one group; its weights packed; `room` for its source with padding. */
EXPORT(run_conv) void run_conv(const conv_t *conv, const float *x, float *room, float *y)
{
    const geometry_t *g = &conv->at;
    const int width = g->width + 2 * g->pad_w, window = g->kernel_w * g->channels;
    if (g->pad_h || g->pad_w) {
        pad(g, x, room);
        x = room;
    }
    windows_t at = {g->kernel_h, window, width * g->channels, g->stride_w * g->channels};
    int rows = g->out_height, pixels = g->out_width;
    const int row = g->stride_h * at.line, y_row = pixels * g->out_channels;
    if (row == pixels * at.step) { /* one row's last window lies beside the next one's first */
        pixels *= rows;
        rows = 1;
    }
    if (g->kernel_h == 1 || window == at.line) { /* all of a window lies in one run */
        at.run *= at.lines;
        at.lines = 1;
    }
    const float *weight = conv->weight;
    for (int f = 0; f < conv->filters; f += BLOCK, weight += BLOCK * g->kernel_h * window) {
        const int filters = conv->filters - f < BLOCK ? conv->filters - f : BLOCK;
        for (int r = 0; r < rows; r++)
            tiles(&at, pixels, x + r * row, weight, conv->bias + f, filters, conv->how.relu,
                  y + r * y_row + g->first + f, g->out_channels);
    }
}

/* ------------------------------------------------------------------------ the other layers */

EXPORT(run_groups) void run_groups(const conv_t *conv, const float *x, float *y)
{
    run_convs(conv, 1, x, y);
}

static void keep_larger(float *restrict best, const float *restrict pixel, int channels, int first)
{
    for (int c = 0; c < channels; c++)
        best[c] = first || pixel[c] > best[c] ? pixel[c] : best[c];
}

/* A pool as in kernels.c; a maximum, whose padding never counts, is taken channel by channel in a row. */
EXPORT(run_any_pool) void run_any_pool(const pool_t *pool, const float *x, float *y)
{
    const geometry_t *at = &pool->at;
    if (pool->mean) {
        run_pool(pool, x, y);
        return;
    }
    for (int row = 0; row < at->out_height; row++)
        for (int column = 0; column < at->out_width; column++) {
            const int top = row * at->stride_h - at->pad_h, left = column * at->stride_w - at->pad_w;
            float *best = y + (row * at->out_width + column) * at->out_channels + at->first;
            int seen = 0;
            for (int iy = top < 0 ? 0 : top; iy < top + at->kernel_h && iy < at->height; iy++)
                for (int ix = left < 0 ? 0 : left; ix < left + at->kernel_w && ix < at->width; ix++) {
                    keep_larger(best, x + (iy * at->width + ix) * at->channels, at->channels, !seen);
                    seen = 1;
                }
        }
}

EXPORT(run_sum) void run_sum(int relu, const float *a, const float *b, float *y, int count)
{
    run_add(&(addition_t){relu}, a, b, y, count);
}

EXPORT(run_average) void run_average(const float *x, int pixels, int channels, float *y)
{
    run_mean(x, pixels, channels, 0, y);
}

EXPORT(run_activation) void run_activation(int swish, const float *x, float *y, int count)
{
    if (swish)
        run_swish(x, y, 0, count);
    else
        run_rectify(x, y, 0, count);
}

/* -------------------------------------------------------------------------------- weights */

EXPORT(unpack) int unpack(const uint8_t *file, uint32_t size, const tsq_network_t *network)
{
    return tsq_unpack(file, size, network);
}

EXPORT(trouble) const char *trouble(int code)
{
    return tsq_trouble(code);
}

EXPORT(fold_norm) void fold_norm(const norm_t *norm, float *weight, float *bias, int rows, int filters)
{
    fold(norm, weight, bias, rows, filters);
}

EXPORT(fill_with) void fill_with(float *values, float value, int count)
{
    fill(values, value, count);
}

/* ---------------------------------------------------------------------------- photographs
 * Resized as Pillow 13 does with BILINEAR, to the bit (src/libImaging/Resample.c): a triangle as wide as
 * the shrinking, weights in whole 2^-22ths, along rows and along columns, bytes in between. */

enum { PRECISION = 22 };

static double triangle(double x)
{
    const double away = x < 0 ? -x : x;
    return away < 1 ? 1 - away : 0;
}

/* Along one axis: `size` pixels become `out_size`, on each of `lines` lines. Steps are in bytes. */
EXPORT(resample) void resample(const uint8_t *in, int size, int step, int line, uint8_t *out,
                               int out_size, int out_step, int out_line, int lines, int32_t *weights)
{
    const double scale = (double)size / out_size, wide = scale < 1 ? 1 : scale, share = 1 / wide;
    for (int i = 0; i < out_size; i++) {
        const double centre = (i + 0.5) * scale;
        const int low = (int)(centre - wide + 0.5), first = low < 0 ? 0 : low;
        const int high = (int)(centre + wide + 0.5), end = high > size ? size : high;
        double total = 0;
        for (int k = first; k < end; k++)
            total += triangle((k - centre + 0.5) * share);
        for (int k = first; k < end; k++) {
            const double weight = triangle((k - centre + 0.5) * share) / total;
            weights[k - first] = (int32_t)(0.5 + weight * (1 << PRECISION));
        }
        for (int n = 0; n < lines; n++) {
            const uint8_t *from = in + n * line + first * step;
            uint8_t *to = out + n * out_line + i * out_step;
            int32_t sum[3] = {1 << (PRECISION - 1), 1 << (PRECISION - 1), 1 << (PRECISION - 1)};
            for (int k = 0; k < end - first; k++, from += step)
                for (int c = 0; c < 3; c++)
                    sum[c] += from[c] * weights[k];
            for (int c = 0; c < 3; c++)
                to[c] = (uint8_t)(sum[c] >> PRECISION); /* shares of bytes: never beyond 255 */
        }
    }
}

/* How weights want their pixels: (byte / divide_by - mean) / std. */
typedef struct {
    int width, height;       /* of the resized photograph, 4 bytes a pixel */
    int left, top;           /* of the crop in it, which may hang over: black */
    int crop_height, crop_width;
    int reversed;            /* channels: 1 for BGR */
    float divide_by, mean[3], std[3];
} wanted_t;

EXPORT(prepare) void prepare(const wanted_t *how, const uint8_t *pixels, float *x)
{
    for (int row = how->top; row < how->top + how->crop_height; row++)
        for (int column = how->left; column < how->left + how->crop_width; column++) {
            const int inside = row >= 0 && row < how->height && column >= 0 && column < how->width;
            for (int c = 0; c < 3; c++) {
                const int from = how->reversed ? 2 - c : c;
                const float byte = inside ? pixels[4 * (row * how->width + column) + from] : 0;
                *x++ = (byte / how->divide_by - how->mean[c]) / how->std[c];
            }
        }
}
