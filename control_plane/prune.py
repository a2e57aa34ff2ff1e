"""Forgetting what is over for long: old jobs with their logs and artifacts, old plans and events.
What was paid for stays.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from control_plane.ports import Blobs, Clock, Store

log = logging.getLogger("orchctl.prune")

PAUSE = timedelta(hours=1)
"""Between two rounds: history is counted in days, and most rounds find nothing."""

BATCH = 1000
"""Jobs forgotten in one go, so that the loop is not kept from its work for long."""


class Pruner:
    """Forgets, a batch at a time, when it is time to."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, *, keep: timedelta) -> None:
        """`keep` is how long a job is remembered after its end."""
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._keep = keep
        self._due = clock.now()

    def prune(self) -> None:
        """Forget one batch when an hour has passed since the last round, or when the last batch was
        a full one. What goes wrong is logged: it must not keep anybody from anything else."""
        now = self._clock.now()
        if now < self._due:
            return
        self._due = now + PAUSE
        try:
            before = now - self._keep
            old = self._store.history_old(before=before, limit=BATCH)
            # First what nobody would find any more without the jobs.
            for job_id in old:
                self._blobs.remove(f"jobs/{job_id}/")
            self._store.history_prune(old, before=before)
        except Exception:
            log.exception("old jobs were not forgotten")
            return
        if len(old) == BATCH:
            self._due = now
