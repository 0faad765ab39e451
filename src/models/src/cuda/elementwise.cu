// Element-wise operations that would otherwise be several passes over memory. All of them read and write bf16, eight
// values a thread, and compute in f32; widths are multiples of eight.

#include "warp.cuh"

struct Eight {
    float at[8];
};

DEVICE Eight load(const bf16* from) {
    const uint4 packed = *reinterpret_cast<const uint4*>(from);
    const unsigned words[4] = {packed.x, packed.y, packed.z, packed.w};
    Eight values;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        values.at[2 * i] = low_half(words[i]);
        values.at[2 * i + 1] = high_half(words[i]);
    }
    return values;
}

DEVICE void store(bf16* to, const Eight& values) {
    uint4 packed;
    packed.x = pack(values.at[0], values.at[1]);
    packed.y = pack(values.at[2], values.at[3]);
    packed.z = pack(values.at[4], values.at[5]);
    packed.w = pack(values.at[6], values.at[7]);
    *reinterpret_cast<uint4*>(to) = packed;
}

DEVICE float sigmoid(float x) { return 1.f / (1.f + exp2_fast(x * -1.44269504f)); }

DEVICE long long index() { return (long long)BLOCK_X * 256 + THREAD; }

// `[rows, 2 width]` to `[rows, width]`: SiLU of the first half of each row times its second half.
KERNEL(256) swiglu(const bf16* x, bf16* out, long long rows, int width) {
    const long long i = index() * 8;
    if (i >= rows * width) return;
    const bf16* const at = x + (i / width) * 2 * width + i % width;
    Eight gate = load(at);
    const Eight up = load(at + width);
#pragma unroll
    for (int j = 0; j < 8; j++) gate.at[j] = gate.at[j] * sigmoid(gate.at[j]) * up.at[j];
    store(out + i, gate);
}

// `y * sigmoid(1.702 y)` of `y = x + bias`, the bias by column.
KERNEL(256) bias_quick_gelu(const bf16* x, const bf16* bias, bf16* out, long long rows, int width) {
    const long long i = index() * 8;
    if (i >= rows * width) return;
    Eight values = load(x + i);
    const Eight added = load(bias + i % width);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        const float y = values.at[j] + added.at[j];
        values.at[j] = y * sigmoid(1.702f * y);
    }
    store(out + i, values);
}

// `residual + x + bias`, the bias by column.
KERNEL(256)
add_bias(const bf16* residual, const bf16* x, const bf16* bias, bf16* out, long long rows, int width) {
    const long long i = index() * 8;
    if (i >= rows * width) return;
    Eight values = load(residual + i);
    const Eight more = load(x + i);
    const Eight added = load(bias + i % width);
#pragma unroll
    for (int j = 0; j < 8; j++) values.at[j] += more.at[j] + added.at[j];
    store(out + i, values);
}

// Adds the bias to rows of heads and turns the first `turned` of the heads by angles that repeat every `positions`
// rows: components `i` and `i + head / 2` are a pair, whose cosine and sine stand in column `i`.
KERNEL(256)
bias_rotate(
    const bf16* x, const bf16* bias, const bf16* cosines, const bf16* sines, bf16* out, long long rows, int heads,
    int head, int turned, int positions) {
    const int half = head / 2, eights = half / 8;
    const long long i = index();
    if (i >= rows * heads * eights) return;
    const long long row = i / (heads * eights);
    const int which = (int)(i / eights % heads), pair = (int)(i % eights) * 8;
    const long long at = (row * heads + which) * head + pair;
    Eight low = load(x + at), high = load(x + at + half);
    const Eight low_bias = load(bias + which * head + pair), high_bias = load(bias + which * head + pair + half);
#pragma unroll
    for (int j = 0; j < 8; j++) {
        low.at[j] += low_bias.at[j];
        high.at[j] += high_bias.at[j];
    }
    if (which < turned) {
        const long long angle = row % positions * half + pair;
        const Eight c = load(cosines + angle), s = load(sines + angle);
#pragma unroll
        for (int j = 0; j < 8; j++) {
            const float l = low.at[j], h = high.at[j];
            low.at[j] = l * c.at[j] - h * s.at[j];
            high.at[j] = h * c.at[j] + l * s.at[j];
        }
    }
    store(out + at, low);
    store(out + at + half, high);
}

// The sum over a block of 128 threads, known to all of them.
DEVICE float block_sum(float x) {
    __shared__ float parts[4];
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
    synchronize();
    if (THREAD % 32 == 0) parts[THREAD / 32] = x;
    synchronize();
    return parts[0] + parts[1] + parts[2] + parts[3];
}

// Layer norm of a row of at most 4,096 values for each block, or RMS norm if there is no bias.
KERNEL(128)
normalise(const bf16* x, const bf16* weight, const bf16* bias, bf16* out, int width, float epsilon) {
    constexpr int MOST = 4;
    const long long row = (long long)BLOCK_X * width;
    Eight values[MOST];
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        const int at = (i * 128 + THREAD) * 8;
        if (at < width) {
            values[i] = load(x + row + at);
#pragma unroll
            for (int j = 0; j < 8; j++) sum += values[i].at[j];
        }
    }
    const float mean = bias ? block_sum(sum) / width : 0.f;
    float squares = 0.f;
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        if ((i * 128 + THREAD) * 8 < width) {
#pragma unroll
            for (int j = 0; j < 8; j++) {
                values[i].at[j] -= mean;
                squares += values[i].at[j] * values[i].at[j];
            }
        }
    }
    const float factor = rsqrtf(block_sum(squares) / width + epsilon);
#pragma unroll
    for (int i = 0; i < MOST; i++) {
        const int at = (i * 128 + THREAD) * 8;
        if (at < width) {
            const Eight scale = load(weight + at);
#pragma unroll
            for (int j = 0; j < 8; j++) values[i].at[j] *= factor * scale.at[j];
            if (bias) {
                const Eight shift = load(bias + at);
#pragma unroll
                for (int j = 0; j < 8; j++) values[i].at[j] += shift.at[j];
            }
            store(out + row + at, values[i]);
        }
    }
}
