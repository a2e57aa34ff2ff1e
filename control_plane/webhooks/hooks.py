"""Hooks: jobs that outside systems start by a signed webhook.

A hook's secret is derived from the server's, so none is stored, and each hook has its own. What a
webhook says reaches the job as environment values of fixed names, never as text of its command.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from control_plane.core.hooks import Hook, Occurrence, mismatch
from control_plane.core.model import Job
from control_plane.errors import Denied, NotFound, Refused
from control_plane.ports import StoredAnswer
from control_plane.service import Service, Submission
from control_plane.webhooks import payloads, signatures

HOOKS_MAX = 200
"""Far more than repositories that train; listing them stays one page."""
REMEMBERED_S = 24 * 3600.0
"""How long the body of a delivery of GitHub is known again. As long as answers to idempotency keys
are kept, since it is remembered in the same place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What came of a delivery whose signature is good."""

    job: Job | None = None
    is_new: bool = False
    why: str = ""
    """Why there is no job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A delivery, proven and read."""

    delivery: str
    occurrence: Occurrence
    is_signed: bool
    """Whether the signature covers the id of the delivery."""


class Hooks:
    """Keeps hooks, and acts on what comes for them. Any number of threads may use it."""

    def __init__(self, service: Service, *, secret: bytes) -> None:
        """`secret` is the server's; at least 32 bytes."""
        self._service = service
        self._store = service.store
        self._clock = service.clock
        self._key = signatures.hooks_key(secret)

    # ---------------------------------------------------------------------------- keeping

    def apply(self, wanted: Hook, *, expected_version: int | None, actor: str) -> Hook:
        """Make this the hook of its name; its secret stays. With an `expected_version` (0 = new)
        raises `Conflict` when somebody else applied in between; `NotFound` for an unknown queue,
        `Refused` for a job that can never run, or when there are too many."""
        self._service.full_need_in(wanted.queue, wanted.spec.need)
        current = self._found(wanted.name)
        if current is None and len(self._store.hook_list()) >= HOOKS_MAX:
            raise Refused(f"there are {HOOKS_MAX} hooks")
        version = current.version if current else 0
        expected = version if expected_version is None else expected_version
        record = replace(
            wanted,
            id=current.id if current else self._service.ids.new("h"),
            generation=current.generation if current else 1,
            rotated_at=current.rotated_at if current else None,
            applied_at=self._clock.now(),
            applied_by=actor,
            version=expected + 1,
        )
        self._store.hook_put(record, expected_version=expected)
        self._note(
            record.name, f"hook applied: on {', '.join(record.on)}, to {record.queue}", actor
        )
        return record

    def remove(self, name: str, *, actor: str) -> None:
        """Take nothing for it any more. Raises `NotFound`."""
        record = self._store.hook_get(name)
        self._store.hook_remove(name)
        self._note(record.name, "hook removed", actor)

    def rotate(self, name: str, *, actor: str) -> Hook:
        """Give it another secret; the one before is taken for another day, and one before that no
        more. Raises `NotFound`, `Conflict`."""
        old = self._store.hook_get(name)
        record = replace(
            old,
            generation=old.generation + 1,
            rotated_at=self._clock.now(),
            version=old.version + 1,
        )
        self._store.hook_put(record, expected_version=old.version)
        self._note(record.name, "secret changed", actor)
        return record

    def secret(self, name: str, *, actor: str) -> str:
        """Its current secret, for whoever sets the sender up. Raises `NotFound`."""
        record = self._store.hook_get(name)
        self._note(name, "secret shown", actor)
        return self._secret(name, record.id, record.generation)

    def alert_secret(self, target: str, *, actor: str) -> str:
        """What signs the messages to the receiver that a document names so."""
        self._note(target, "secret shown", actor)
        return signatures.new_secret(self._key, signatures.ALERT, target)

    # -------------------------------------------------------------------------- receiving

    def receive(self, name: str, headers: Mapping[str, str], body: bytes) -> Received:
        """Act on a delivery. A repeat is answered with the same job.

        Raises `Denied` when no signature is good, or there is no such hook, which a stranger is not
        to know; `InvalidInput` for a body that cannot be read, and what handing in a job raises."""
        hook = self._found(name)
        # For a hook that is not there a secret is tried that nobody is ever told.
        told = self._proven(
            self._secrets(hook) if hook else [self._secret(name, "", 0)], headers, body
        )
        if hook is None:
            raise Denied(signatures.NONE_GOOD)
        if told.occurrence.event == payloads.PING:
            return Received(why="pong")
        why = mismatch(hook, told.occurrence) or self._replay(hook, told, body)
        if why:
            return Received(why=why)
        job, is_new = self._service.submit(
            _submission(hook, told.occurrence),
            idempotency_key=f"hook:{name} {hook.id} {told.delivery}",
        )
        return Received(job=job, is_new=is_new)

    def _proven(self, secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> _Told:
        if signatures.GITHUB_SIGNATURE in headers:
            delivery = signatures.check_github(headers, body, secrets)
            event = headers.get(signatures.GITHUB_EVENT, "")
            occurrence = payloads.of_github(event, payloads.read_json(body))
            return _Told(delivery=delivery, occurrence=occurrence, is_signed=False)
        if signatures.SIGNATURE in headers:
            delivery = signatures.check_standard(headers, body, secrets, self._clock.now())
            occurrence = payloads.of_standard(payloads.read_json(body))
            return _Told(delivery=delivery, occurrence=occurrence, is_signed=True)
        raise Denied(
            f"the request carries neither `{signatures.GITHUB_SIGNATURE}` nor "
            f"`{signatures.SIGNATURE}`"
        )

    def _replay(self, hook: Hook, told: _Told, body: bytes) -> str:
        """Why this is somebody who says again, under another id, what they have heard GitHub say;
        empty = it is not. GitHub signs the body and not the id."""
        if told.is_signed:
            return ""
        place = f"hook {hook.id} {hashlib.sha256(body).hexdigest()}"
        earlier = self._store.answer_begin(
            place, told.delivery, now=self._clock.now(), keep_s=REMEMBERED_S
        )
        if earlier is None:
            answer = StoredAnswer(fingerprint=told.delivery, status=200)
            self._store.answer_finish(place, answer)
        elif earlier.fingerprint != told.delivery:
            return f"the same body came before, as delivery {earlier.fingerprint}"
        return ""

    def _secrets(self, hook: Hook) -> Sequence[str]:
        generations = hook.generations(self._clock.now())
        return [self._secret(hook.name, hook.id, each) for each in generations]

    def _secret(self, name: str, hook_id: str, generation: int) -> str:
        return signatures.new_secret(self._key, "hook", name, hook_id, str(generation))

    def _found(self, name: str) -> Hook | None:
        try:
            return self._store.hook_get(name)
        except NotFound:
            return None

    def _note(self, subject: str, text: str, actor: str) -> None:
        self._service.note("access", subject, text, actor=actor)


def _submission(hook: Hook, told: Occurrence) -> Submission:
    return Submission(
        spec=replace(hook.spec, env={**hook.spec.env, **environment(hook, told)}),
        queue=hook.queue,
        name=hook.job_name,
        owner=f"hook:{hook.name}",
        labels=hook.labels,
        priority=hook.priority,
    )


def environment(hook: Hook, told: Occurrence) -> Mapping[str, str]:
    """What a job is told of what has started it."""
    return {
        "ORCHCTL_HOOK": hook.name,
        "ORCHCTL_HOOK_REPOSITORY": told.repository,
        "ORCHCTL_HOOK_REF": told.ref,
        "ORCHCTL_HOOK_SHA": told.sha,
    }
