"""Whatever turns a request into a stream of events: leaves that compute, combinators that wrap engines."""

NATIVE = "temper.engines.native.load:load_engine"
"""What makes our own engine, in this process or in a worker of it."""
