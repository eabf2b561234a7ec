#include "executor/thread_pool.h"

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sched.h>
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

// A CPU that is not there, or not ours, changes nothing.
void stay_on([[maybe_unused]] int cpu) {
#if defined(__linux__)
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(static_cast<size_t>(cpu), &only);
    sched_setaffinity(0, sizeof only, &only);
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads, std::vector<int> cpus)
    : threads_(static_cast<uint32_t>(threads < 1 ? 1 : threads)),
      cpus_(std::move(cpus)),
      shares_(std::make_unique<Share[]>(threads_)) {
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
    ++epoch_;
    for (int worker = threads() - 1; worker >= 0; --worker) {
        const uint64_t count = first_of(worker + 1) - first_of(worker);
        shares_[static_cast<size_t>(worker)].ticket.store(epoch_ << 32 | count, std::memory_order_seq_cst);
    }
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

// Claims and does one chunk, of its own share while that lasts.
bool ThreadPool::take_one(int worker) {
    for (int i = 0; i < threads(); ++i) {
        const int owner = worker + i < threads() ? worker + i : worker + i - threads();
        if (take_from(owner, worker)) return true;
    }
    return false;
}

// A claim succeeds only while its epoch has chunks left in that share, and the epoch cannot end before the
// claimed chunk is finished: so what is read after the claim belongs to it.
bool ThreadPool::take_from(int owner, int worker) {
    std::atomic<uint64_t>& share = shares_[static_cast<size_t>(owner)].ticket;
    uint64_t ticket = share.load(std::memory_order_acquire);
    while (static_cast<uint32_t>(ticket) > 0) {
        if (!share.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire))
            continue;
        call_(work_, first_of(owner + 1) - static_cast<uint32_t>(ticket), worker);
        finished_.fetch_add(1, std::memory_order_release);
        return true;
    }
    return false;
}

bool ThreadPool::anything_left() const {
    for (int worker = 0; worker < threads(); ++worker) {
        const Share& share = shares_[static_cast<size_t>(worker)];
        if (static_cast<uint32_t>(share.ticket.load(std::memory_order_seq_cst)) > 0) return true;
    }
    return false;
}

void ThreadPool::settle_caller() {
    if (cpus_.empty() || settled_ == std::this_thread::get_id()) return;
    stay_on(cpus_[0]);
    settled_ = std::this_thread::get_id();
}

void ThreadPool::serve(int worker) {
    if (static_cast<size_t>(worker) < cpus_.size()) stay_on(cpus_[static_cast<size_t>(worker)]);
    int spins = 0;
    while (!stop_.load(std::memory_order_relaxed)) {
        if (take_one(worker)) {
            spins = 0;
        } else if (++spins < kSpinsBeforeSleep) {
            pause();
        } else {
            const uint32_t wakes = wakes_.load();
            sleepers_.fetch_add(1, std::memory_order_seq_cst);
            if (!anything_left() && !stop_.load()) wakes_.wait(wakes);
            sleepers_.fetch_sub(1);
            spins = 0;
        }
    }
}

}  // namespace temper
