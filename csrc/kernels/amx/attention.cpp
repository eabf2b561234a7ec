#include "kernels/attention.inc"
