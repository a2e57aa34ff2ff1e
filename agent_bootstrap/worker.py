"""The agent's loop: register, claim, beat, and know when to end.

The main thread only watches: signals, timers, and what the other threads decided. Whoever finds
that the machine has to end says so with `_decide`; the most urgent ending wins.
"""

from __future__ import annotations

import logging
import platform
import random
import secrets
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Dict, List, Optional

from agent_bootstrap import gpu, shutdown
from agent_bootstrap.client import Client, Refusal, SessionOver, Unanswered
from agent_bootstrap.idle import Timers
from agent_bootstrap.interruption import DEFAULT_SECONDS_LEFT, HINTS, Watcher
from agent_bootstrap.runner import Place, Run
from agent_bootstrap.wire import (
    Beat,
    Beaten,
    Claim,
    Claimed,
    Finished,
    Hello,
    Leave,
    Left,
    Nonce,
    Notice,
    Register,
    Session,
    Work,
)

TICK_S = 0.1
"""Between two looks of the main thread: how late a signal or a timer is noticed."""

CLAIM_LIMIT = 8
"""Jobs per claim. The control plane decides what fits; this only bounds one answer."""

HEAD_START_S = 0.02
"""After a claim that brought jobs: they start before more is asked for."""

REPORT_S = 5.0
"""Kept at most of the time left of an interrupted machine to report how its jobs ended."""

GRACE_S_MAX = 30.0
"""Of a job's grace when its machine ends; the start-up text's own timer follows a minute behind."""

KILL_S = 5.0
"""For killed jobs to be gone when nobody waits for a report."""

LEAVE_S = 10.0
"""How long the last word may take when the machine ends anyway."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ending:
    """Why and how the machine ends."""

    urgency: int
    """A higher one replaces a lower one that is being carried out."""
    code: int
    text: str
    outcome: str = ""
    """Of the jobs that run; empty: kill them, report nothing."""
    leave: str = ""
    """The last word to the control plane; empty: none."""
    seconds: float = 0.0
    """All that is left; the jobs get the first part."""
    grace_s: float = 0.0


@dataclass(frozen=True)
class Identity:
    """Who the agent is and where it works."""

    machine_id: str
    token: str
    directory: Path
    cache: Path
    boot_timeout_s: float
    max_lifetime_s: float
    version: str = ""
    cloud: str = "local"
    """Whose machine this is: how it proves who it is."""
    metadata_url: str = ""


class Worker:
    """One agent process. Construct in the main thread; `run` returns the exit code."""

    def __init__(self, identity: Identity, server_url: str, watcher: Watcher) -> None:
        self._identity = identity
        self._server_url = server_url
        self._timers = Timers(
            time.monotonic,
            boot_timeout_s=identity.boot_timeout_s,
            max_lifetime_s=identity.max_lifetime_s,
        )
        self._client = Client(
            server_url, on_contact=self._timers.heard, on_over=self._session_is_over
        )
        self._watcher = watcher
        self._place = Place(identity.machine_id, identity.directory / "jobs", identity.cache)
        self._cards = gpu.gpus()
        self._lock = threading.Lock()
        self._runs: Dict[str, Run] = {}
        self._free_gpus = [card.index for card in self._cards]
        self._drain = False
        self._ending: Optional[Ending] = None
        self._admitted = threading.Event()
        """The control plane listens to this machine."""
        self._wake = threading.Event()
        """Something changed that the claim loop waits for."""
        self._errands: List[threading.Thread] = []
        """Messages that the last word waits for."""
        self._signals: List[int] = []
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            # A handler interrupts the main thread anywhere, so it takes no lock.
            signal.signal(number, lambda received, _frame: self._signals.append(received))

    def run(self) -> int:
        """Work until the machine has to end; then stop what runs and take leave."""
        # From the start: Azure announces nothing to a machine that never asked.
        _spawn(self._watch_loop)
        _spawn(self._talk)
        while self._ending is None:
            self._look()
            time.sleep(TICK_S)
        return self._end()

    # ------------------------------------------------------------------- when the machine ends

    def _look(self) -> None:
        """Signals and timers."""
        while self._signals:
            self._on_signal(self._signals.pop(0))
        if self._timers.boot_over():
            self._decide(_at_once(shutdown.UNREGISTERED, "never registered"))
        if self._timers.contact_lost():
            self._decide(_at_once(shutdown.LOST_CONTACT, "lost contact"))
        if self._timers.life_over():
            self._decide(_told_to_end("as old as it may become", "max-life"))

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGUSR1:
            self._on_notice(Notice("spot", DEFAULT_SECONDS_LEFT))
        else:
            self._interrupt(Notice("maintenance", self._watcher.shutdown_s), 128 + number)

    def _on_notice(self, notice: Notice) -> None:
        if notice.kind in HINTS:
            self._errand(lambda: self._send_notice(notice))
        else:
            self._interrupt(notice, shutdown.INTERRUPTED)

    def _interrupt(self, notice: Notice, code: int) -> None:
        if not self._client.token:
            self._decide(_at_once(code, _words(notice)))
        else:
            self._errand(lambda: self._send_notice(notice))
            self._decide(_taken(notice, code))

    def _send_notice(self, notice: Notice) -> None:
        self._admitted.wait()
        try:
            self._client.repeat(lambda: self._client.tell("notice", notice))
        except (Unanswered, Refusal) as error:
            log.warning("notice was not taken: %s", error)

    def _session_is_over(self, reason: str) -> None:
        self._decide(_at_once(shutdown.SESSION_OVER, "the session is over: " + reason))

    def _decide(self, ending: Ending) -> None:
        with self._lock:
            if self._ending is not None and self._ending.urgency >= ending.urgency:
                return
            self._ending = ending
        log.info("the machine ends: %s", ending.text)
        self._wake.set()

    def _end(self) -> int:
        """Carry the ending out; a more urgent one that comes meanwhile takes over."""
        current: Optional[Ending] = None
        deadline = grace_until = 0.0
        while True:
            ending = self._ending
            assert ending is not None, "decided before"
            if ending is not current:
                current, now = ending, time.monotonic()
                deadline, grace_until = now + ending.seconds, now + ending.grace_s
            running = self._running()
            if not running or time.monotonic() >= deadline:
                break
            self._stop_all(running, ending, grace_until)
            self._look()
            time.sleep(TICK_S / 2)
        self._take_leave(current, deadline)
        self._watcher.drained()
        self._client.close()
        shutil.rmtree(str(self._place.jobs), ignore_errors=True)
        return current.code

    def _stop_all(self, running: List[Run], ending: Ending, grace_until: float) -> None:
        if not ending.outcome:
            self._client.close()
        for run in running:
            if ending.outcome:
                left_s = max(0.0, grace_until - time.monotonic())
                run.stop(ending.outcome, "the machine ends: " + ending.text, left_s)
            else:
                run.lose()

    def _take_leave(self, ending: Ending, deadline: float) -> None:
        if not ending.leave:
            return
        until = max(deadline, time.monotonic() + 1.0)
        for errand in self._errands:
            errand.join(max(0.0, until - time.monotonic()))
        leave = Leave(ending.leave)
        try:
            self._client.repeat(
                lambda: self._client.ask("leave", leave, Left), lambda: time.monotonic() >= until
            )
        except (Unanswered, Refusal) as error:
            log.warning("leaving without an answer: %s", error)

    # ------------------------------------------------------------------------- register, claim

    def _talk(self) -> None:
        try:
            session = self._register()
        except Unanswered:
            return
        except Refusal as error:
            self._decide(_at_once(shutdown.UNREGISTERED, "refused: %s" % error))
            return
        self._client.token = session.token
        self._admitted.set()
        self._timers.registered(session.advice)
        (self._identity.directory / "registered").touch()
        log.info("registered as %s", self._identity.machine_id)
        _spawn(self._beat_loop)
        self._claim_loop()

    def _register(self) -> Session:
        message = Register(
            machine_id=self._identity.machine_id,
            instance=secrets.token_hex(8),
            proof={},
            found=gpu.found(self._cards, self._identity.directory),
            agent_version="%s python-%s" % (self._identity.version, platform.python_version()),
        )

        def attempt() -> Session:
            # A proof is good for minutes only, so each attempt makes its own.
            return self._client.ask("register", replace(message, proof=self._proof()), Session)

        return self._client.repeat(attempt, lambda: self._ending is not None)

    def _proof(self) -> Dict[str, str]:
        identity = self._identity
        if identity.cloud == "local":
            return {"kind": "one-time", "token": identity.token}
        # A local machine does not pay for reading what only clouds need.
        from agent_bootstrap.identity import proof

        nonce = self._client.ask("nonce", Hello(identity.machine_id), Nonce).nonce
        try:
            return proof(identity.cloud, nonce, self._server_url, identity.metadata_url)
        except (OSError, ValueError) as error:
            log.warning("no proof of who this machine is: %s", error)
            raise Unanswered("no proof") from error

    def _claim_loop(self) -> None:
        while self._ending is None:
            # Cleared before the state is read, so that no change is slept through.
            self._wake.clear()
            if self._drain:
                pause_s = self._go_on_draining()
            elif self._timers.idle_left_s() <= 0:
                pause_s = self._ask_to_leave("idle")
            else:
                pause_s = self._claim()
            if self._ending is None:
                self._wake.wait(max(0.0, min(pause_s, self._timers.idle_left_s())))

    def _claim(self) -> float:
        """Ask for work once; how long to wait before the next time."""
        advice = self._timers.advice
        poll_s = advice.poll_s * random.uniform(0.8, 1.2)
        began = time.monotonic()
        try:
            claim = Claim(self._keys(), CLAIM_LIMIT)
            claimed = self._client.ask("claim", claim, Claimed, wait_s=advice.wait_s)
        except Unanswered as error:
            log.warning("claim: %s", error)
            return max(poll_s, error.retry_after_s)
        except Refusal as error:
            log.warning("claim: %s", error)
            return poll_s
        self._timers.advice = claimed.advice
        self._drain = claimed.drain
        for work in claimed.jobs:
            self._begin(work, held_until=began + claimed.advice.beat_s)
        self._heed(claimed.taken_in_s)
        waited = advice.wait_s > 0 and time.monotonic() - began >= advice.wait_s / 2
        if claimed.jobs:
            # Not a wait that others end: a job that ended meanwhile is no reason to ask at once.
            time.sleep(HEAD_START_S)
        return 0.0 if claimed.jobs or claimed.drain or waited else poll_s

    def _go_on_draining(self) -> float:
        """Leave when nothing runs any more. Until then nothing is claimed, so this is how it hears
        soon that the cloud takes the machine."""
        if not self._running():
            return self._ask_to_leave("drained")
        try:
            self._beat()
        except (Unanswered, Refusal) as error:
            log.warning("beat: %s", error)
        return self._timers.advice.poll_s

    def _ask_to_leave(self, why: str) -> float:
        """Ends the machine when the control plane agrees; else its idle time starts anew. Until the
        answer is there nothing is claimed."""
        leave = Leave(why)
        try:
            left = self._client.repeat(
                lambda: self._client.ask("leave", leave, Left), lambda: self._ending is not None
            )
        except (Unanswered, Refusal) as error:
            log.warning("leave: %s", error)
            left = Left(agreed=False)
        if left.agreed:
            # Nothing runs and the record is closed: no refusal that follows changes why it ended.
            self._decide(Ending(5, shutdown.LEFT, why))
        else:
            self._drain = False
            self._timers.idle()
        return self._timers.advice.poll_s

    # ------------------------------------------------------------------------------------ jobs

    def _running(self) -> List[Run]:
        with self._lock:
            return list(self._runs.values())

    def _keys(self) -> List[str]:
        return [run.key for run in self._running()]

    def _begin(self, work: Work, held_until: float) -> None:
        """Start a claimed job, unless it runs already: an answer may come twice. A machine loses
        its jobs after a silence of some beats, so one that was asked for less than a beat ago is
        its own."""
        with self._lock:
            key = "%s:%d" % (work.job_id, work.epoch)
            if key in self._runs:
                return
            if work.gpus > len(self._free_gpus):
                self._errand(lambda: self._return(work, "no GPU of the machine is free"))
                return
            cards, self._free_gpus = self._free_gpus[: work.gpus], self._free_gpus[work.gpus :]
            run = Run(
                work,
                self._place,
                self._client,
                cards,
                self._timers.silence_s,
                lambda: self._timers.advice,
                self._on_job_end,
                held_until,
            )
            self._runs[key] = run
            self._timers.busy()
        run.start()
        log.info("job %s starts", key)

    def _return(self, work: Work, reason: str) -> None:
        route = "jobs/%s/finish" % work.job_id
        finished = Finished(work.epoch, "returned", reason=reason)
        try:
            self._client.repeat(lambda: self._client.tell(route, finished))
        except (Unanswered, Refusal) as error:
            log.warning("job %s is not given back: %s", work.job_id, error)

    def _on_job_end(self, run: Run) -> None:
        with self._lock:
            del self._runs[run.key]
            self._free_gpus = sorted([*self._free_gpus, *run.gpus])
            if not self._runs:
                self._timers.idle()
        self._wake.set()

    # -------------------------------------------------------------------------- beats, notices

    def _beat_loop(self) -> None:
        while not self._client.closed:
            pause_s = self._timers.advice.beat_s
            try:
                self._beat()
                pause_s = self._timers.advice.beat_s
            except SessionOver:
                return
            except (Unanswered, Refusal) as error:
                log.warning("beat: %s", error)
                pause_s = min(pause_s, 2.0)
            time.sleep(pause_s)

    def _beat(self) -> None:
        self._obey(self._client.ask("beat", Beat(self._keys()), Beaten))

    def _obey(self, beaten: Beaten) -> None:
        self._timers.advice = beaten.advice
        if beaten.drain != self._drain:
            self._drain = beaten.drain
            self._wake.set()
        for run in self._running():
            if run.key in beaten.lost:
                run.lose()
            elif run.work.job_id in beaten.cancel:
                run.stop("cancelled", "", float(run.work.grace_s))
        self._heed(beaten.taken_in_s)
        if beaten.end:
            self._decide(_told_to_end("told to end", "drained"))

    def _heed(self, taken_in_s: float) -> None:
        """The control plane knows when the cloud takes the machine, whatever the watcher sees."""
        if taken_in_s >= 0:
            self._decide(_taken(Notice("spot", taken_in_s), shutdown.INTERRUPTED))

    def _watch_loop(self) -> None:
        while not self._client.closed:
            notice = self._watcher.poll()
            if notice is not None:
                self._on_notice(notice)
            time.sleep(self._watcher.poll_s)

    def _errand(self, target: Callable[[], None]) -> None:
        self._errands.append(_spawn(target))


def _spawn(target: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def _at_once(code: int, text: str) -> Ending:
    return Ending(4, code, text, seconds=KILL_S)


def _words(notice: Notice) -> str:
    return "%s notice, %.0f s left" % (notice.kind, max(notice.seconds_left, 0.0))


def _taken(notice: Notice, code: int) -> Ending:
    seconds = max(notice.seconds_left, 0.0)
    grace_s = seconds - min(REPORT_S, seconds / 4)
    return Ending(3, code, _words(notice), "interrupted", "interrupted", seconds, grace_s)


def _told_to_end(text: str, leave: str) -> Ending:
    return Ending(
        2,
        shutdown.LEFT,
        text,
        "returned",
        leave,
        seconds=GRACE_S_MAX + LEAVE_S,
        grace_s=GRACE_S_MAX,
    )
