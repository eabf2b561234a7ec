// int8 groups as on AVX512: sums that are scaled every 32 inputs gain nothing from tiles (docs/log.md).
#include "kernels/avx512/linear.cpp"
