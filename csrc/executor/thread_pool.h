// A few threads that share short pieces of work, thousands of times a second.
//
// `run` hands out chunks by one atomic word that holds (epoch, chunks left), so the caller waits for
// chunks that somebody has begun and never for a thread to show up: on a busy machine, where a worker
// may not be running at all, the caller just does the work itself. Workers spin for a while after their
// last chunk (ops follow each other within microseconds) and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace temper {

class ThreadPool {
  public:
    // `threads` counts the caller of `run`: threads - 1 are started.
    explicit ThreadPool(int threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // work(chunk, worker) once for every chunk in [0, chunks), in any order, on any thread; worker in
    // [0, threads). Returns when all are done. Work must not throw. One `run` at a time.
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

    void share(uint32_t chunks, Call call, const void* work);
    bool take_one(int worker);
    void serve(int worker);

    // Written before `ticket_` is, read after a chunk has been claimed from it.
    Call call_ = nullptr;
    const void* work_ = nullptr;
    uint32_t chunks_ = 0;
    uint64_t epoch_ = 0;

    alignas(64) std::atomic<uint64_t> ticket_{0};  // epoch << 32 | chunks not yet claimed
    alignas(64) std::atomic<uint32_t> finished_{0};
    alignas(64) std::atomic<uint32_t> wakes_{0};
    std::atomic<uint32_t> sleepers_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;
};

}  // namespace temper
