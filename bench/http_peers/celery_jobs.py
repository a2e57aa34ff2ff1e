"""Celery's task, over a Redis that syncs before it answers."""

from __future__ import annotations

import os
import subprocess

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, task_ignore_result=True)


@app.task
def run(command: str) -> None:
    """Start a process."""
    subprocess.run(["/bin/sh", "-c", command], check=True)
