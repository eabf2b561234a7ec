// Products with activations in 16 bits in plain C++: what the vector sets are tested against.
#include "kernels/linear_fine.h"

#include "kernels/scalar/product.h"

namespace temper::TEMPER_ISA {

namespace {

// Where the code of each input stands: words 1 and 2 of every quad have changed places.
constexpr int place_of(int input) { return input % 4 == 1 ? input + 1 : input % 4 == 2 ? input - 1 : input; }

struct Places {
    int at[kGroup];
    constexpr Places() : at{} {
        for (int i = 0; i < kGroup; ++i) at[i] = place_of(i);
    }
};
constexpr Places kPlaces;

}  // namespace

void quantize_fine(const float* x, int64_t k, FineGroup* out) {
    for (int64_t begin = 0; begin < k; begin += kGroup, ++out) {
        const Rounded group = round_group<32767>(x + begin, k - begin);
        for (int i = 0; i < kGroup; ++i) out->codes[place_of(i)] = static_cast<int16_t>(group.codes[i]);
        out->scale = group.scale;
        out->offset = group.scale * static_cast<float>(group.sum);
        out->neg_sum = -group.sum;
        out->neg_low_sum = -group.low_sum;
    }
}

void linear_fine(const PackedMatrix& w, const ActivationRows& x, float* y, int64_t y_stride,
                 int64_t panel_begin, int64_t panel_end) {
    for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
        multiply_panel(w, x.fine, x.rows, y, y_stride, panel, kPlaces.at);
    }
}

}  // namespace temper::TEMPER_ISA
