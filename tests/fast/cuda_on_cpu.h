// A CUDA kernel as a plain function, a block after the other, for tests where there is no GPU.
//
// The threads of a block take turns: each runs until the next __syncthreads() before the one after
// it starts. So a barrier that is missing shows every time, as a value that is not there yet; shared
// memory, and what lies behind it, is filled with NaN before each block.

#include <condition_variable>
#include <cstddef>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __shared__
#define __launch_bounds__(threads)

struct alignas(16) float4 {
    float x, y, z, w;
};
struct position {
    int x, y, z;
};
static thread_local position threadIdx, blockIdx;
static constexpr int BEHIND = 1024; // float4 that the kernel must leave alone
float4 shared[BEHIND + 16384];

static std::mutex mutex;
static std::condition_variable changed;
static int turn;

static void wait_for_turn()
{
    std::unique_lock<std::mutex> lock(mutex);
    changed.wait(lock, [] { return turn == threadIdx.x; });
}
static void pass_turn()
{
    std::lock_guard<std::mutex> lock(mutex);
    turn = (turn + 1) % THREADS;
    changed.notify_all();
}
static void __syncthreads()
{
    pass_turn();
    wait_for_turn();
}
static unsigned __float_as_uint(float x)
{
    unsigned bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
static float __uint_as_float(unsigned bits)
{
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

#include SOURCE

// Returns how many floats behind the shared memory were written to; they should be none.
extern "C" int run(int across, int down, int deep, size_t shared_bytes, const void *motion,
                   const void *residual, const void *weights, const void *biases, void *cue,
                   int height, int width)
{
    float *all = (float *)shared;
    const size_t floats = sizeof shared / sizeof(float), own = (shared_bytes + 3) / 4;
    int touched = 0;
    if (own + 4 * BEHIND > floats)
        return -1;
    for (int z = 0; z < deep; z++)
        for (int y = 0; y < down; y++)
            for (int x = 0; x < across; x++) {
                std::vector<std::thread> threads;
                for (size_t i = 0; i < floats; i++)
                    all[i] = std::numeric_limits<float>::quiet_NaN();
                turn = 0;
                for (int t = 0; t < THREADS; t++)
                    threads.emplace_back([=] {
                        threadIdx = {t, 0, 0}, blockIdx = {x, y, z};
                        wait_for_turn();
                        dense_generator((const held *)motion, (const held *)residual,
                                        (const float *)weights, (const float *)biases,
                                        (held *)cue, height, width);
                        pass_turn();
                    });
                for (auto &thread : threads)
                    thread.join();
                for (size_t i = own; i < floats; i++)
                    touched += all[i] == all[i];
            }
    return touched;
}
