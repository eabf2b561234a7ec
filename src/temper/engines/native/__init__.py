"""Our own CPU engine: scheduler, cache, sampling and output above the Executor protocol."""
