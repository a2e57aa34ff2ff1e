"""The same examples in every run, so a red build is red for everybody.

`make test-long` searches further, with fresh examples each time.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.conftest import LONG

_SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)

settings.register_profile(
    "ci", derandomize=True, max_examples=60, deadline=None, suppress_health_check=_SLOW
)
settings.register_profile("long", max_examples=1000, deadline=None, suppress_health_check=_SLOW)
settings.load_profile("long" if LONG else "ci")
