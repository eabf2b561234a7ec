#include "kernels/table.inc"
