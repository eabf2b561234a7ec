// Which kernel set runs here.
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstring>

#include "kernels/kernel_set.h"

namespace temper {

namespace scalar {
extern const KernelSet kernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const KernelSet kernels;
}
namespace avx512 {
extern const KernelSet kernels;
}
namespace amx {
extern const KernelSet kernels;
}
#endif

namespace {

struct Candidate {
    const KernelSet* set;
    bool (*runs_here)();
};

#if defined(__x86_64__)
bool has_avx512() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
           __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
}

// Linux gives a process tile registers when it asks, once and for all its threads. It refuses where it does
// not save them, or where a thread's stack for signals is too small for them.
bool may_use_tiles() {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return granted;
}

bool has_amx() {
    constexpr unsigned kTiles = 1u << 24, kInt8 = 1u << 25, kBf16 = 1u << 22;  // of leaf 7, edx
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTiles) && (d & kInt8) && (d & kBf16) &&
           __builtin_cpu_supports("avx512bf16") && may_use_tiles();
}
#endif

// __builtin_cpu_supports asks cpuid and xgetbv: it is false where the operating system does not save
// the wide registers.
const Candidate kWidestFirst[] = {
#if defined(__x86_64__)
    {&amx::kernels, [] { return has_avx512() && has_amx(); }},
    {&avx512::kernels, has_avx512},
    {&avx2::kernels,
     [] {
         return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                __builtin_cpu_supports("f16c") && __builtin_cpu_supports("bmi2");
     }},
#endif
    {&scalar::kernels, [] { return true; }},
};

}  // namespace

const KernelSet* kernel_set(const char* name) {
    for (const Candidate& candidate : kWidestFirst) {
        if (std::strcmp(candidate.set->name, name) == 0) {
            return candidate.runs_here() ? candidate.set : nullptr;
        }
    }
    return nullptr;
}

const KernelSet& best_kernel_set() {
    for (const Candidate& candidate : kWidestFirst) {
        if (candidate.runs_here()) return *candidate.set;
    }
    return scalar::kernels;
}

}  // namespace temper
