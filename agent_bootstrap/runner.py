"""One job from the claim to its report: files, environment, command, artifacts, how it ended.

The command and every tool that prepares for it run in sessions of their own and write to the job's
log. A wish to stop may come at any moment; it is obeyed at the next look, a fraction of a second
later.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

from agent_bootstrap import artifacts, environment, source, storage
from agent_bootstrap.client import (
    Client,
    Elsewhere,
    Refusal,
    Stale,
    Unanswered,
    artifact_route,
    job_route,
)
from agent_bootstrap.logs import JobLog
from agent_bootstrap.processes import Tree
from agent_bootstrap.source import Unprepared
from agent_bootstrap.wire import (
    Advice,
    ArtifactRef,
    Finished,
    Started,
    Upload,
    UploadTo,
    Work,
)

INHERITED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "LD_LIBRARY_PATH"),
    *("LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"),
)
"""All that a job sees of the agent's environment: what a program needs to find its way on this
machine. Everything else, the agent's own settings first, stays out."""

LABELS = ("ORCHCTL_FLEET", "ORCHCTL_POOL", "ORCHCTL_LAUNCH", "ORCHCTL_CREATED", "ORCHCTL_HOME")
"""A provider that finds a machine's processes by labels must find those of its jobs too."""

TOOLS_INHERITED = ("PIP_", "UV_")
"""A machine's package index and caches; only for the tools that build environments."""

LOOK_S = 0.05
"""Between two looks at a process that is being ended."""

SETTLE_S = 0.3
"""Who ends a machine may signal all of its processes at once. Before a job that a signal ended is
reported as failed, the agent gets this long to notice a signal of its own."""

PATIENCE_S = 30.0
"""How long a log or an artifact may fail to upload while everything else gets through."""

HURRY_S = 2.0
"""The same when the machine is being taken away: the report itself matters more."""

PACE_BYTES_S = 4 << 20
"""A large artifact is given as much longer as it takes at this pace: one that fails near its end is
sent once more."""

log = logging.getLogger(__name__)


class Stopped(Exception):
    """The job is to stop; `Run` knows how it ends."""


@dataclass(frozen=True)
class Stop:
    """The wish to end a job."""

    outcome: str
    """Empty: say nothing of it."""
    reason: str
    kill_at: float
    """On the monotonic clock: SIGTERM before, SIGKILL from then on."""


@dataclass(frozen=True)
class Place:
    """Where an agent runs jobs."""

    machine_id: str
    jobs: Path
    cache: Path
    """Of built environments, shared with other agents of this host."""


class Run:
    """One attempt of one job, in a thread of its own.

    `on_end` is called once, when nothing of the job is left on the machine and its end is reported
    or no longer wanted."""

    def __init__(
        self,
        work: Work,
        place: Place,
        client: Client,
        gpus: Sequence[int],
        silence_s: Callable[[], float],
        advice: Callable[[], Advice],
        on_end: Callable[[Run], None],
        held_until: float = 0.0,
    ) -> None:
        """Until `held_until`, on the monotonic clock, no other machine can have been given the job,
        whatever became of our messages."""
        self.work = work
        self.gpus = gpus
        self.key = "%s:%d" % (work.job_id, work.epoch)
        self._place = place
        self._client = client
        self._silence_s = silence_s
        self._advice = advice
        self._on_end = on_end
        self._held_until = held_until
        self._home = place.jobs / ("%s-%d" % (work.job_id, work.attempt))
        self._files = self._home / "work"
        self._stop: Optional[Stop] = None
        self._lock = threading.Lock()
        self._log: JobLog
        self._exit_code = -1

    def start(self) -> None:
        threading.Thread(target=self._run, name=self.key, daemon=True).start()

    def stop(self, outcome: str, reason: str, grace_s: float) -> None:
        """End the job: SIGTERM now, SIGKILL after the grace. The first wish names the outcome, the
        most urgent one the time."""
        kill_at = time.monotonic() + grace_s
        with self._lock:
            first = self._stop
            if first is None:
                self._stop = Stop(outcome, reason, kill_at)
            elif kill_at < first.kill_at:
                self._stop = Stop(first.outcome, first.reason, kill_at)

    def lose(self) -> None:
        """End the job at once and report nothing: it is somebody else's now."""
        with self._lock:
            self._stop = Stop("", "", 0.0)

    # ------------------------------------------------------------------------ from start to end

    def _run(self) -> None:
        try:
            self._make_home()
            self._log = JobLog(self._home / "log", self._send_log, self.lose)
            self._log.start()
            self._report(self._perform())
        except Exception:
            # One job must not take the machine and its other jobs along.
            log.exception("job %s", self.key)
            self._finish(Finished(self.work.epoch, "failed", reason="the agent failed to run it"))
        finally:
            shutil.rmtree(str(self._home), ignore_errors=True)
            self._on_end(self)

    def _make_home(self) -> None:
        try:
            self._home.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            # Left behind by an agent that was killed.
            shutil.rmtree(str(self._home), ignore_errors=True)
            self._home.mkdir(mode=0o700)
        self._files.mkdir()

    def _perform(self) -> Finished:
        since = self._log.size()
        try:
            variables = self._prepare()
            if time.monotonic() < self._held_until:
                return self._run_and_announce(variables)
            self._announce()
            self._check()
            return self._run_command(variables)
        except Unprepared as error:
            reason = "\n".join(filter(None, (str(error), self._log.tail(since))))
            return Finished(self.work.epoch, "failed", reason=reason)
        except Stopped:
            stop = self._stop
            assert stop is not None, "raised only when there is one"
            return Finished(self.work.epoch, stop.outcome, reason=stop.reason)

    def _prepare(self) -> Dict[str, str]:
        """Fetch the files, build the environment; the command's environment variables."""
        variables = self._variables()
        tools = {
            name: value for name, value in os.environ.items() if name.startswith(TOOLS_INHERITED)
        }
        tools.update(variables, GIT_TERMINAL_PROMPT="0")

        def execute(command: List[str], directory: Path) -> int:
            return self._execute(command, directory, tools)

        self._fetch_source(execute)
        if self.work.requirements:
            self._log.note("building the Python environment")
            directory = self._environment(execute)
            path = variables.get("PATH", os.defpath)
            variables.update(environment.variables(directory, path))
        return variables

    def _fetch_source(self, execute: source.Execute) -> None:
        ref = self.work.source
        if ref.kind == "git":
            self._log.note("checking out %s" % ref.commit)
            source.check_out(ref, self._files, execute)
        if ref.sha256:
            archive = self._home / "source.tar.gz"
            self._ask(lambda: self._fetch_archive(archive), "the source archive cannot be had")
            source.verify(archive, ref.sha256)
            source.unpack(archive, self._files)
            archive.unlink()

    def _fetch_archive(self, archive: Path) -> None:
        try:
            self._client.fetch_source(self.work.job_id, self.work.epoch, archive)
        except Elsewhere as found:
            storage.get(found.url, archive)

    def _environment(self, execute: source.Execute) -> Path:
        ref = self.work.source
        identity = "%s %s" % (ref.commit, ref.sha256)
        return environment.environment(
            environment.recipe(self.work.python, self.work.requirements, identity),
            self._place.cache,
            self._files,
            execute,
            self._check,
        )

    def _run_and_announce(self, variables: Dict[str, str]) -> Finished:
        """Announce the command when it runs already. The job is ours for certain; all that can be
        refused is what was cancelled this very moment, and that ends as if it had been cancelled a
        moment later."""
        telling = threading.Thread(target=self._announce, name=self.key, daemon=True)
        try:
            return self._run_command(variables, begun=telling.start)
        finally:
            # Its end must not be told before its start.
            if telling.ident is not None:
                telling.join()

    def _announce(self) -> None:
        """Tell that the command runs now. A refusal means that it must not."""
        route = job_route(self.work.job_id, "start")
        started = Started(self.work.epoch)
        try:
            self._ask(lambda: self._client.tell(route, started), "the start was refused")
        except Unprepared as error:
            log.warning("job %s: %s", self.key, error)
            self.lose()
        except Stopped:
            pass

    def _run_command(
        self, variables: Dict[str, str], begun: Callable[[], None] = lambda: None
    ) -> Finished:
        limit_s = float(self.work.timeout_s)
        command = ["/bin/sh", "-c", self.work.command]
        code = self._exit_code = self._execute(command, self._files, variables, limit_s, begun)
        if code > 128 and self._stop is None:
            time.sleep(SETTLE_S)
        stop = self._stop
        if stop is not None:
            return Finished(self.work.epoch, stop.outcome, code, stop.reason)
        reason = "ended by signal %d" % (code - 128) if code > 128 else ""
        return Finished(self.work.epoch, "failed" if code else "succeeded", code, reason)

    # --------------------------------------------------------------------------- its processes

    def _variables(self) -> Dict[str, str]:
        passed_on = (*INHERITED, *LABELS)
        variables = {name: os.environ[name] for name in passed_on if name in os.environ}
        variables.update(self.work.env)
        if self.work.gpus:
            variables["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in self.gpus)
        variables["ORCHCTL_QUEUE"] = self.work.queue
        variables.update(self._marks())
        return variables

    def _marks(self) -> Dict[str, str]:
        return {
            "ORCHCTL_JOB_ID": self.work.job_id,
            "ORCHCTL_ATTEMPT": str(self.work.attempt),
            "ORCHCTL_MACHINE": self._place.machine_id,
        }

    def _check(self) -> None:
        if self._stop is not None:
            raise Stopped

    def _execute(
        self,
        command: Sequence[str],
        directory: Path,
        variables: Dict[str, str],
        limit_s: float = 0.0,
        begun: Callable[[], None] = lambda: None,
    ) -> int:
        """Run a command to its end, or to the job's; the exit code as a shell gives it. `begun` is
        called when it runs. Raises `Unprepared` when it cannot be started."""
        self._check()
        try:
            with self._log.path.open("ab") as output:
                process = subprocess.Popen(
                    list(command),
                    cwd=str(directory),
                    env=variables,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        except (OSError, ValueError) as error:
            raise Unprepared("%s cannot be started: %s" % (command[0], error)) from error
        tree = Tree(process.pid, self._marks())
        try:
            begun()
            self._wait(process, tree, limit_s)
        finally:
            tree.kill()
            process.wait()
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _wait(self, process: subprocess.Popen[bytes], tree: Tree, limit_s: float) -> None:
        """Until the process has ended by itself, or all of its tree has after a wish to stop: the
        shell may be gone at once while what it started still saves its work."""
        deadline = time.monotonic() + limit_s if limit_s else float("inf")
        while self._stop is None:
            if _ended(process, LOOK_S * 4):
                return
            if time.monotonic() >= deadline:
                grace_s = float(self.work.grace_s)
                self.stop("failed", "timed out after %d s" % limit_s, grace_s)
        tree.terminate()
        while not (_ended(process, LOOK_S) and not tree.members()):
            if time.monotonic() >= self._stop.kill_at:
                return
            time.sleep(LOOK_S)

    # ------------------------------------------------------------------------------ its report

    def _report(self, finished: Finished) -> None:
        if finished.outcome in ("succeeded", "failed", "cancelled"):
            self._upload_artifacts(finished)
        hurry = finished.outcome in ("interrupted", "returned", "")
        self._log.close(HURRY_S if hurry else PATIENCE_S, self._heard_lately)
        stop = self._stop
        if stop is None or stop.outcome:
            self._finish(finished)

    def _upload_artifacts(self, finished: Finished) -> None:
        missing = []
        for name in artifacts.find(self._files, self.work.artifacts):
            try:
                finished.artifacts.append(self._upload(name))
            except (Refusal, Unanswered, OSError) as error:
                if isinstance(error, Stale):
                    return self.lose()
                missing.append("%s (%s)" % (name, error))
        if missing:
            note = "not stored: " + ", ".join(missing)
            finished.reason = "; ".join(filter(None, (finished.reason, note)))
        return None

    def _upload(self, name: str) -> ArtifactRef:
        path = self._files / name
        ref = ArtifactRef(name, path.stat().st_size, source.file_sha256(path))
        give_up_at = time.monotonic() + PATIENCE_S + ref.size_bytes / PACE_BYTES_S
        self._client.repeat(
            lambda: self._send_artifact(ref, path),
            lambda: time.monotonic() >= give_up_at and self._heard_lately(),
        )
        return ref

    def _send_artifact(self, ref: ArtifactRef, path: Path) -> None:
        job_id, epoch = self.work.job_id, self.work.epoch
        to = UploadTo()
        if 0 < self._advice().direct_above_bytes < ref.size_bytes:
            upload = Upload(epoch, ref.size_bytes, ref.sha256)
            to = self._client.ask(artifact_route(job_id, ref.name), upload, UploadTo)
        if to.url:
            storage.put(to, path)
        else:
            self._client.send_artifact(job_id, epoch, ref.name, path)

    def _finish(self, finished: Finished) -> None:
        route = job_route(self.work.job_id, "finish")
        try:
            self._client.repeat(lambda: self._client.tell(route, finished))
        except (Refusal, Unanswered) as error:
            log.warning("end of job %s is not reported: %s", self.key, error)
        else:
            log.info("job %s %s, exit code %d", self.key, finished.outcome, finished.exit_code)

    def _send_log(self, offset: int, data: bytes) -> int:
        if self._client.closed:
            raise Stale(409, "closed", "nobody listens any more")
        return self._client.send_log(self.work.job_id, self.work.epoch, offset, data)

    def _heard_lately(self) -> bool:
        """Whether the control plane answers others: then it is this upload that it cannot take."""
        return self._client.closed or self._silence_s() < PATIENCE_S

    def _ask(self, attempt: Callable[[], None], failure: str) -> None:
        """Repeat a request until the job is to stop. Raises `Unprepared` when it is refused."""
        try:
            self._client.repeat(attempt, lambda: self._stop is not None)
        except Stale:
            self.lose()
        except Refusal as error:
            raise Unprepared("%s: %s" % (failure, error)) from error
        except Unanswered as error:
            self._check()
            raise Unprepared("%s: %s" % (failure, error)) from error
        self._check()


def _ended(process: subprocess.Popen[bytes], wait_s: float) -> bool:
    try:
        process.wait(wait_s)
    except subprocess.TimeoutExpired:
        return False
    return True
