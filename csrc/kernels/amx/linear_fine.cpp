// In 16 bits as on AVX512.
#include "kernels/avx512/linear_fine.cpp"
