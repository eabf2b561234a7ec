// Preloaded by test_allocations.py: counts what one shared object asks the heap for.
#include <dlfcn.h>
#include <stdlib.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

namespace {

std::atomic<uintptr_t> first{0}, last{0};
std::atomic<long> count{0};

void note(const void* caller) {
    const auto at = reinterpret_cast<uintptr_t>(caller);
    if (at >= first.load(std::memory_order_relaxed) && at < last.load(std::memory_order_relaxed))
        count.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

extern "C" {

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);

void* malloc(size_t size) {
    note(__builtin_return_address(0));
    return __libc_malloc(size);
}

void* calloc(size_t number, size_t size) {
    note(__builtin_return_address(0));
    return __libc_calloc(number, size);
}

void* realloc(void* old, size_t size) {
    note(__builtin_return_address(0));
    return __libc_realloc(old, size);
}

// Count calls that return to [begin, end) from now on.
void watch(uintptr_t begin, uintptr_t end) {
    first = begin;
    last = end;
    count = 0;
}

long counted() { return count; }

}  // extern "C"

void* operator new(size_t size) {
    note(__builtin_return_address(0));
    return __libc_malloc(size);
}

void* operator new[](size_t size) {
    note(__builtin_return_address(0));
    return __libc_malloc(size);
}

void operator delete(void* at) noexcept { free(at); }
void operator delete(void* at, size_t) noexcept { free(at); }
void operator delete[](void* at) noexcept { free(at); }
void operator delete[](void* at, size_t) noexcept { free(at); }
