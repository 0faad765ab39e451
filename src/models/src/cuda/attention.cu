// Softmax attention over a shared past and a row's own tokens, without storing the scores.
//
// The algorithm is that of Dao, "FlashAttention-2" (arXiv 2307.08691): keys and values pass through shared memory in
// tiles, each warp keeps its queries' running maximum, sum and weighted values in registers. Products run on the
// tensor cores (m16n8k16, bf16 in, f32 out), available since compute capability 8.0.
//
// The query heads of a group share their keys: a block works on one key-value head, and its rows are the tokens of
// all heads of the group, heads innermost.

#include "warp.cuh"

// Keys and values of a stretch of tokens; strides in elements.
struct Segment {
    const bf16* keys;
    const bf16* values;
    long long row;
    long long token;
    long long head;
};

// The layout is that of `Arguments` in attention.rs.
struct Arguments {
    const bf16* queries;
    long long query_row, query_token, query_head;
    bf16* out;
    long long out_row, out_token, out_head;
    Segment past, own;
    // First own token that counts, and the one after the last, by row; null for 0 and `own_length`.
    const unsigned* own_starts;
    const unsigned* own_ends;
    int past_length, own_length;
    // Query tokens of a row, and query heads for each key-value head.
    int tokens, group;
    // Whether a query sees, of its own row, only what does not come after it. The last query is own token
    // `own_length - 1`.
    int causal;
    // Factor on the scores, times log2(e).
    float scale;
};

static constexpr float MASKED = -INFINITY;

// `count` rows of HEAD elements into shared memory rows of PITCH; rows from `limit` on become zero.
template <int HEAD, int PITCH, int COUNT, int THREADS>
DEVICE void load_rows(bf16* to, const bf16* from, long long stride, int first, int limit, int thread) {
    constexpr int CHUNKS = HEAD / 8;
#pragma unroll
    for (int c = thread; c < COUNT * CHUNKS; c += THREADS) {
        const int row = c / CHUNKS, column = (c % CHUNKS) * 8;
        const bool inside = first + row < limit;
        copy_async(to + row * PITCH + column, from + (inside ? first + row : 0) * stride + column, inside);
    }
}

// Which keys a tile holds.
struct Tile {
    const bf16* keys;
    const bf16* values;
    long long stride;
    int first, limit;
    bool own;
};

// What a block sees: the past's tiles, then its own row's.
template <int SIZE>
struct Keys {
    Segment past, own;
    int past_length, own_length, past_tiles, tiles;
    // Added to a query's token, the last own key that it sees.
    int ahead;

    DEVICE Keys(const Arguments& a, int row, int kv, int last_token) {
        past = a.past;
        own = a.own;
        past.keys += row * past.row + kv * past.head;
        past.values += row * past.row + kv * past.head;
        const int start = a.own_starts ? (int)a.own_starts[row] : 0;
        own.keys += row * own.row + start * own.token + kv * own.head;
        own.values += row * own.row + start * own.token + kv * own.head;
        past_length = a.past_length;
        own_length = (a.own_ends ? (int)a.own_ends[row] : a.own_length) - start;
        ahead = a.own_length - a.tokens - start;
        const int seen = a.causal ? min(own_length, last_token + 1 + ahead) : own_length;
        past_tiles = (past_length + SIZE - 1) / SIZE;
        tiles = past_tiles + (seen + SIZE - 1) / SIZE;
    }

    DEVICE Tile tile(int index) const {
        if (index < past_tiles) {
            return {past.keys, past.values, past.token, index * SIZE, past_length, false};
        }
        return {own.keys, own.values, own.token, (index - past_tiles) * SIZE, own_length, true};
    }
};

// Hides what a query (token `token` of its row) must not see of a tile. `column` is that of the first of four scores:
// two neighbours of one row, then two of the row eight below.
DEVICE float masked(float score, int key, int limit, bool causal, int last) {
    return key >= limit || (causal && key > last) ? MASKED : score;
}

// Running state of softmax for 16 rows: each thread holds rows `lane / 4` and `lane / 4 + 8`.
template <int HEAD>
struct Running {
    float out[HEAD / 8][4];
    float largest[2];
    float sum[2];

    DEVICE void clear() {
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[n][i] = 0.f;
        }
        largest[0] = largest[1] = MASKED;
        sum[0] = sum[1] = 0.f;
    }

    // Turns a tile's scores into weights and rescales what was gathered before.
    template <int TILES>
    DEVICE void update(float (&scores)[TILES][4], float scale) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float top = largest[half];
#pragma unroll
            for (int n = 0; n < TILES; n++) {
                top = fmaxf(top, fmaxf(scores[n][2 * half], scores[n][2 * half + 1]));
            }
            top = fmaxf(top, shuffle_xor(top, 1));
            top = fmaxf(top, shuffle_xor(top, 2));
            // A row that has seen nothing yet stays at zero instead of becoming NaN.
            const float base = top == MASKED ? 0.f : top * scale;
            const bool grown = top != largest[half];
            const float shrink = exp2_fast(largest[half] * scale - base);
            largest[half] = top;
            float added = 0.f;
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    scores[n][i] = exp2_fast(scores[n][i] * scale - base);
                    added += scores[n][i];
                }
            }
            sum[half] = sum[half] * shrink + added;
            // After some tiles the largest score has been seen, and nothing changes any more.
            if (any_lane(grown)) {
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++) {
                    out[n][2 * half] *= shrink;
                    out[n][2 * half + 1] *= shrink;
                }
            }
        }
    }

    // Sums were kept by thread; a row lies in four of them.
    DEVICE float whole_sum(int half) const {
        float total = sum[half];
        total += shuffle_xor(total, 1);
        total += shuffle_xor(total, 2);
        return total;
    }
};

// The weights of 16 keys as the left operand of a product: scores of two neighbouring tiles of 8 keys.
DEVICE void as_operand(unsigned (&operand)[4], const float (&low)[4], const float (&high)[4]) {
    operand[0] = pack(low[0], low[1]);
    operand[1] = pack(low[2], low[3]);
    operand[2] = pack(high[0], high[1]);
    operand[3] = pack(high[2], high[3]);
}

// Many queries: ROWS of them in a block, 32 to a warp, which share tiles of 64 keys.
template <int HEAD, int ROWS>
DEVICE void attend_many(const Arguments& a, bf16* shared) {
    constexpr int SIZE = 64, PITCH = HEAD + 8, THREADS = ROWS, STEPS = HEAD / 16;
    // Where registers suffice, queries stay in them.
    constexpr bool HELD = HEAD <= 80;
    bf16* const queries = shared;
    bf16* const keys = queries + ROWS * PITCH;
    bf16* const values = keys + 2 * SIZE * PITCH;
    const int thread = THREAD, warp = thread / 32, lane = thread % 32;
    // The last tiles see most: they start first.
    const int first = (GRID_X - 1 - BLOCK_X) * ROWS, kv = BLOCK_Y, row = BLOCK_Z;
    const int rows = a.tokens * a.group;

    constexpr int CHUNKS = HEAD / 8;
    const bf16* const source = a.queries + row * a.query_row + (long long)kv * a.group * a.query_head;
    for (int c = thread; c < ROWS * CHUNKS; c += THREADS) {
        const int r = c / CHUNKS, column = (c % CHUNKS) * 8;
        const int index = first + r < rows ? first + r : 0;
        const bf16* from =
            source + (index / a.group) * a.query_token + (index % a.group) * a.query_head + column;
        copy_async(queries + r * PITCH + column, from, first + r < rows);
    }
    const Keys<SIZE> sequence(a, row, kv, (min(first + ROWS, rows) - 1) / a.group);
    auto load = [&](int index) {
        const Tile tile = sequence.tile(index);
        const int at = (index % 2) * SIZE * PITCH;
        load_rows<HEAD, PITCH, SIZE, THREADS>(keys + at, tile.keys, tile.stride, tile.first, tile.limit, thread);
        load_rows<HEAD, PITCH, SIZE, THREADS>(
            values + at, tile.values, tile.stride, tile.first, tile.limit, thread);
        commit();
    };
    load(0);

    Running<HEAD> state[2];
    state[0].clear();
    state[1].clear();
    // Last own key that each of the thread's four rows sees, if causal.
    int last[2][2];
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            last[m][half] = (first + warp * 32 + m * 16 + half * 8 + lane / 4) / a.group + sequence.ahead;
        }
    }
    const int first_last = first / a.group + sequence.ahead;
    // Which of four 8 x 8 matrices, and which of its rows, this thread addresses for `load_matrices`.
    const int matrix = lane / 8, inner = lane % 8;
    const bf16* const query_at =
        queries + (warp * 32 + (matrix % 2) * 8 + inner) * PITCH + (matrix / 2) * 8;
    const int key_at = ((matrix / 2) * 8 + inner) * PITCH + (matrix % 2) * 8;
    const int value_at = ((matrix % 2) * 8 + inner) * PITCH + (matrix / 2) * 8;

    unsigned held[HELD ? STEPS : 1][2][4];
    for (int t = 0; t < sequence.tiles; t++) {
        wait<0>();
        // This tile is here for all, and all are done with the one before, whose place the next one takes.
        synchronize();
        if (t + 1 < sequence.tiles) load(t + 1);
        if (HELD && t == 0) {
#pragma unroll
            for (int k = 0; k < STEPS; k++) {
                load_matrices(held[HELD ? k : 0][0], query_at + k * 16);
                load_matrices(held[HELD ? k : 0][1], query_at + 16 * PITCH + k * 16);
            }
        }
        const bf16* const tile_keys = keys + (t % 2) * SIZE * PITCH + key_at;
        const bf16* const tile_values = values + (t % 2) * SIZE * PITCH + value_at;
        float scores[2][SIZE / 8][4];
#pragma unroll
        for (int m = 0; m < 2; m++) {
#pragma unroll
            for (int n = 0; n < SIZE / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) scores[m][n][i] = 0.f;
            }
        }
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            unsigned (&left)[2][4] = held[HELD ? k : 0];
            if (!HELD) {
                load_matrices(left[0], query_at + k * 16);
                load_matrices(left[1], query_at + 16 * PITCH + k * 16);
            }
#pragma unroll
            for (int n = 0; n < SIZE / 16; n++) {
                unsigned right[4];
                load_matrices(right, tile_keys + n * 16 * PITCH + k * 16);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply(scores[m][2 * n], left[m], right[0], right[1]);
                    multiply(scores[m][2 * n + 1], left[m], right[2], right[3]);
                }
            }
        }
        const Tile tile = sequence.tile(t);
        const bool causal = tile.own && a.causal;
        if (tile.first + SIZE > tile.limit || (causal && tile.first + SIZE - 1 > first_last)) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
#pragma unroll
                for (int n = 0; n < SIZE / 8; n++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        const int key = tile.first + n * 8 + (lane % 4) * 2 + i % 2;
                        scores[m][n][i] = masked(scores[m][n][i], key, tile.limit, causal, last[m][i / 2]);
                    }
                }
            }
        }
        state[0].update(scores[0], a.scale);
        state[1].update(scores[1], a.scale);
#pragma unroll
        for (int k = 0; k < SIZE / 16; k++) {
            unsigned left[2][4];
            as_operand(left[0], scores[0][2 * k], scores[0][2 * k + 1]);
            as_operand(left[1], scores[1][2 * k], scores[1][2 * k + 1]);
#pragma unroll
            for (int n = 0; n < STEPS; n++) {
                unsigned right[4];
                load_matrices_transposed(right, tile_values + k * 16 * PITCH + n * 16);
#pragma unroll
                for (int m = 0; m < 2; m++) {
                    multiply(state[m].out[2 * n], left[m], right[0], right[1]);
                    multiply(state[m].out[2 * n + 1], left[m], right[2], right[3]);
                }
            }
        }
    }

    bf16* const to = a.out + row * a.out_row + (long long)kv * a.group * a.out_head + (lane % 4) * 2;
#pragma unroll
    for (int m = 0; m < 2; m++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float factor = 1.f / state[m].whole_sum(half);
            const int index = first + warp * 32 + m * 16 + half * 8 + lane / 4;
            if (index < rows) {
                bf16* const line = to + (index / a.group) * a.out_token + (index % a.group) * a.out_head;
#pragma unroll
                for (int n = 0; n < HEAD / 8; n++) {
                    const float* pair = &state[m].out[n][2 * half];
                    *reinterpret_cast<unsigned*>(line + n * 8) = pack(pair[0] * factor, pair[1] * factor);
                }
            }
        }
    }
}

// At most 16 queries, as in decoding: the warps of a block share them and take turns with tiles of 16 keys, each with
// copies of its own in flight, so that memory is read as fast as it can be.
template <int HEAD>
DEVICE void attend_few(const Arguments& a, bf16* shared) {
    constexpr int SIZE = 16, PITCH = HEAD + 8, WARPS = 4, STAGES = 3, STEPS = HEAD / 16;
    const int thread = THREAD, warp = thread / 32, lane = thread % 32;
    const int kv = BLOCK_Y, row = BLOCK_Z, rows = a.tokens * a.group;
    bf16* const queries = shared;
    bf16* const tiles = queries + 16 * PITCH + warp * STAGES * 2 * SIZE * PITCH;

    constexpr int CHUNKS = HEAD / 8;
    const bf16* const source = a.queries + row * a.query_row + (long long)kv * a.group * a.query_head;
    for (int c = thread; c < 16 * CHUNKS; c += 32 * WARPS) {
        const int r = c / CHUNKS, column = (c % CHUNKS) * 8, index = r < rows ? r : 0;
        const bf16* from =
            source + (index / a.group) * a.query_token + (index % a.group) * a.query_head + column;
        copy_async(queries + r * PITCH + column, from, r < rows);
    }
    commit();
    wait<0>();
    synchronize();

    const Keys<SIZE> sequence(a, row, kv, a.tokens - 1);
    // Commits even when there is nothing to load, so that waiting counts stages.
    auto load = [&](int index, int stage) {
        if (index < sequence.tiles) {
            const Tile tile = sequence.tile(index);
            bf16* const at = tiles + stage * 2 * SIZE * PITCH;
            load_rows<HEAD, PITCH, SIZE, 32>(at, tile.keys, tile.stride, tile.first, tile.limit, lane);
            load_rows<HEAD, PITCH, SIZE, 32>(
                at + SIZE * PITCH, tile.values, tile.stride, tile.first, tile.limit, lane);
        }
        commit();
    };
    const int matrix = lane / 8, inner = lane % 8;
    const int query_at = ((matrix % 2) * 8 + inner) * PITCH + (matrix / 2) * 8;
    const int key_at = ((matrix / 2) * 8 + inner) * PITCH + (matrix % 2) * 8;
    unsigned left[STEPS][4];
#pragma unroll
    for (int k = 0; k < STEPS; k++) load_matrices(left[k], queries + query_at + k * 16);
    Running<HEAD> state;
    state.clear();
    int last[2];
    last[0] = (lane / 4) / a.group + sequence.ahead;
    last[1] = (lane / 4 + 8) / a.group + sequence.ahead;

    for (int stage = 0; stage < STAGES - 1; stage++) load(warp + stage * WARPS, stage);
    int stage = 0;
    for (int t = warp; t < sequence.tiles; t += WARPS) {
        wait<STAGES - 2>();
        synchronize_warp();
        load(t + (STAGES - 1) * WARPS, (stage + STAGES - 1) % STAGES);
        const bf16* const keys = tiles + stage * 2 * SIZE * PITCH;
        const bf16* const values = keys + SIZE * PITCH;
        stage = (stage + 1) % STAGES;
        float scores[2][4];
#pragma unroll
        for (int i = 0; i < 4; i++) scores[0][i] = scores[1][i] = 0.f;
#pragma unroll
        for (int k = 0; k < STEPS; k++) {
            unsigned right[4];
            load_matrices(right, keys + key_at + k * 16);
            multiply(scores[0], left[k], right[0], right[1]);
            multiply(scores[1], left[k], right[2], right[3]);
        }
        const Tile tile = sequence.tile(t);
        const bool causal = tile.own && a.causal;
#pragma unroll
        for (int n = 0; n < 2; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int key = tile.first + n * 8 + (lane % 4) * 2 + i % 2;
                scores[n][i] = masked(scores[n][i], key, tile.limit, causal, last[i / 2]);
            }
        }
        state.update(scores, a.scale);
        unsigned weights[4];
        as_operand(weights, scores[0], scores[1]);
#pragma unroll
        for (int n = 0; n < STEPS; n++) {
            unsigned right[4];
            load_matrices_transposed(right, values + query_at + n * 16);
            multiply(state.out[2 * n], weights, right[0], right[1]);
            multiply(state.out[2 * n + 1], weights, right[2], right[3]);
        }
        // The next round's copies overwrite what a slower lane may still read.
        synchronize_warp();
    }
    wait<0>();
    synchronize();

    // What each warp gathered, with its maximum and sum in front, for all to add up.
    constexpr int LINE = HEAD + 2;
    float* const gathered = reinterpret_cast<float*>(shared);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float sum = state.whole_sum(half);
        float* const line = gathered + (warp * 16 + half * 8 + lane / 4) * LINE;
        if (lane % 4 == 0) {
            line[0] = state.largest[half];
            line[1] = sum;
        }
#pragma unroll
        for (int n = 0; n < HEAD / 8; n++) {
            line[2 + n * 8 + (lane % 4) * 2] = state.out[n][2 * half];
            line[3 + n * 8 + (lane % 4) * 2] = state.out[n][2 * half + 1];
        }
    }
    synchronize();
    bf16* const to = a.out + row * a.out_row + (long long)kv * a.group * a.out_head;
    for (int c = thread; c < rows * (HEAD / 2); c += 32 * WARPS) {
        const int r = c / (HEAD / 2), column = (c % (HEAD / 2)) * 2;
        float top = MASKED;
        for (int w = 0; w < WARPS; w++) top = fmaxf(top, gathered[(w * 16 + r) * LINE]);
        float sum = 0.f, low = 0.f, high = 0.f;
        for (int w = 0; w < WARPS; w++) {
            const float* line = gathered + (w * 16 + r) * LINE;
            const float share = exp2_fast((line[0] - top) * a.scale);
            sum += share * line[1];
            low += share * line[2 + column];
            high += share * line[3 + column];
        }
        bf16* const line = to + (r / a.group) * a.out_token + (r % a.group) * a.out_head;
        *reinterpret_cast<unsigned*>(line + column) = pack(low / sum, high / sum);
    }
}

KERNEL(128) attend_many_64(Arguments a) { attend_many<64, 128>(a, shared_memory()); }
KERNEL(128) attend_many_80(Arguments a) { attend_many<80, 128>(a, shared_memory()); }
KERNEL(128) attend_many_128(Arguments a) { attend_many<128, 128>(a, shared_memory()); }
KERNEL(128) attend_few_64(Arguments a) { attend_few<64>(a, shared_memory()); }
KERNEL(128) attend_few_80(Arguments a) { attend_few<80>(a, shared_memory()); }
KERNEL(128) attend_few_128(Arguments a) { attend_few<128>(a, shared_memory()); }
