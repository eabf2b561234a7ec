// Times single steps of llama.cpp in this process, on command: the other side of prove_kernels.py.
//
//   llama_step MODEL THREADS CONTEXT STREAMS   then, line by line on stdin,
//     decode STREAMS STEPS   steps of one token for each stream, behind CONTEXT tokens
//     prefill TOKENS STEPS   one prompt
//   Each answers with one line: wall and CPU milliseconds of each step, alternating. CPU is that of all
//   threads. For prove_in_process.py, with the prompts of peers/offline.py:
//     generate STREAMS PROMPT TOKENS SEED   the seconds that as many greedy answers at once take
//
//   llama_step quantize MODEL OUT   writes MODEL as pure Q4_0 but for its embeddings' own choice.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "llama.h"

namespace {

double cpu_ms() {
    timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) * 1e-6;
}

void add(llama_batch& batch, int token, int position, int sequence, bool logits) {
    const int i = batch.n_tokens++;
    batch.token[i] = token;
    batch.pos[i] = position;
    batch.n_seq_id[i] = 1;
    batch.seq_id[i][0] = sequence;
    batch.logits[i] = logits;
}

void run(llama_context* context, const llama_batch& batch, bool print) {
    const double cpu = cpu_ms();
    const auto begin = std::chrono::steady_clock::now();
    if (llama_decode(context, batch) != 0) std::exit(1);
    llama_synchronize(context);
    const std::chrono::duration<double, std::milli> wall = std::chrono::steady_clock::now() - begin;
    if (print) std::printf("%.4f %.4f ", wall.count(), cpu_ms() - cpu);
}

int likeliest(llama_context* context, int row, int vocabulary) {
    const float* logits = llama_get_logits_ith(context, row);
    return static_cast<int>(std::max_element(logits, logits + vocabulary) - logits);
}

// Seconds that `tokens` greedy tokens for each of `streams` prompts take, all at once.
double generate(llama_context* context, llama_batch& batch, int vocabulary, int streams, int prompt,
                int tokens, int seed) {
    llama_memory_clear(llama_get_memory(context), false);
    std::vector<int> last(static_cast<size_t>(streams));
    const auto begin = std::chrono::steady_clock::now();
    const int most = static_cast<int>(llama_n_batch(context));
    batch.n_tokens = 0;
    std::vector<std::pair<int, int>> ends;  // row in the batch, stream
    const auto flush = [&] {
        run(context, batch, false);
        for (const auto& [row, stream] : ends)
            last[static_cast<size_t>(stream)] = likeliest(context, row, vocabulary);
        ends.clear();
        batch.n_tokens = 0;
    };
    for (int s = 0; s < streams; ++s) {
        for (int i = 0; i < prompt; ++i) {
            if (batch.n_tokens == most) flush();
            if (i == prompt - 1) ends.emplace_back(batch.n_tokens, s);
            add(batch, 1000 + (7 * i + 131 * s + 977 * seed + 3) % 1000, i, s, i == prompt - 1);
        }
    }
    flush();
    for (int t = 1; t < tokens; ++t) {
        for (int s = 0; s < streams; ++s) {
            ends.emplace_back(s, s);
            add(batch, last[static_cast<size_t>(s)], prompt + t - 1, s, true);
        }
        flush();
    }
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace

int main(int argc, char** argv) {
    llama_backend_init();
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    if (argc == 4 && std::string(argv[1]) == "quantize") {
        llama_model_quantize_params wanted = llama_model_quantize_default_params();
        wanted.ftype = LLAMA_FTYPE_MOSTLY_Q4_0;
        wanted.allow_requantize = true;
        return static_cast<int>(llama_model_quantize(argv[2], argv[3], &wanted));
    }
    if (argc < 5) return 2;
    const int threads = std::atoi(argv[2]), length = std::atoi(argv[3]), streams = std::atoi(argv[4]);
    llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (model == nullptr) return 1;
    llama_context_params wanted = llama_context_default_params();
    wanted.n_seq_max = static_cast<uint32_t>(streams);
    constexpr int kLongestPrompt = 640;
    wanted.n_ctx = static_cast<uint32_t>(streams * kLongestPrompt);
    wanted.n_batch = wanted.n_ubatch = 512;
    wanted.n_threads = wanted.n_threads_batch = threads;
    wanted.no_perf = true;
    llama_context* context = llama_init_from_model(model, wanted);
    if (context == nullptr) return 1;
    const int vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    llama_memory_t memory = llama_get_memory(context);
    llama_batch batch = llama_batch_init(1024, 0, 1);
    int held = 0;  // sequences that have their context

    std::string kind;
    int size, steps;
    while (std::cin >> kind >> size >> steps) {
        if (kind == "generate") {
            int tokens, seed;
            std::cin >> tokens >> seed;
            std::printf("%.6f", generate(context, batch, vocabulary, size, steps, tokens, seed));
            held = 0;
        } else if (kind == "decode") {
            if (held == 0) {
                for (int i = 0; i < length; ++i) add(batch, (i * 7 + 3) % 1000, i, 0, i == length - 1);
                run(context, batch, false);
                held = 1;
            }
            for (; held < size; ++held) llama_memory_seq_cp(memory, 0, held, -1, -1);
            for (int step = 0; step < steps; ++step) {
                batch.n_tokens = 0;
                for (int s = 0; s < size; ++s) add(batch, (s * 37 + step * 11 + 5) % 1000, length, s, true);
                run(context, batch, true);
                for (int s = 0; s < size; ++s) llama_memory_seq_rm(memory, s, length, -1);
            }
        } else {
            for (int step = 0; step < steps; ++step) {
                llama_memory_clear(memory, false);
                held = 0;
                batch.n_tokens = 0;
                for (int i = 0; i < size; ++i) add(batch, (i * 7 + 3) % 1000, i, 0, i == size - 1);
                run(context, batch, true);
            }
            llama_memory_clear(memory, false);
        }
        batch.n_tokens = 0;
        std::printf("\n");
        std::fflush(stdout);
    }
    return 0;
}
