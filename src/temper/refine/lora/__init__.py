"""LoRA: small matrices beside frozen ones, trained, written as adapters in PEFT's format, and merged."""
