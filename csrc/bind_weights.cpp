// Packed weights and the linear kernels as Python sees them: for loading, tests and benchmarks. The
// forward pass itself does not come through here; the executor holds the same objects.
#include "bind_weights.h"

#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <time.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "kernels/kernel_set.h"
#include "pack.h"

namespace temper {

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Ids = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class Value>
nb::ndarray<nb::numpy, Value> new_array(std::vector<size_t> shape) {
    size_t size = 1;
    for (size_t extent : shape) size *= extent;
    auto* data = new Value[size]();
    nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<Value*>(p); });
    return nb::ndarray<nb::numpy, Value>(data, shape.size(), shape.data(), owner);
}

const KernelSet& require_kernel_set(const std::string& name) {
    const KernelSet* set = kernel_set(name.c_str());
    if (set == nullptr) throw nb::value_error(("this machine has no kernel set '" + name + "'").c_str());
    return *set;
}

void require_width(const PackedMatrix& w, int64_t k) {
    if (k != w.k) {
        throw nb::value_error(("activations have " + std::to_string(k) + " columns, the weight takes " +
                               std::to_string(w.k) + " inputs")
                                  .c_str());
    }
}

int64_t num_row_tiles(int64_t rows) { return (rows + kRowTile - 1) / kRowTile; }

size_t tile_words(int64_t rows, int64_t k) {
    return static_cast<size_t>(num_row_tiles(rows) * kRowTile * activation_groups(k) * kGroup);
}

// Tiles [begin, end) of the rows.
void pack_tiles(const KernelSet& kernels, const float* x, int64_t rows, int64_t k, int64_t begin, int64_t end,
                uint16_t* tiles) {
    for (int64_t tile = begin; tile < end; ++tile) {
        kernels.pack_bf16(x + tile * kRowTile * k, k, 0, std::min(kRowTile, rows - tile * kRowTile), k,
                          tiles + tile * kRowTile * activation_groups(k) * kGroup);
    }
}

enum class Arithmetic { int8, int16, bf16 };

// What a matrix is multiplied in where the caller asks for `name`; float ones ask for nothing.
Arithmetic arithmetic_of(const PackedMatrix& w, const std::string& name) {
    const bool bf16 = name == "bf16", int16 = name == "int16";
    if (name != "int8" && !int16 && !bf16) {
        throw nb::value_error(("arithmetic must be int8, int16 or bf16; got '" + name + "'").c_str());
    }
    if (w.in_tiles) return Arithmetic::bf16;
    if (is_float(w.format)) return Arithmetic::int8;
    return bf16 ? Arithmetic::bf16 : int16 ? Arithmetic::int16 : Arithmetic::int8;
}

// Panels [from, to).
void multiply(const KernelSet& kernels, Arithmetic arithmetic, const PackedMatrix& w, const ActivationRows& x,
              float* y, int64_t from, int64_t to, Sweep sweep) {
    switch (arithmetic) {
        case Arithmetic::int8:
            return kernels.linear(w, x, y, w.n, from, to, sweep);
        case Arithmetic::int16:
            return kernels.linear_fine(w, x, y, w.n, from, to);
        case Arithmetic::bf16:
            return kernels.linear_bf16(w, x, y, w.n, from, to);
    }
}

constexpr const char* kFormatNames[kNumFormats] = {"f32", "f16", "bf16", "q8",  "q4", "q4m",
                                                   "q5",  "q5m", "q4k",  "q5k", "q6k"};
constexpr const char* kSweepNames[kSweeps] = {"direct", "panel", "pair"};

// The sweep of that name; what the set takes by itself for so many rows where it is "auto".
Sweep sweep_named(const std::string& name, const KernelSet& kernels, int64_t num_rows) {
    if (name == "auto") return sweep_for(kernels.sweep_rows, num_rows);
    for (size_t i = 0; i < kSweeps; ++i)
        if (name == kSweepNames[i]) return static_cast<Sweep>(i);
    throw nb::value_error(("a sweep is auto, direct, panel or pair; got '" + name + "'").c_str());
}

// Activations in all forms, so that any weight can read them.
struct Activations {
    std::vector<ActivationGroup> groups;
    std::vector<FineGroup> fine;
    std::vector<uint16_t> tiles;
    ActivationRows rows;

    Activations(const KernelSet& kernels, const float* x, int64_t num_rows, int64_t k)
        : groups(static_cast<size_t>(num_rows * activation_groups(k))),
          fine(groups.size()),
          tiles(tile_words(num_rows, k)) {
        kernels.quantize_rows(x, k, num_rows, k, groups.data());
        for (int64_t r = 0; r < num_rows; ++r)
            kernels.quantize_fine(x + r * k, k, fine.data() + r * activation_groups(k));
        pack_tiles(kernels, x, num_rows, k, 0, num_row_tiles(num_rows), tiles.data());
        rows = {num_rows, k, x, k, groups.data(), fine.data(), tiles.data()};
    }
};

// Panels [0, panels) in `threads` even shares; this thread takes one of them.
template <class Work>
void share_panels(int64_t panels, int threads, const Work& work) {
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) {
        others.emplace_back([&, t] { work(panels * t / threads, panels * (t + 1) / threads); });
    }
    work(0, panels / threads);
    for (std::thread& other : others) other.join();
}

auto linear(const PackedWeight& weight, const Floats& x, const std::string& isa, int threads,
            const std::string& arithmetic, const std::string& sweep_name) {
    const KernelSet& kernels = require_kernel_set(isa);
    const PackedMatrix& w = weight.matrix();
    const auto num_rows = static_cast<int64_t>(x.shape(0));
    const auto k = static_cast<int64_t>(x.shape(1));
    require_width(w, k);
    if (threads < 1) throw nb::value_error("threads must be at least 1");
    const Arithmetic kind = arithmetic_of(w, arithmetic);
    const Sweep sweep = sweep_named(sweep_name, kernels, num_rows);
    auto y = new_array<float>({x.shape(0), static_cast<size_t>(w.n)});
    float* out = y.data();
    const float* in = x.data();
    {
        nb::gil_scoped_release release;
        const Activations activations(kernels, in, num_rows, k);
        share_panels(w.panels(), threads, [&](int64_t begin, int64_t end) {
            multiply(kernels, kind, w, activations.rows, out, begin, end, sweep);
        });
    }
    return y;
}

auto quantize_activations(const Floats& x, const std::string& isa) {
    const KernelSet& kernels = require_kernel_set(isa);
    const size_t num_rows = x.shape(0);
    const auto k = static_cast<int64_t>(x.shape(1));
    const auto num_groups = static_cast<size_t>(activation_groups(k));
    const Activations activations(kernels, x.data(), static_cast<int64_t>(num_rows), k);
    auto codes = new_array<int8_t>({num_rows, num_groups * kGroup});
    auto scales = new_array<float>({num_rows, num_groups});
    auto offsets = new_array<float>({num_rows, num_groups});
    auto sums = new_array<int32_t>({num_rows, num_groups, 2});  // of the lower and upper 16 codes
    for (size_t i = 0; i < num_rows * num_groups; ++i) {
        const ActivationGroup& group = activations.groups[i];
        std::copy(group.codes, group.codes + kGroup, codes.data() + i * kGroup);
        scales.data()[i] = group.scale;
        offsets.data()[i] = group.offset;
        sums.data()[2 * i] = -group.neg_low_sum;
        sums.data()[2 * i + 1] = group.neg_low_sum - group.neg_sum;
    }
    return nb::make_tuple(codes, scales, offsets, sums);
}

// Seconds now: of this thread's own time where it is alone, so that other work on the machine counts little.
double seconds_now(int threads) {
    timespec now{};
    clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Seconds of each of `repeats` passes over all weights, in order, preparation of the rows included. All
// threads meet after each weight, as they do in a step.
std::vector<double> time_linear(const std::vector<const PackedWeight*>& weights, int64_t num_rows,
                                const std::string& isa, int threads, int repeats,
                                const std::string& arithmetic, const std::string& sweep_name,
                                int64_t most_bytes) {
    const KernelSet& kernels = require_kernel_set(isa);
    const Sweep sweep = sweep_named(sweep_name, kernels, num_rows);
    if (threads < 1 || num_rows < 1) throw nb::value_error("threads and rows must be at least 1");
    for (const PackedWeight* weight : weights) arithmetic_of(weight->matrix(), arithmetic);
    nb::gil_scoped_release release;
    int64_t max_k = 0;
    int64_t max_n = 0;
    for (const PackedWeight* weight : weights) {
        max_k = std::max(max_k, weight->matrix().k);
        max_n = std::max(max_n, weight->matrix().n);
    }
    std::vector<float> x(static_cast<size_t>(num_rows * max_k));
    uint32_t state = 1;
    for (float& value : x) {
        state = state * 1664525u + 1013904223u;
        value = static_cast<float>(static_cast<int32_t>(state)) * 0x1p-31f;
    }
    std::vector<float> y(static_cast<size_t>(num_rows * max_n));
    std::vector<ActivationGroup> groups(static_cast<size_t>(num_rows * activation_groups(max_k)));
    std::vector<FineGroup> fine(groups.size());
    std::vector<uint16_t> tiles(tile_words(num_rows, max_k));
    std::vector<double> seconds;
    std::atomic<int64_t> arrived{0};
    const auto meet = [&](int64_t& target) {
        target += threads;
        arrived.fetch_add(1);
        for (int spins = 0; arrived.load() < target; ++spins) {
            if (spins > 2000) std::this_thread::yield();
        }
    };
    const auto worker = [&](int index) {
        int64_t target = 0;
        for (int repeat = 0; repeat < repeats; ++repeat) {
            meet(target);
            const double begin = seconds_now(threads);
            int64_t left = most_bytes;
            for (const PackedWeight* weight : weights) {
                const PackedMatrix& w = weight->matrix();
                const Arithmetic kind = arithmetic_of(w, arithmetic);
                if (kind == Arithmetic::bf16) {
                    const int64_t all = num_row_tiles(num_rows);
                    pack_tiles(kernels, x.data(), num_rows, w.k, all * index / threads,
                               all * (index + 1) / threads, tiles.data());
                    meet(target);
                } else if (!is_float(w.format)) {
                    const int64_t first = num_rows * index / threads;
                    const int64_t count = num_rows * (index + 1) / threads - first;
                    if (kind == Arithmetic::int8)
                        kernels.quantize_rows(x.data() + first * w.k, w.k, count, w.k,
                                              groups.data() + first * activation_groups(w.k));
                    for (int64_t r = first; kind == Arithmetic::int16 && r < first + count; ++r)
                        kernels.quantize_fine(x.data() + r * w.k, w.k,
                                              fine.data() + r * activation_groups(w.k));
                    meet(target);
                }
                const ActivationRows rows{num_rows,      w.k,         x.data(),    w.k,
                                          groups.data(), fine.data(), tiles.data()};
                // The first panels alone where all of them are more than is asked for.
                const int64_t panels = std::min(w.panels(), left / w.panel_bytes + 1);
                left -= panels * w.panel_bytes;
                const int64_t from = panels * index / threads, to = panels * (index + 1) / threads;
                multiply(kernels, kind, w, rows, y.data(), from, to, sweep);
                meet(target);
                if (left <= 0) break;
            }
            if (index == 0) seconds.push_back(seconds_now(threads) - begin);
        }
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t) others.emplace_back(worker, t);
    worker(0);
    for (std::thread& other : others) other.join();
    return seconds;
}

}  // namespace

void bind_weights(nb::module_& m) {
    nb::class_<PackedWeight>(m, "PackedWeight")
        .def(
            "__init__",
            [](PackedWeight* self, const std::string& format, const Bytes& data, int64_t n, int64_t k,
               bool in_tiles) {
                const StoredFormat& stored = stored_format(format);
                const uint8_t* bytes = data.data();
                const auto size = static_cast<int64_t>(data.size());
                nb::gil_scoped_release release;
                new (self) PackedWeight(stored, bytes, size, n, k, in_tiles);
            },
            "format"_a, "data"_a, "n"_a, "k"_a, "in_tiles"_a = false,
            "Pack n rows of k elements, stored as a file holds them (uint8); what is stored in bf16 in "
            "tiles, "
            "for products in bf16, where that is asked for. Releases the GIL.")
        .def_prop_ro("n", [](const PackedWeight& w) { return w.matrix().n; })
        .def_prop_ro("k", [](const PackedWeight& w) { return w.matrix().k; })
        .def_prop_ro("num_bytes", &PackedWeight::bytes)
        .def_prop_ro(
            "format",
            [](const PackedWeight& w) { return kFormatNames[static_cast<size_t>(w.matrix().format)]; })
        .def_prop_ro("quantized", [](const PackedWeight& w) { return !is_float(w.matrix().format); })
        .def_prop_ro("in_tiles", [](const PackedWeight& w) { return w.matrix().in_tiles; })
        .def(
            "lookup",
            [](const PackedWeight& self, const Ids& ids) {
                const auto k = static_cast<size_t>(self.matrix().k);
                auto out = new_array<float>({ids.size(), k});
                lookup_rows(self.matrix(), ids.data(), static_cast<int64_t>(ids.size()), out.data(),
                            self.matrix().k);
                return out;
            },
            "ids"_a, "Rows as float32 [len(ids), k]. IndexError for an id outside [0, n).");
    m.def(
        "convert_weights",
        [](const std::string& from, const Bytes& data, int64_t n, int64_t k, const std::string& to) {
            const StoredFormat& source = stored_format(from);
            const StoredFormat& target = stored_format(to);
            const uint8_t* bytes = data.data();
            const auto size = static_cast<int64_t>(data.size());
            auto out = new std::vector<uint8_t>();
            nb::capsule owner(out, [](void* p) noexcept { delete static_cast<std::vector<uint8_t>*>(p); });
            {
                nb::gil_scoped_release release;
                *out = convert(source, bytes, size, n, k, target);
            }
            return nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>>(out->data(), {out->size()}, owner);
        },
        "format"_a, "data"_a, "n"_a, "k"_a, "to"_a,
        "The same matrix in the grid of `to` (bf16, q8_0, q4_1). Releases the GIL.");
    m.def(
        "kernel_sets",
        [] {
            std::vector<std::string> names;
            for (const char* name : {"amx", "avx512", "avx2", "scalar"}) {
                if (kernel_set(name) != nullptr) names.emplace_back(name);
            }
            return names;
        },
        "Names of the kernel sets that run on this machine, widest first.");
    m.def("linear", &linear, "weight"_a, "x"_a, "isa"_a, "threads"_a = 1, "arithmetic"_a = "int8",
          "sweep"_a = "auto", "x [rows, k] times the weight, float32 [rows, n].");
    m.def(
        "sweep_rows",
        [](const std::string& isa) {
            const int64_t* rows = require_kernel_set(isa).sweep_rows;
            return std::pair<int64_t, int64_t>(rows[1], rows[2]);
        },
        "isa"_a,
        "Rows from which on a kernel set takes sweeps of a panel and of a pair, NEVER where it has none.");
    m.attr("NEVER") = kNoRows;
    m.def("quantize_activations", &quantize_activations, "x"_a, "isa"_a,
          "codes [rows, k'], scales and offsets [rows, k'/32], sums [rows, k'/32, 2]; k' = k padded to 32.");
    m.def("time_linear", &time_linear, "weights"_a, "rows"_a, "isa"_a, "threads"_a, "repeats"_a,
          "arithmetic"_a = "int8", "sweep"_a = "auto", "most_bytes"_a = INT64_MAX,
          "Seconds of each pass of `rows` rows through all weights, or through the first `most_bytes` of "
          "them; with "
          "one thread, of its own time.");
}

}  // namespace temper
