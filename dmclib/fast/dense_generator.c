/* The whole dense generator (paper, Table 2) in one pass over the picture.

   Going down the picture in blocks of four rows, layer k works k blocks behind the input, so that
   of each map only a few rows are ever held: the growing stack stays in the processor's
   second-level cache instead of going through memory once a layer.

   Convolution is linear in its input channels: each block of a map is convolved once, for all later
   layers together, and added to what these have so far, as models.DenseGenerator does. Down the
   columns that is Winograd's F(4, 3) (Lavin and Gray, CVPR 2016, section 4): four rows from six,
   with six products where there were twelve. Blocks, weights and sums are held as those six
   "points"; only a layer whose sums are complete becomes rows again. */

#include <omp.h>
#include <stddef.h>
#include <string.h>

#ifdef __AVX512F__
#define LANES 16 /* floats in a vector register */
#define MOST 8   /* output channels whose sums stay in registers together, two vectors each */
#elif defined __AVX__
#define LANES 8
#define MOST 5
#else /* a vector wider than the registers would live in memory */
#define LANES 4
#define MOST 5
#endif
#define PIECE (2 * LANES) /* columns computed together */
#define ROWS 4            /* of a block */
#define POINTS 6          /* of a block with one row above and one below */
#define KEPT 5            /* rows of a map that wait for the row below them */
#define LAYERS 32         /* at most */

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int mask __attribute__((vector_size(4 * LANES)));

static inline vector load(const float *from)
{
    return *(const vector *)from;
}
static inline void store(float *to, vector what)
{
    *(vector *)to = what;
}

/* What all strips have in common. */
struct task {
    const float *motion, *residual, *weights, *biases; /* as in dense_generators */
    float *cue;
    int in_channels, layers, height, width, correction;
    const int *widths;
    float slope;
    int most;              /* channels of the widest map */
    ptrdiff_t row, padded; /* floats of a row in whole pieces; with the zeros after it */
};

/* One layer of a strip, or, as layer 0, its input. */
struct layer {
    int channels;
    int begin, end;       /* its blocks; block 0 begins with the strip's first row */
    const float *weights; /* what its map is convolved with, for all later layers */
    const float *bias;
    float *kept; /* channels x KEPT x row: of its map, the last row above a block, and the block */
    float *sums; /* as many blocks as it lags behind the input x channels x POINTS x row */
};

static float *sums_of(const struct layer *layers, int k, int block, int channel, ptrdiff_t row)
{
    int slot = (block % k + k) % k;
    return layers[k].sums + ((ptrdiff_t)slot * layers[k].channels + channel) * POINTS * row;
}

/* Add to the sums of `out` channels, a piece from column `at` on, three taps over `channels` maps;
   `from` is the column before in the first of them, the next lies `stride` on. Weights: channels x
   3 x out. Only called with a constant `out`, so that the loops over it unroll and the sums stay in
   registers. */
static inline __attribute__((always_inline)) void taps(const float *from, ptrdiff_t stride,
                                                       int channels, const float *weights, int out,
                                                       float *const *sums, ptrdiff_t at, int begin)
{
    vector left[MOST], right[MOST];
#pragma GCC unroll 8
    for (int o = 0; o < out; o++) {
        left[o] = begin ? (vector){0} : load(sums[o] + at);
        right[o] = begin ? (vector){0} : load(sums[o] + at + LANES);
    }
    for (int c = 0; c < channels; c++, from += stride, weights += 3 * out)
#pragma GCC unroll 3
        for (int x = 0; x < 3; x++) {
            vector a = load(from + x), b = load(from + x + LANES);
#pragma GCC unroll 8
            for (int o = 0; o < out; o++) {
                left[o] += a * weights[x * out + o];
                right[o] += b * weights[x * out + o];
            }
        }
#pragma GCC unroll 8
    for (int o = 0; o < out; o++) {
        store(sums[o] + at, left[o]);
        store(sums[o] + at + LANES, right[o]);
    }
}

#define CASE(OUT)                                                                       \
    case OUT:                                                                           \
        for (ptrdiff_t x = 0; x < row; x += PIECE)                                      \
            taps(from + x, stride, channels, weights, OUT, sums, at + x, begin);        \
        break;

/* A whole row of taps(). */
static void convolve(const float *from, ptrdiff_t stride, int channels, const float *weights,
                     int out, float *const *sums, ptrdiff_t at, ptrdiff_t row, int begin)
{
    switch (out) {
        CASE(1)
        CASE(2)
        CASE(3)
        CASE(4)
        CASE(5)
#if MOST == 8
        CASE(6)
        CASE(7)
        CASE(8)
#endif
    }
}

/* Four rows of a channel from its sums at the six points; bias added, rectified. */
static void rows_from_sums(const float *sums, ptrdiff_t row, float bias, float slope, float *rows)
{
    for (ptrdiff_t x = 0; x < row; x += LANES) {
        const float *m = sums + x;
        vector b = load(m + row), c = load(m + 2 * row), d = load(m + 3 * row);
        vector e = load(m + 4 * row), near = b - c, far = d - e;
        vector made[ROWS] = {load(m) + (b + c) + (d + e), near + 2 * far, (b + c) + 4 * (d + e),
                             near + 8 * far + load(m + 5 * row)};
        for (int r = 0; r < ROWS; r++) {
            vector sum = made[r] + bias, less = sum * slope;
            mask positive = sum > 0;
            store(rows + r * row + x,
                  (vector)(((mask)sum & positive) | ((mask)less & ~positive)));
        }
    }
}

/* The six points, `stride` apart, of a channel's block from the rows kept of it and the first of
   the fresh rows below it; the fresh rows are then those kept. */
static void points_from_rows(float *kept, const float *fresh, ptrdiff_t row, float *points,
                             ptrdiff_t stride)
{
    for (ptrdiff_t x = 0; x < row; x += LANES) {
        float *k = kept + x, *p = points + x;
        vector a = load(k), b = load(k + row), c = load(k + 2 * row), d = load(k + 3 * row);
        vector e = load(k + 4 * row), f = load(fresh + x);
        vector even = e - 4 * c, odd = d - 4 * b;
        store(p, 4 * a - 5 * c + e);
        store(p + stride, even + odd);
        store(p + 2 * stride, even - odd);
        store(p + 3 * stride, e - c + 2 * (d - b));
        store(p + 4 * stride, e - c - 2 * (d - b));
        store(p + 5 * stride, 4 * b - 5 * d + f);
        store(k, e);
        store(k + row, f);
        for (int r = 1; r < ROWS; r++)
            store(k + (r + 1) * row, load(fresh + r * row + x));
    }
}

/* The rows of a channel's block, zero beyond the picture: read, if it is the input's, or made of
   its sums. */
static void fresh_rows(const struct task *t, const struct layer *layers, int k, int channel,
                       int block, const float *plane, int y, float *rows)
{
    ptrdiff_t row = t->row;
    int made = block < layers[k].end; /* what nothing follows from is taken as zero */
    if (k && made)
        rows_from_sums(sums_of(layers, k, block, channel, row), row, layers[k].bias[channel],
                       k == t->layers ? 1 : t->slope, rows);
    for (int r = 0; r < ROWS; r++, y++, rows += row) {
        int from = made && y >= 0 && y < t->height ? t->width : 0;
        if (k == 0 && from)
            memcpy(rows, plane + (ptrdiff_t)y * t->width, sizeof(float) * t->width);
        memset(rows + from, 0, sizeof(float) * (row - from));
    }
}

/* Convolve the points of a block of map k for the first `needed` channels of the later layers. */
static void push(const struct task *t, const struct layer *layers, int k, int block, int needed,
                 int later, const float *points)
{
    const float *weights = layers[k].weights;
    int channels = layers[k].channels, to = k + 1, channel = 0;
    for (int first = 0; first < needed; first += MOST) {
        int out = later - first < MOST ? later - first : MOST;
        float *sums[MOST];
        for (int o = 0; o < out; o++, channel++) {
            for (; channel == layers[to].channels; to++)
                channel = 0;
            sums[o] = sums_of(layers, to, block, channel, t->row);
        }
        for (int point = 0; point < POINTS; point++, weights += channels * 3 * out)
            convolve(points + point * t->most * t->padded - 1, t->padded, channels, weights, out,
                     sums, point * t->row, t->row, k == 0);
    }
}

/* Floats that strip() needs before those of the layers: zeros, points, fresh rows. */
static ptrdiff_t shared_floats(const struct task *t)
{
    return LANES + POINTS * t->most * t->padded + ROWS * t->row;
}

static ptrdiff_t layer_floats(const struct task *t, int k)
{
    ptrdiff_t channels = k ? t->widths[k - 1] : t->in_channels;
    return channels * (KEPT + k * POINTS) * t->row;
}

/* Divide blocks, weights and scratch among the layers of a strip. */
static void divide(const struct task *t, int first, int last, float *scratch, struct layer *layers)
{
    const float *weights = t->weights, *bias = t->biases;
    int later = 0;
    scratch += shared_floats(t);
    for (int k = 0; k < t->layers; k++)
        later += t->widths[k];
    for (int k = 0; k <= t->layers; k++) {
        int channels = k ? t->widths[k - 1] : t->in_channels;
        /* Each later layer looks one row further, and no layer beyond the picture. */
        int above = t->layers - k < first ? t->layers - k : first;
        int below = last + t->layers - k < t->height ? last + t->layers - k : t->height;
        struct layer *own = layers + k;
        *own = (struct layer){.channels = channels, .weights = weights, .bias = bias};
        own->begin = -((above + ROWS - 1) / ROWS);
        own->end = (below - first + ROWS - 1) / ROWS;
        own->kept = scratch;
        own->sums = scratch + channels * KEPT * t->row;
        scratch += layer_floats(t, k);
        later -= k ? channels : 0;
        weights += (ptrdiff_t)channels * 3 * POINTS * later;
        bias += k ? channels : 0;
    }
}

/* Rows first..last-1 of one cue; motion, residual and cue are those of its picture. */
static void strip(const struct task *t, const float *motion, const float *residual, int first,
                  int last, float *scratch, float *cue)
{
    struct layer layers[LAYERS + 1];
    ptrdiff_t plane = (ptrdiff_t)t->height * t->width;
    float *points = scratch + LANES; /* of one map at a time; zeros stay between its rows */
    float *fresh = points + POINTS * t->most * t->padded;
    divide(t, first, last, scratch, layers);
    memset(scratch, 0, sizeof(float) * (fresh - scratch));
    for (int k = 0; k <= t->layers; k++)
        memset(layers[k].kept, 0, sizeof(float) * layers[k].channels * KEPT * t->row);

    for (int step = layers[0].begin; step < layers[0].end + t->layers; step++)
        for (int k = 0; k <= t->layers; k++) {
            int block = step - k, y = first + block * ROWS, channels = layers[k].channels;
            int later = 0, needed = 0; /* channels after this map; those its last block is for */
            for (int l = k + 1; l <= t->layers; l++) {
                later += layers[l].channels;
                if (block > layers[l].begin && block <= layers[l].end)
                    needed = later;
            }
            if (block < layers[k].begin || (block >= layers[k].end && !needed))
                continue;
            for (int c = 0; c < channels; c++) {
                const float *own = NULL; /* what is read here or, by the cue, added to */
                if (k == 0 || k == t->layers)
                    own = c < 2 ? motion + c * plane : residual + (c - 2) * plane;
                fresh_rows(t, layers, k, c, block, own, y, fresh);
                if (k < t->layers)
                    points_from_rows(layers[k].kept + c * KEPT * t->row, fresh, t->row,
                                     points + c * t->padded, t->most * t->padded);
                else
                    for (int r = 0; r < ROWS && y + r < last; r++)
                        for (int x = 0; x < t->width; x++) {
                            ptrdiff_t here = (ptrdiff_t)(y + r) * t->width + x;
                            cue[c * plane + here] =
                                fresh[r * t->row + x] + (t->correction ? own[here] : 0);
                        }
            }
            if (needed)
                push(t, layers, k, block - 1, needed, later, points);
        }
}

static struct task about(int in_channels, int layers, const int *widths, int height, int width)
{
    struct task t = {.in_channels = in_channels, .layers = layers, .widths = widths};
    t.height = height, t.width = width;
    t.most = in_channels;
    for (int k = 0; k < layers; k++)
        t.most = widths[k] > t.most ? widths[k] : t.most;
    t.row = (width + PIECE - 1) / PIECE * PIECE;
    t.padded = t.row + LANES;
    return t;
}

/* How many output channels each block of weights holds, and how many layers there may be. */
int outputs_together(void)
{
    return MOST;
}
int layers_at_most(void)
{
    return LAYERS;
}

/* Floats of scratch for each thread. */
size_t scratch_floats(int in_channels, int layers, const int *widths, int width)
{
    struct task t = about(in_channels, layers, widths, 1, width);
    size_t floats = shared_floats(&t);
    for (int k = 0; k <= layers; k++)
        floats += layer_floats(&t, k);
    return floats;
}

/* The cues of `count` pictures, each cut into `strips`.
   motion: count x 2 x height x width; residual: count x (in_channels - 2) x height x width. weights:
   for the input and then for each map, for every block of up to MOST channels of the later layers,
   POINTS x channels of the map x 3 x channels of the block. biases: of all layers. The last layer
   makes the two planes of the cue, without a rectifier; `correction`: added to the motion. */
void dense_generator(const float *motion, const float *residual, int in_channels, int layers,
                     const int *widths, const float *weights, const float *biases, float slope,
                     int correction, int count, int height, int width, int strips, int threads,
                     float *scratch, float *cue)
{
    struct task t = about(in_channels, layers, widths, height, width);
    ptrdiff_t plane = (ptrdiff_t)height * width;
    ptrdiff_t own = scratch_floats(in_channels, layers, widths, width);
    int blocks = (height + ROWS - 1) / ROWS;
    t.weights = weights, t.biases = biases, t.slope = slope, t.correction = correction;
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int job = 0; job < count * strips; job++) {
        ptrdiff_t item = job / strips, part = job % strips;
        int first = blocks * part / strips * ROWS, last = blocks * (part + 1) / strips * ROWS;
        strip(&t, motion + item * 2 * plane, residual + item * (in_channels - 2) * plane, first,
              last < height ? last : height, scratch + omp_get_thread_num() * own,
              cue + item * 2 * plane);
    }
}
