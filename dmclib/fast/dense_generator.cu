// The whole dense generator (paper, Table 2) in one launch: a block makes one tile of one cue.
//
// Every map of the tile lives in shared memory with as much of its neighbourhood as later layers
// look at, so that only the input is read and only the cue is written; the price is that each
// neighbourhood is computed by several blocks. Sums are float32, by fused multiply-adds, never
// tensor cores (whose float32 is TF32, three digits short); maps are float32 or, with BFLOAT16,
// bfloat16.
//
// From the command line: LAYERS, CHANNELS (of the input and of each layer), TILE_H, TILE_W (of a
// tile, at least 4 rows), THREADS, SLOPE (of the rectifier) and CORRECTION (the motion is added).

#ifdef BFLOAT16
typedef unsigned short held;
__device__ inline float value(held x) { return __uint_as_float((unsigned)x << 16); }
// To the nearest, ties to even; a GPU's NaN, all ones, would be carried over to minus zero.
__device__ inline held rounded(float x)
{
    unsigned bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;
}
#else
typedef float held;
__device__ inline float value(held x) { return x; }
__device__ inline held rounded(float x) { return x; }
#endif

constexpr int ROWS = 4;    // of a map that a thread makes, one under the other
constexpr int OUTPUTS = 4; // channels that it makes at most
constexpr int channels[LAYERS + 1] = {CHANNELS};

// Layer k's map (0: the input) reaches beyond the tile by a row or column for each later layer.
constexpr int high(int k) { return TILE_H + 2 * (LAYERS - k); }
constexpr int wide(int k) { return TILE_W + 2 * (LAYERS - k); }
constexpr int area(int k) { return high(k) * wide(k); }
constexpr int map_at(int k) { return k ? map_at(k - 1) + channels[k - 1] * area(k - 1) : 0; }

// A layer's channels in equal groups, each made by threads of its own.
constexpr int groups(int k) { return (channels[k] + OUTPUTS - 1) / OUTPUTS; }
constexpr int each(int k) { return (channels[k] + groups(k) - 1) / groups(k); }
constexpr int seen(int k) { return k ? seen(k - 1) + channels[k - 1] : 0; }
constexpr int taps(int k) { return seen(k) * 9 * OUTPUTS; } // weights of a group
constexpr int weights_at(int k)
{
    return k > 1 ? weights_at(k - 1) + groups(k - 1) * taps(k - 1) : 0;
}
constexpr int WEIGHTS = weights_at(LAYERS + 1);

// Add what map J and the older ones give to layer K's sums at rows y.. and column x of its map.
// Weights: channels x 3 columns x 3 rows x OUTPUTS.
template <int K, int J>
__device__ inline void convolve(float (&sums)[ROWS][each(K)], const held *maps,
                                const float *weights, int y, int x)
{
    if constexpr (J > 0)
        convolve<K, J - 1>(sums, maps, weights, y, x);
    constexpr int pitch = wide(J), plane = area(J), count = channels[J], begin = map_at(J);
    constexpr int outputs = each(K), offset = seen(J) * 9 * OUTPUTS;
    const held *from = maps + begin + (y + K - J - 1) * pitch + x + K - J - 1;
    weights += offset;
    for (int c = 0; c < count; c++, from += plane, weights += 9 * OUTPUTS)
#pragma unroll
        for (int column = 0; column < 3; column++) {
            float column_of[ROWS + 2];
#pragma unroll
            for (int r = 0; r < ROWS + 2; r++)
                column_of[r] = value(from[r * pitch + column]);
#pragma unroll
            for (int row = 0; row < 3; row++) {
                const float4 four = *(const float4 *)(weights + (column * 3 + row) * OUTPUTS);
                const float weight[OUTPUTS] = {four.x, four.y, four.z, four.w};
#pragma unroll
                for (int r = 0; r < ROWS; r++)
#pragma unroll
                    for (int o = 0; o < outputs; o++)
                        sums[r][o] += column_of[r + row] * weight[o];
            }
        }
}

// Layer K of this block's tile and, after it, the later ones. `top`, `left`: the tile's corner.
template <int K>
__device__ inline void layers(held *maps, const float *weights, const float *biases,
                              const held *motion, held *cue, int height, int width, int top,
                              int left)
{
    constexpr int rows = high(K), pitch = wide(K), plane = area(K), begin = map_at(K);
    constexpr int strips = (rows + ROWS - 1) / ROWS, outputs = each(K), reach = LAYERS - K;
    constexpr int count = channels[K], share = taps(K), offset = weights_at(K);
    constexpr int bias_at = seen(K) - channels[0], items = groups(K) * strips * pitch;
    for (int item = threadIdx.x; item < items; item += THREADS) {
        const int x = item % pitch, strip = item / pitch % strips, group = item / (pitch * strips);
        // The last strip ends with the map and makes some rows again, for nobody.
        const int y = strip * ROWS < rows - ROWS ? strip * ROWS : rows - ROWS;
        float sums[ROWS][outputs];
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int o = 0; o < outputs; o++) {
                const int channel = group * outputs + o;
                sums[r][o] = channel < count ? biases[bias_at + channel] : 0.0f;
            }
        convolve<K, K - 1>(sums, maps, weights + offset + group * share, y, x);
#pragma unroll
        for (int r = 0; r < ROWS; r++)
#pragma unroll
            for (int o = 0; o < outputs; o++) {
                const int channel = group * outputs + o;
                const int row = top - reach + y + r, column = left - reach + x;
                const bool inside = row >= 0 && row < height && column >= 0 && column < width;
                if (channel >= count || y + r < strip * ROWS)
                    continue;
                const float sum = sums[r][o];
                if constexpr (K < LAYERS) // beyond the picture every map is zero
                    maps[begin + channel * plane + (y + r) * pitch + x] =
                        rounded(!inside ? 0.0f : sum > 0 ? sum : SLOPE * sum);
                else if (inside) {
                    const size_t at = ((size_t)channel * height + row) * width + column;
                    cue[at] = rounded(CORRECTION ? sum + value(motion[at]) : sum);
                }
            }
    }
    if constexpr (K < LAYERS) {
        __syncthreads();
        layers<K + 1>(maps, weights, biases, motion, cue, height, width, top, left);
    }
}

// motion: pictures x 2 x height x width; residual: pictures x (channels[0] - 2) x height x width;
// weights: of each layer, of each group, as convolve() takes them; cue: as motion. Grid: tiles
// across, tiles down, pictures. Shared memory: WEIGHTS floats and map_at(LAYERS) held.
extern "C" __global__ void __launch_bounds__(THREADS)
    dense_generator(const held *motion, const held *residual, const float *weights,
                    const float *biases, held *cue, int height, int width)
{
    extern __shared__ float4 shared[];
    float *own_weights = (float *)shared;
    held *maps = (held *)(own_weights + WEIGHTS);
    constexpr int inputs = channels[0], around = area(0), pitch = wide(0);
    const int top = blockIdx.y * TILE_H, left = blockIdx.x * TILE_W;
    const size_t plane = (size_t)height * width;
    motion += blockIdx.z * 2 * plane;
    residual += blockIdx.z * (inputs - 2) * plane;
    cue += blockIdx.z * 2 * plane;

    for (int i = threadIdx.x; i < WEIGHTS / 4; i += THREADS)
        shared[i] = ((const float4 *)weights)[i];
    for (int i = threadIdx.x; i < inputs * around; i += THREADS) {
        const int c = i / around, row = top - LAYERS + i % around / pitch;
        const int column = left - LAYERS + i % pitch;
        const bool inside = row >= 0 && row < height && column >= 0 && column < width;
        const held *from = c < 2 ? motion + c * plane : residual + (c - 2) * plane;
        maps[i] = inside ? from[(size_t)row * width + column] : rounded(0.0f);
    }
    __syncthreads();
    layers<1>(maps, own_weights, biases, motion, cue, height, width, top, left);
}
