// Small operations on one row of activations, and the sampler's passes over one row of logits.
//
// Versions: 1. portable 16-lane code compiled per ISA (rows.inc). 2. collect compresses lanes with
// AVX-512: 965 of 49,152 weights in 4.3 us instead of 45.
#pragma once

#include "kernels/kernel_set.h"

namespace temper::TEMPER_ISA {

// y = x / sqrt(mean(x^2) + eps) * w over n elements. y may be x.
void rms_norm(const float* x, const float* w, int64_t n, float eps, float* y);

// y = gate / (1 + e^-gate) * up.
void silu_mul(const float* gate, const float* up, int64_t n, float* y);

// y = a + b. y may be a or b.
void add(const float* a, const float* b, int64_t n, float* y);

// Rotate `heads` heads of head_dim elements by the angles whose cosines and sines [head_dim / 2] are
// given. y may not be x.
void rotate(const float* x, const float* cos, const float* sin, int64_t heads, int64_t head_dim,
            bool interleaved, float* y);

// One token's keys and values [kv_heads * head_dim] into place `place` of a page, as f16 or f32. Keys
// lie [kv_head][dim][token], so that 16 tokens' scores are one vector; values [kv_head][token][dim].
void kv_store(const float* k, const float* v, int64_t kv_heads, int64_t head_dim, int64_t block_tokens,
              int64_t place, bool half, void* k_page, void* v_page);

// Largest of n numbers, NaN aside; -inf where there is none.
float max_value(const float* z, int64_t n);

// w[i] = exp((z[i] - top) * inverse_temperature), and the sum of the integer masses w * 2^40 of each
// block of kMassBlock. Returns their total.
int64_t masses(const float* z, int64_t n, float top, float inverse_temperature, float* w,
               int64_t* block_mass);

// ids of the w[i] >= threshold, ascending, at most `capacity` of them; returns how many there are.
int64_t collect(const float* w, int64_t n, float threshold, int32_t* ids, int64_t capacity);

}  // namespace temper::TEMPER_ISA
