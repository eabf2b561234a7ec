"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# Timings never decide a test: a busy machine is no failure.
settings.register_profile("temper", deadline=None)
settings.load_profile("temper")
