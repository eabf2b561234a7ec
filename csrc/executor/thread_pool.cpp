#include "executor/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace temper {

namespace {

constexpr int kSpinsBeforeSleep = 2000;  // about 100 microseconds
constexpr int kSpinsBeforeYield = 200;

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
    for (int worker = 1; worker < threads; ++worker) workers_.emplace_back([this, worker] { serve(worker); });
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    wakes_.fetch_add(1);
    wakes_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::share(uint32_t chunks, Call call, const void* work) {
    call_ = call;
    work_ = work;
    chunks_ = chunks;
    finished_.store(0, std::memory_order_relaxed);
    ticket_.store(++epoch_ << 32 | chunks, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
        wakes_.fetch_add(1);
        wakes_.notify_all();
    }
    while (take_one(0)) {
    }
    for (int spins = 0; finished_.load(std::memory_order_acquire) < chunks; ++spins) {
        // Somebody is inside a chunk; if that thread is not running, let it.
        if (spins < kSpinsBeforeYield)
            pause();
        else
            std::this_thread::yield();
    }
}

// Claims and does one chunk. A claim succeeds only while its epoch has chunks left, and the epoch
// cannot end before the claimed chunk is finished: so what is read after the claim belongs to it.
bool ThreadPool::take_one(int worker) {
    uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(ticket) > 0) {
        if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                           std::memory_order_acquire))
            continue;
        call_(work_, chunks_ - static_cast<uint32_t>(ticket), worker);
        finished_.fetch_add(1, std::memory_order_release);
        return true;
    }
    return false;
}

void ThreadPool::serve(int worker) {
    int spins = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
        if (take_one(worker)) {
            spins = 0;
        } else if (++spins < kSpinsBeforeSleep) {
            pause();
        } else {
            const uint32_t wakes = wakes_.load();
            sleepers_.fetch_add(1, std::memory_order_seq_cst);
            const bool work_came = static_cast<uint32_t>(ticket_.load(std::memory_order_seq_cst)) > 0;
            if (!work_came && !stop_.load()) wakes_.wait(wakes);
            sleepers_.fetch_sub(1);
            spins = 0;
        }
    }
}

}  // namespace temper
