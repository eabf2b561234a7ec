"""What is asked of an engine, and when: workloads as TOML, traces, and the plan of requests they give."""
