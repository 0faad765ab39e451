// The instructions that the kernels of this folder are made of.
#pragma once

typedef unsigned short bf16;

#define DEVICE __device__ __forceinline__
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)
#define THREAD ((int)threadIdx.x)
#define BLOCK_X ((int)blockIdx.x)
#define BLOCK_Y ((int)blockIdx.y)
#define BLOCK_Z ((int)blockIdx.z)
#define GRID_X ((int)gridDim.x)
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif

DEVICE bf16* shared_memory() {
    extern __shared__ uint4 shared[];
    return reinterpret_cast<bf16*>(shared);
}

DEVICE unsigned shared_address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

// 16 bytes from global to shared memory in the background; zeros if not `inside`.
DEVICE void copy_async(bf16* to, const bf16* from, bool inside) {
    const int bytes = inside ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
}

DEVICE void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Until at most `PENDING` of this thread's groups of copies are under way.
template <int PENDING>
DEVICE void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

DEVICE void synchronize() { __syncthreads(); }

DEVICE void synchronize_warp() { __syncwarp(); }

DEVICE float shuffle_xor(float x, int mask) { return __shfl_xor_sync(0xffffffffu, x, mask); }

// Whether it holds for any lane.
DEVICE bool any_lane(bool x) { return __any_sync(0xffffffffu, x); }

DEVICE float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Four 8 x 8 matrices, of which lanes 0-7, 8-15, 16-23 and 24-31 give the rows' addresses; each thread receives two
// neighbours of row `lane / 4` of each.
DEVICE void load_matrices(unsigned (&to)[4], const bf16* from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(from))
                 : "memory");
}

// The same, each matrix transposed.
DEVICE void load_matrices_transposed(unsigned (&to)[4], const bf16* from) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(from))
                 : "memory");
}

// sum += left (16 x 16) * right (16 x 8).
DEVICE void multiply(float (&sum)[4], const unsigned (&left)[4], unsigned right0, unsigned right1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right0), "r"(right1));
}

// Two values as bf16, the first in the lower half.
DEVICE unsigned pack(float low, float high) {
    unsigned packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}

DEVICE float low_half(unsigned packed) { return __uint_as_float(packed << 16); }

DEVICE float high_half(unsigned packed) { return __uint_as_float(packed & 0xffff0000u); }
