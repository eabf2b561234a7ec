"""What was dropped and why: counts, shares and the first examples, as plain data that survives a kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

MAX_EXAMPLES: Final = 3
EXCERPT: Final = 160


class Tally:
    """Counts of what was kept and dropped. `counters` hold whatever else a recipe counts, by name."""

    def __init__(self, *counters: str) -> None:
        self._dropped: Counter[str] = Counter()
        self._examples: dict[str, list[dict[str, str]]] = {}
        self.counters: dict[str, Counter[str]] = {name: Counter() for name in counters}
        self.num_read = 0

    @property
    def num_dropped(self) -> int:
        """All that was dropped."""
        return self._dropped.total()

    def drop(self, reason: str, where: str, detail: str, text: str) -> None:
        """One record went for `reason`; `detail` says what was met, `text` is what an excerpt is taken of."""
        self._dropped[reason] += 1
        shown = self._examples.setdefault(reason, [])
        if len(shown) < MAX_EXAMPLES:
            shown.append({"where": where, "detail": detail, "excerpt": " ".join(text[: EXCERPT * 2].split())[:EXCERPT]})

    def state(self) -> dict[str, Any]:
        """All of it, for a note."""
        return {
            "num_read": self.num_read,
            "dropped": dict(self._dropped),
            "examples": self._examples,
            "counters": {name: dict(counter) for name, counter in self.counters.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a note; an empty one is a beginning."""
        if state:
            self.num_read = state["num_read"]
            self._dropped = Counter(state["dropped"])
            self._examples = {reason: list(found) for reason, found in state["examples"].items()}
            self.counters = {name: Counter(counted) for name, counted in state["counters"].items()}

    def document(self) -> dict[str, Any]:
        """The report: how much was read and kept, and each reason with its share of what was read."""
        whole = max(self.num_read, 1)
        dropped = {
            reason: {"count": count, "share": count / whole, "examples": self._examples[reason]}
            for reason, count in self._dropped.most_common()
        }
        counted = {name: dict(sorted(counter.items())) for name, counter in self.counters.items()}
        return {"num_read": self.num_read, "num_dropped": self.num_dropped, "dropped": dropped, **counted}
