// A few threads that share short pieces of work, thousands of times a second.
//
// Each thread has a share of the chunks, the same part of them every time, so that what it wrote in one op it
// finds in its own cache in the next; who is through with its own takes from the others'. A share is handed
// out by one atomic word that holds (epoch, chunks left), so the caller waits for chunks that somebody has
// begun and never for a thread to show up: on a busy machine, where a worker may not be running at all, the
// others just do its work. Workers spin for a while after their last chunk (ops follow each other within
// microseconds) and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace temper {

class ThreadPool {
  public:
    // `threads` counts the caller of `run`: threads - 1 are started. `cpus`: where each of them stays, the
    // caller's first; empty: wherever the system puts them.
    explicit ThreadPool(int threads, std::vector<int> cpus = {});
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    // Puts the calling thread where the caller of `run` shall stay.
    void settle_caller();

    int threads() const { return static_cast<int>(threads_); }

    // work(chunk, worker) once for every chunk in [0, chunks), in any order, on any thread; worker in
    // [0, threads), and most often the one whose even share of the chunks this one lies in. Returns when all
    // are done. Work must not throw. One `run` at a time.
    template <class Work>
    void run(int64_t chunks, const Work& work) {
        if (workers_.empty() || chunks <= 1) {
            for (int64_t chunk = 0; chunk < chunks; ++chunk) work(chunk, 0);
            return;
        }
        share(
            static_cast<uint32_t>(chunks),
            [](const void* self, int64_t chunk, int worker) {
                (*static_cast<const Work*>(self))(chunk, worker);
            },
            &work);
    }

  private:
    using Call = void (*)(const void* work, int64_t chunk, int worker);

    struct alignas(64) Share {
        std::atomic<uint64_t> ticket{0};  // epoch << 32 | chunks not yet claimed
    };

    void share(uint32_t chunks, Call call, const void* work);
    bool take_one(int worker);
    bool take_from(int owner, int worker);
    bool anything_left() const;
    void serve(int worker);
    // Where the share of a worker begins.
    uint32_t first_of(int worker) const {
        return static_cast<uint32_t>(uint64_t{chunks_} * static_cast<uint32_t>(worker) / threads_);
    }

    const uint32_t threads_;
    const std::vector<int> cpus_;
    std::thread::id settled_;
    // Written before the tickets are, read after a chunk has been claimed from one.
    Call call_ = nullptr;
    const void* work_ = nullptr;
    uint32_t chunks_ = 0;
    uint64_t epoch_ = 0;

    std::unique_ptr<Share[]> shares_;  // by worker
    alignas(64) std::atomic<uint32_t> finished_{0};
    alignas(64) std::atomic<uint32_t> wakes_{0};
    std::atomic<uint32_t> sleepers_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;
};

}  // namespace temper
