#!/usr/bin/env bash
# Sets llama.cpp up beside Temper, in an environment of its own: server, perplexity and quantize tools,
# built from the source that the PyPI package llama-cpp-python carries. Usage: llama_cpp.sh FOLDER
# The explicit ISA flags are needed: -DGGML_NATIVE=ON dies with SIGILL in its AMX path on some VMs.
set -euo pipefail
folder=${1:?usage: llama_cpp.sh FOLDER}
version=0.3.36
mkdir -p "$folder" && cd "$folder"
if [ ! -x build/bin/llama-server ]; then
  [ -d env ] || python3 -m venv env
  env/bin/pip install -q scikit-build-core ninja cmake
  export PATH="$PWD/env/bin:$PATH"
  [ -d "llama_cpp_python-$version" ] || {
    pip download -q --no-cache-dir --no-deps --no-build-isolation --no-binary llama-cpp-python "llama-cpp-python==$version"
    tar xf "llama_cpp_python-$version.tar.gz"
  }
  isa=()
  grep -q avx512_vnni /proc/cpuinfo && isa+=(-DGGML_AVX512=ON -DGGML_AVX512_VBMI=ON -DGGML_AVX512_VNNI=ON)
  grep -q avx512_bf16 /proc/cpuinfo && isa+=(-DGGML_AVX512_BF16=ON)
  grep -q avx2 /proc/cpuinfo && isa+=(-DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON)
  cmake -S "llama_cpp_python-$version/vendor/llama.cpp" -B build -G Ninja -DCMAKE_BUILD_TYPE=Release \
    -DGGML_NATIVE=OFF "${isa[@]}" -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_UI=OFF -DBUILD_SHARED_LIBS=OFF
  cmake --build build --target llama-server llama-perplexity llama-quantize
fi
echo "$PWD/build/bin"
