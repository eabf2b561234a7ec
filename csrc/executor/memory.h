// Memory that exists when it is first written: the cache and the larger buffers of the executor.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>

namespace temper {

// Page-aligned zeros, untouched pages cost nothing. Moves, never copies.
class LazyMemory {
  public:
    LazyMemory() = default;
    explicit LazyMemory(size_t bytes) : bytes_(bytes) {
        if (bytes_ == 0) return;
        void* at =
            mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<uint8_t*>(at);
        // Each piece of a context would lie in a small page of its own, to be found before it can be read.
        // Only a hint: where the system has no large pages, small ones do.
        madvise(at, bytes_, MADV_HUGEPAGE);
    }
    LazyMemory(LazyMemory&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
    LazyMemory& operator=(LazyMemory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        return *this;
    }
    ~LazyMemory() {
        if (data_ != nullptr) munmap(data_, bytes_);
    }

    uint8_t* data() const { return data_; }
    size_t bytes() const { return bytes_; }
    template <class Value>
    Value* as() const {
        return reinterpret_cast<Value*>(data_);
    }

  private:
    uint8_t* data_ = nullptr;
    size_t bytes_ = 0;
};

// The paged cache. A block holds, layer after layer, keys [kv_width][block_tokens] (transposed, see
// rows.h) and values [kv_head][block_tokens][head_dim].
class KvPool {
  public:
    KvPool(int64_t layers, int64_t blocks, int64_t block_tokens, int64_t kv_width, bool half)
        : blocks_(blocks),
          block_tokens_(block_tokens),
          half_(half),
          side_bytes_(kv_width * block_tokens * (half ? 2 : 4)),
          block_bytes_(2 * layers * side_bytes_),
          memory_(static_cast<size_t>(blocks * block_bytes_)) {}

    int64_t blocks() const { return blocks_; }
    int64_t block_tokens() const { return block_tokens_; }
    int64_t block_bytes() const { return block_bytes_; }
    bool half() const { return half_; }
    int64_t number_bytes() const { return half_ ? 2 : 4; }
    uint8_t* keys(int64_t block, int64_t layer) const {
        return memory_.data() + block * block_bytes_ + 2 * layer * side_bytes_;
    }
    uint8_t* values(int64_t block, int64_t layer) const { return keys(block, layer) + side_bytes_; }

  private:
    int64_t blocks_;
    int64_t block_tokens_;
    bool half_;
    int64_t side_bytes_;
    int64_t block_bytes_;
    LazyMemory memory_;
};

}  // namespace temper
