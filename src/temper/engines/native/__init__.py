"""Our own CPU engine: scheduler, cache, sampling and output above the Executor protocol."""

OPENER = "temper.engines.native.load:load_engine"
"""Makes the engine in this process, or in a worker."""
