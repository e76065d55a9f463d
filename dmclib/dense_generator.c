/* The whole dense generator (paper, Table 2) in one pass over the picture.

   All layers keep the picture's size and look one pixel around, so layer k can make row r as soon
   as everything before it has rows r - 1 to r + 1. Going down the picture, layer k works k rows
   behind the input, and of each map only the last few rows are kept: the growing stack stays in
   the processor's second-level cache instead of going through memory once a layer. */

#include <stddef.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16 /* floats in a vector register */
#define MOST 8   /* output channels whose sums stay in registers together */
#else
#define LANES 8
#define MOST 4
#endif
#define COLUMNS (4 * LANES) /* a row is computed in pieces of 2 or 4 vectors */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES)));

/* Sums of `out` channels over `wide` vectors of a row: 3x3 taps over `channels` maps. Each of
   `rows` (above, here, below) is that of map 0, one column left; map c lies `stride` floats on.
   Weights: channels x 3 x 3 x out. Only called with constants for `out` and `wide`, so that the
   loops over them unroll and the sums stay in registers. */
static inline __attribute__((always_inline)) void taps(
    const float *const rows[3], ptrdiff_t stride, int channels, const float *weight,
    const float *bias, int out, int wide, float *const *targets, float slope)
{
    vector sums[MOST][4];
#pragma GCC unroll 8
    for (int o = 0; o < out; o++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++)
            sums[o][v] = (vector){0} + bias[o];
    for (int c = 0; c < channels; c++)
        for (int y = 0; y < 3; y++) {
            const float *from = rows[y] + c * stride;
#pragma GCC unroll 3
            for (int x = 0; x < 3; x++) {
                vector seen[4];
#pragma GCC unroll 4
                for (int v = 0; v < wide; v++)
                    seen[v] = *(const vector *)(from + x + v * LANES);
#pragma GCC unroll 8
                for (int o = 0; o < out; o++)
#pragma GCC unroll 4
                    for (int v = 0; v < wide; v++)
                        sums[o][v] += seen[v] * weight[x * out + o];
            }
            weight += 3 * out;
        }
#pragma GCC unroll 8
    for (int o = 0; o < out; o++)
#pragma GCC unroll 4
        for (int v = 0; v < wide; v++) {
            vector sum = sums[o][v], less = sum * slope;
            mask positive = sum > 0;
            *(vector *)(targets[o] + v * LANES) =
                (vector)(((mask)sum & positive) | ((mask)less & ~positive));
        }
}

#define CASE(OUT, WIDE)                                                                       \
    case OUT:                                                                                 \
        for (int x = 0; x < width; x += WIDE * LANES) {                                       \
            const float *at[3] = {rows[0] + x, rows[1] + x, rows[2] + x};                     \
            float *to[OUT];                                                                   \
            for (int o = 0; o < OUT; o++)                                                     \
                to[o] = target + o * stride + x;                                              \
            taps(at, stride, channels, weight, bias, OUT, WIDE, to, slope);                   \
        }                                                                                     \
        break;

static void layer_row(const float *const rows[3], ptrdiff_t stride, int channels,
                      const float *weight, const float *bias, int out, int width, float *target,
                      float slope)
{
    while (out > 0) {
        int now = out < MOST ? out : MOST;
        switch (now) {
            CASE(1, 4)
            CASE(2, 4)
            CASE(3, 2)
            CASE(4, 2)
#if MOST == 8
            CASE(5, 2)
            CASE(6, 2)
            CASE(7, 2)
            CASE(8, 2)
#endif
        }
        weight += (size_t)9 * channels * now;
        bias += now;
        target += now * stride;
        out -= now;
    }
}

/* How many output channels each block of weights holds. */
int outputs_together(void)
{
    return MOST;
}

/* Floats of scratch that dense_generator needs. */
size_t scratch_floats(int layers, const int *widths, int in_channels, int width)
{
    int channels = in_channels, padded = (width + COLUMNS - 1) / COLUMNS * COLUMNS;
    for (int k = 0; k < layers; k++)
        channels += widths[k];
    return (size_t)(layers + 2) * channels * (padded + 2 * LANES);
}

/* Rows first..last-1 of the cue of one picture.
   planes: in_channels pointers to height x width floats; weights: for every layer, for every
   block of up to MOST outputs, channels x 3 x 3 x outputs; biases one after the other; the last
   layer has two outputs and no rectifier; `correction`: add planes 0 and 1. cue: two planes. */
void dense_generator(const float *const *planes, int in_channels, int layers, const int *widths,
                     const float *weights, const float *biases, float slope, int correction,
                     int height, int width, int first, int last, float *scratch, float *cue)
{
    int total = in_channels, depth = layers + 2;
    int padded = (width + COLUMNS - 1) / COLUMNS * COLUMNS;
    ptrdiff_t stride = padded + 2 * LANES; /* a row, with zeros on both sides */
    for (int k = 0; k < layers; k++)
        total += widths[k];
    ptrdiff_t slot = total * stride; /* one row of every map */
    memset(scratch, 0, sizeof(float) * slot * depth);

    for (int step = first - layers; step < last + layers; step++) {
        const float *weight = weights, *bias = biases;
        /* The input's row `step`, then layer k's row `step - k`. */
        for (int k = 0, channels = 0; k <= layers; k++) {
            int row = step - k, out = k ? widths[k - 1] : in_channels;
            int reach = layers - k; /* rows beyond first..last that later layers look at */
            if (row >= first - reach && row < last + reach) {
                float *target = scratch + ((row + depth) % depth) * slot + channels * stride + LANES;
                if (row < 0 || row >= height) /* beyond the picture every map is zero */
                    for (int c = 0; c < out; c++)
                        memset(target + c * stride, 0, sizeof(float) * width);
                else if (k == 0)
                    for (int c = 0; c < out; c++)
                        memcpy(target + c * stride, planes[c] + (ptrdiff_t)row * width,
                               sizeof(float) * width);
                else {
                    const float *rows[3];
                    for (int y = 0; y < 3; y++)
                        rows[y] = scratch + ((row + y - 1 + depth) % depth) * slot + LANES - 1;
                    layer_row(rows, stride, channels, weight, bias, out, padded, target,
                              k == layers ? 1.0f : slope);
                    if (k == layers)
                        for (int c = 0; c < out; c++) {
                            float *to = cue + ((ptrdiff_t)c * height + row) * width;
                            const float *own = planes[c] + (ptrdiff_t)row * width;
                            for (int x = 0; x < width; x++)
                                to[x] = target[c * stride + x] + (correction ? own[x] : 0);
                        }
                    else
                        for (int c = 0; c < out; c++) /* what ran over the edge */
                            memset(target + c * stride + width, 0,
                                   sizeof(float) * (padded - width));
                }
            }
            if (k) {
                weight += (size_t)9 * channels * out;
                bias += out;
            }
            channels += out;
        }
    }
}
