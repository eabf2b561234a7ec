#include "kernels/lora.inc"
