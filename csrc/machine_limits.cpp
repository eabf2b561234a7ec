// What this machine can move and compute: the limits that the figures of a run are held against.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "kernels/kernel_set.h"

namespace nb = nanobind;

namespace {

// Sums 64-byte lines; the sum is kept so that the loads cannot be dropped.
__attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t read_lines(const uint64_t* data,
                                                                                 size_t words) {
    uint64_t lanes[32] = {};
    for (size_t i = 0; i + 32 <= words; i += 32)
        for (int j = 0; j < 32; ++j) lanes[j] += data[i + j];
    uint64_t sum = 0;
    for (uint64_t lane : lanes) sum += lane;
    return sum;
}

// Bytes per second that `threads` threads read together from a buffer of `bytes`, best of `rounds`.
double read_bandwidth(size_t bytes, int threads, int rounds) {
    if (bytes < (1u << 16) || threads < 1 || rounds < 1)
        throw std::invalid_argument("read_bandwidth needs bytes >= 65536, threads >= 1 and rounds >= 1");
    nb::gil_scoped_release unlocked;
    const size_t words = bytes / 8 / static_cast<size_t>(threads);
    std::vector<uint64_t> buffer(words * static_cast<size_t>(threads), 1);
    volatile uint64_t kept = 0;
    double best = 0;
    for (int round = 0; round < rounds; ++round) {
        const auto start = std::chrono::steady_clock::now();
        std::vector<std::thread> readers;
        for (int t = 0; t < threads; ++t)
            readers.emplace_back([&, t] { kept = kept + read_lines(buffer.data() + words * t, words); });
        for (auto& reader : readers) reader.join();
        const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
        best = std::max(best, static_cast<double>(buffer.size() * 8) / took.count());
    }
    return best;
}

double thread_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Operations per second that `threads` cores do together with the fastest instructions of `isa`, best of
// `rounds`, each some 5 ms of every thread's own time: a core that others use too is no slower for that.
double peak_operations(const std::string& kind, const std::string& isa, int threads, int rounds) {
    const temper::KernelSet* kernels = temper::kernel_set(isa.c_str());
    if (kernels == nullptr) throw std::invalid_argument("this machine has no kernel set '" + isa + "'");
    if ((kind != "int8" && kind != "bf16" && kind != "f32") || threads < 1 || rounds < 1)
        throw std::invalid_argument("peak_operations needs int8, bf16 or f32, threads >= 1 and rounds >= 1");
    nb::gil_scoped_release unlocked;
    const auto loop = kind == "int8"   ? kernels->peak_int8
                      : kind == "bf16" ? kernels->peak_bf16
                                       : kernels->peak_f32;
    double best = 0;
    for (int round = 0; round < rounds; ++round) {
        std::vector<double> rates(static_cast<size_t>(threads));
        std::vector<std::thread> workers;
        for (double& rate : rates)
            workers.emplace_back([&rate, loop] {
                int64_t done = 0;
                const double start = thread_seconds();
                double took = 0;
                while (took < 0.005) {
                    done += loop(10000);
                    took = thread_seconds() - start;
                }
                rate = static_cast<double>(done) / took;
            });
        for (std::thread& worker : workers) worker.join();
        double sum = 0;
        for (const double rate : rates) sum += rate;
        best = std::max(best, sum);
    }
    return best;
}

}  // namespace

void bind_machine_limits(nb::module_& m) {
    m.def("read_bandwidth", &read_bandwidth, nb::arg("bytes"), nb::arg("threads"), nb::arg("rounds") = 5,
          "Bytes per second read by `threads` threads from a buffer of `bytes`, best of `rounds`.");
    m.def("peak_operations", &peak_operations, nb::arg("kind"), nb::arg("isa"), nb::arg("threads"),
          nb::arg("rounds") = 5,
          "Operations (int8, bf16 or f32; a multiply-add is two) per second by `threads` threads, best of "
          "`rounds`.");
}
