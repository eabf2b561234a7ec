#include "kernels/linear_bf16.inc"
