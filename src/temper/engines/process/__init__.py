"""A server of another make as an engine: launched, watched, spoken to through the `openai` engine."""

from __future__ import annotations

from temper.engines.process.engine import ProcessEngine

__all__ = ["ProcessEngine"]
