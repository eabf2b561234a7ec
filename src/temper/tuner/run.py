"""A study from beginning to end: self-test, search, confirmation, verdict."""

from __future__ import annotations

from typing import Any

from temper.errors import EngineFailure
from temper.tuner.confirm import confirm
from temper.tuner.report import report
from temper.tuner.search import Search


async def run(search: Search) -> dict[str, Any]:
    """Do the whole study, or the rest of it; returns its report.

    Raises:
        EngineFailure: the incumbent itself cannot be measured.
    """
    with search.ledger.running(search.id):
        try:
            await search.calibrate()
            await search.test_itself()
            async for _ in search.trying():
                pass
            finalists = await confirm(search, *await search.finalists())
        except EngineFailure:
            search.ledger.forget_failures(search.id)
            search.ledger.write(search.id, {"study": search.id, "trials": []}, "failed")
            raise
        finally:
            await search.evaluator.close()
        found = report(search, finalists)
        search.ledger.write(search.id, found, "done")
        search.tell_stage("done", 1.0, found["reason"])
        return found
