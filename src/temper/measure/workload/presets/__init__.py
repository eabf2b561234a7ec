"""Workloads that come with Temper, one TOML file each."""
