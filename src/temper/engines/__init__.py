"""Whatever turns a request into a stream of events: leaves that compute, combinators that wrap engines."""
