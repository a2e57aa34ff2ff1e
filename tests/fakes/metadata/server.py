"""The metadata service of a machine of AWS, Google Cloud and Azure, all three on one port.

It answers what the agent and its start-up text ask, refuses what the real ones refuse (version 1
of AWS's, a request without the header, one that came through a proxy), and keeps what it was
asked. Facts: the clouds' pages "Use the Instance Metadata Service", "Spot Instance interruption
notices", "View and query VM metadata", "Azure Instance Metadata Service", "Scheduled Events for
Linux VMs".

Beside it, on the same port, the one call of the clouds' APIs that a machine makes: that which
deletes it; and `POST /_control/NAME` with the keyword arguments as JSON, for other processes: the
controls below by their names.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Query = Mapping[str, str]
Document = Callable[[Query], str]
"""What a path answers, by the query of its URL."""

NAME = "orchctl-m-7k2m9"
INSTANCE = "i-0abc1234567890def"
REGION = "us-east-1"
ROLE = "orchctl-machine"
PROJECT = "acme-research"
ZONE = "us-central1-a"
RESOURCE = (
    "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/orchctl"
    f"/providers/Microsoft.Compute/virtualMachines/{NAME}"
)

_TAGS = "/latest/meta-data/tags/instance/"
_CONTROL = "/_control/"
CONTROLS = frozenset(
    {"calls", "fail_next", "forget_tokens", "preempt", "rebalance", "schedule", "show_tags"}
)


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: bytes
    status: int


@dataclass(frozen=True)
class Reply:
    """What is sent back."""

    status: int
    text: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Metadata:
    """One machine's metadata service on a free port of the loopback interface."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.now = now
        self.asked: list[Asked] = []
        self.faults: dict[str, list[int]] = {}
        """Path to the statuses of its next answers."""
        self.documents: dict[str, Document] = {
            "/latest/meta-data/instance-id": lambda _: INSTANCE,
            "/latest/meta-data/placement/region": lambda _: REGION,
            "/latest/meta-data/iam/security-credentials/": lambda _: ROLE,
            f"/latest/meta-data/iam/security-credentials/{ROLE}": self._aws_credentials,
            "/computeMetadata/v1/project/project-id": lambda _: PROJECT,
            "/computeMetadata/v1/instance/name": lambda _: NAME,
            "/computeMetadata/v1/instance/zone": lambda _: f"projects/1234567/zones/{ZONE}",
            "/computeMetadata/v1/instance/service-accounts/default/token": self._token,
            "/metadata/instance/compute/name": lambda _: NAME,
            "/metadata/instance/compute/resourceId": lambda _: RESOURCE,
            "/metadata/identity/oauth2/token": self._token,
        }
        """Path to what it answers; take one out, and the machine has no such thing."""
        self.tags: Mapping[str, str] = {}
        """Of an instance of AWS that shows them in its metadata."""
        self.events: list[dict[str, Any]] = []
        """Azure's scheduled events."""
        self.events_begin_after_s = 0.0
        """From Azure's first question to its first answer: the question switches events on."""
        self.started: list[str] = []
        """Events that the machine told Azure to start."""
        self.deleted: list[str] = []
        """Machines whose deletion was asked for and accepted."""
        self.access_token = secrets.token_hex(8)
        self._aws_tokens: set[str] = set()
        self._preempted_at: datetime | None = None
        self._rebalanced = False
        self._events_begin: float | None = None
        self._changed = threading.Condition()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        with self._changed:
            self._preempted_at = self._preempted_at or self.now()
            self._changed.notify_all()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    # -------------------------------------------------------------------------------- control

    def preempt(self, seconds: float) -> None:
        """The cloud takes the machine in so many seconds; each cloud's service says so."""
        with self._changed:
            self._preempted_at = self.now() + timedelta(seconds=seconds)
            self._changed.notify_all()
        self.schedule("Preempt", seconds)

    def rebalance(self) -> None:
        """AWS holds an interruption for likely."""
        self._rebalanced = True

    def schedule(
        self, kind: str, seconds: float | None, resources: tuple[str, ...] = (NAME,)
    ) -> str:
        """Add a scheduled event of Azure; without seconds it has begun. Returns its id."""
        begins = self.now() + timedelta(seconds=seconds or 0)
        event = {
            "EventId": secrets.token_hex(16).upper(),
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": list(resources),
            "EventStatus": "Started" if seconds is None else "Scheduled",
            "NotBefore": "" if seconds is None else format_datetime(begins, usegmt=True),
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        self.events.append(event)
        return str(event["EventId"])

    def forget_tokens(self) -> None:
        """The session tokens of AWS's service are no longer good."""
        self._aws_tokens.clear()

    def show_tags(self, tags: Mapping[str, str]) -> None:
        """An instance of AWS has these tags, and its metadata shows them."""
        self.tags = dict(tags)

    def fail_next(self, path: str, status: int, times: int = 1) -> None:
        """The next answers of a path have this status."""
        self.faults.setdefault(path, []).extend([status] * times)

    def calls(self) -> list[Mapping[str, object]]:
        """What was asked, and how it was answered, the oldest first."""
        return [
            {"method": each.method, "path": each.path, "query": each.query, "status": each.status}
            for each in list(self.asked)
        ]

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(each.path == path for each in list(self.asked))

    # ------------------------------------------------------------------------------ answering

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        parts = urlsplit(target)
        if parts.path.startswith(_CONTROL):
            return self._control(method, parts.path.removeprefix(_CONTROL), body)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        reply = self._answer(method, parts.path, query, headers, body)
        self.asked.append(Asked(method, parts.path, query, headers, body, reply.status))
        return reply

    def _answer(
        self, method: str, path: str, query: Query, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        if self.faults.get(path):
            return Reply(self.faults[path].pop(0), "<html>\r\n<body>a fault</body>\r\n</html>")
        if path.startswith("/latest/"):
            return self._aws(method, path, query, headers)
        if path.startswith("/computeMetadata/"):
            return self._gcp(path, query, headers)
        if path.startswith("/metadata/"):
            return self._azure(method, path, query, headers, body)
        return self._api(method, path, query, headers)

    def _control(self, method: str, name: str, body: bytes) -> Reply:
        if method != "POST" or name not in CONTROLS:
            return Reply(404, json.dumps({"error": f"no control {name}"}))
        try:
            result = getattr(self, name)(**(json.loads(body) if body else {}))
        except (TypeError, ValueError) as error:
            return Reply(400, json.dumps({"error": str(error)}))
        return Reply(200, json.dumps(result))

    def _document(self, path: str, query: Query) -> Reply:
        document = self.documents.get(path)
        return Reply(200, document(query)) if document else Reply(404, "not found")

    def _aws(self, method: str, path: str, query: Query, headers: Mapping[str, str]) -> Reply:
        if path == "/latest/api/token":
            return self._aws_token(method, headers)
        if headers.get("x-aws-ec2-metadata-token") not in self._aws_tokens:
            return Reply(401, "Unauthorized")  # version 1 is switched off
        if path == "/latest/meta-data/spot/instance-action" and self._preempted_at:
            moment = self._preempted_at.strftime("%Y-%m-%dT%H:%M:%SZ")
            return Reply(200, json.dumps({"action": "terminate", "time": moment}))
        if path == "/latest/meta-data/events/recommendations/rebalance" and self._rebalanced:
            moment = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
            return Reply(200, json.dumps({"noticeTime": moment}))
        if path.startswith(_TAGS):
            tag = self.tags.get(path.removeprefix(_TAGS))
            return Reply(404, "not found") if tag is None else Reply(200, tag)
        return self._document(path, query)

    def _aws_token(self, method: str, headers: Mapping[str, str]) -> Reply:
        if method != "PUT":
            return Reply(405, "Method Not Allowed")
        if "x-forwarded-for" in headers:
            return Reply(403, "Forbidden")
        life = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not life.isdigit() or not 1 <= int(life) <= 21600:
            return Reply(400, "Bad Request")
        token = secrets.token_urlsafe(40) + "=="
        self._aws_tokens.add(token)
        return Reply(200, token, {"X-aws-ec2-metadata-token-ttl-seconds": life})

    def _gcp(self, path: str, query: Query, headers: Mapping[str, str]) -> Reply:
        if headers.get("metadata-flavor") != "Google" or "x-forwarded-for" in headers:
            return Reply(403, "Forbidden")
        if path == "/computeMetadata/v1/instance/preempted":
            reply = self._preempted(query)
        else:
            reply = self._document(path, query)
        return Reply(reply.status, reply.text, {"Metadata-Flavor": "Google", **reply.headers})

    def _preempted(self, query: Query) -> Reply:
        with self._changed:
            if query.get("wait_for_change") == "true":
                seen = query.get("last_etag", self._etag())
                wait_s = float(query.get("timeout_sec", "3600"))
                self._changed.wait_for(lambda: self._etag() != seen, wait_s)
            return Reply(200, "TRUE" if self._preempted_at else "FALSE", {"ETag": self._etag()})

    def _etag(self) -> str:
        return "beefbeefbeefbeef" if self._preempted_at else "facefacefaceface"

    def _azure(
        self, method: str, path: str, query: Query, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        if headers.get("metadata") != "true" or "x-forwarded-for" in headers:
            return Reply(
                400, json.dumps({"error": "Bad request. Required metadata header missing"})
            )
        if "api-version" not in query:
            return Reply(400, json.dumps({"error": "Bad request. api-version was not specified"}))
        if path == "/metadata/scheduledevents":
            return self._start_events(body) if method == "POST" else self._show_events()
        return self._document(path, query)

    def _show_events(self) -> Reply:
        if self._events_begin is None:
            self._events_begin = time.monotonic() + self.events_begin_after_s
        time.sleep(max(0.0, self._events_begin - time.monotonic()))
        return Reply(200, json.dumps({"DocumentIncarnation": 1, "Events": self.events}))

    def _start_events(self, body: bytes) -> Reply:
        ids = [each["EventId"] for each in json.loads(body)["StartRequests"]]
        if not set(ids) <= {event["EventId"] for event in self.events}:
            return Reply(400, json.dumps({"error": "no such event"}))
        self.started.extend(ids)
        return Reply(200)

    def _api(self, method: str, path: str, query: Query, headers: Mapping[str, str]) -> Reply:
        """The deletion of this machine, as Compute Engine and Azure Resource Manager take it."""
        ours = {
            f"/compute/v1/projects/{PROJECT}/zones/{ZONE}/instances/{NAME}": {},
            RESOURCE: {"api-version": "2026-04-01", "forceDeletion": "true"},
        }
        if headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, "Unauthorized")
        if method != "DELETE" or ours.get(path) != query:
            return Reply(400, "Bad Request")
        self.deleted.append(path)
        return Reply(202, "{}")

    def _token(self, _query: Query) -> str:
        return json.dumps(
            {"access_token": self.access_token, "expires_in": 3599, "token_type": "Bearer"}
        )

    def _aws_credentials(self, _query: Query) -> str:
        return json.dumps(
            {
                "Code": "Success",
                "Type": "AWS-HMAC",
                "AccessKeyId": "ASIAEXAMPLE",
                "SecretAccessKey": "an-example",
                "Token": "a-session-token",
                "Expiration": (self.now() + timedelta(hours=6)).strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
        )


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A machine that ends in the middle of a question is part of the game."""


def _handler(metadata: Metadata) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = metadata.answer(self.command, self.path, headers, body)
            data = reply.text.encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - the names that are looked up

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(metadata.now(), usegmt=True)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    return Handler
