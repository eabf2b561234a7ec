// Which adapter kernels go with a kernel set.
#include "kernels/lora.h"

#include <cstring>

namespace temper {

namespace scalar {
extern const LoraKernels lora;
}
#if defined(__x86_64__)
namespace avx2 {
extern const LoraKernels lora;
}
namespace avx512 {
extern const LoraKernels lora;
}
#endif

const LoraKernels& lora_kernels(const KernelSet& set) {
#if defined(__x86_64__)
    if (std::strcmp(set.name, "avx2") == 0) return avx2::lora;
    if (std::strcmp(set.name, "scalar") != 0) return avx512::lora;  // wider ones have all that it needs
#endif
    return scalar::lora;
}

}  // namespace temper
