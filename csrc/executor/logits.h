// What a step leaves for the sampler: the logits, and the largest of each part of their columns, which the
// head found while they were still in the cache. So the likeliest token costs no pass over the vocabulary.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

namespace temper {

struct Logits {
    const float* values;   // [rows][vocab_size]
    const float* tops;     // [rows][stride] the largest of each part, NaN passed over; else -inf
    const int64_t* edges;  // [num_parts + 1] columns where parts begin and end
    int64_t vocab_size;
    int64_t num_parts;
    int64_t stride;

    const float* row(int64_t r) const { return values + r * vocab_size; }

    float top(int64_t r) const {
        float found = -std::numeric_limits<float>::infinity();
        for (int64_t part = 0; part < num_parts; ++part) found = std::max(found, tops[r * stride + part]);
        return found;
    }

    // The first token whose logit is the row's largest; 0 where there is none but NaN.
    int32_t likeliest(int64_t r) const {
        const float most = top(r);
        for (int64_t part = 0; part < num_parts; ++part) {
            if (tops[r * stride + part] != most) continue;
            const float* end = row(r) + edges[part + 1];
            const float* found = std::find(row(r) + edges[part], end, most);
            if (found != end) return static_cast<int32_t>(found - row(r));
        }
        return 0;
    }
};

}  // namespace temper
