"""An engine without weights that behaves as told: for tests, demonstrations and load on the server alone."""

from temper.engines.fake.engine import FakeEngine
from temper.engines.fake.faults import FAULTS
from temper.engines.fake.scripts import SCRIPTS, Script, script

__all__ = ["FAULTS", "SCRIPTS", "FakeEngine", "Script", "script"]
