"""Where each cloud announces to a machine that it takes it away.

Only the machine's own metadata service is asked. An answer that cannot be read is no notice; once
there is a notice, what is unclear about it takes its default.
"""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Dict, Optional

from agent_bootstrap.cloud import AZURE_HEADERS, AZURE_INSTANCE, GCP_HEADERS, Answer, call
from agent_bootstrap.interruption import HINTS, Watcher
from agent_bootstrap.wire import Notice

AWS_SECONDS_LEFT = 110.0
"""AWS gives 120 s from the moment it decides; some have passed when its notice is seen."""

SECONDS_LEFT = 25.0
"""Google and Azure give 30 s."""

AWS_TOKEN_S = 21600
"""The longest life that AWS gives a token for its metadata service."""

GCP_WAIT_S = 60
"""How long Google is asked to hold its answer until that changes."""

AZURE_EVENTS = "/metadata/scheduledevents?api-version=2020-07-01"

AZURE_FIRST_ANSWER_S = 130.0
"""Azure may take two minutes for its first answer: the question switches its events on."""


class CloudWatcher(Watcher):
    """What the three have in common: a notice is given once, and nothing fails."""

    shutdown_s = SECONDS_LEFT
    """A cloud that stops a system switches it off 30 s later at the earliest, and the unit of the
    start-up text may take longer than that."""

    def __init__(self, metadata_url: str) -> None:
        self._metadata_url = metadata_url
        self._noticed = False

    def poll(self) -> Optional[Notice]:
        if self._noticed:
            return None
        try:
            notice = self._look()
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None  # no answer, or none of the form that is documented
        self._noticed = notice is not None and notice.kind not in HINTS
        return notice

    def _look(self) -> Optional[Notice]:
        raise NotImplementedError


class AwsWatcher(CloudWatcher):
    """`spot/instance-action` is the notice; the recommendation to rebalance only hints at one."""

    poll_s = 2.0
    """AWS suggests 5 s. A job that is given back sooner is sooner on its next machine."""

    def __init__(self, metadata_url: str) -> None:
        super().__init__(metadata_url)
        self._token = ""
        self._hinted = False

    def _look(self) -> Optional[Notice]:
        action = self._ask("spot/instance-action")
        if action.status == 200:
            return _spot(AWS_SECONDS_LEFT, _seconds_until(_aws_time(action), action))
        if not self._hinted and self._ask("events/recommendations/rebalance").status == 200:
            self._hinted = True
            return Notice("rebalance")
        return None

    def _ask(self, path: str) -> Answer:
        root = self._metadata_url + "/latest/"
        if not self._token:
            life = {"X-aws-ec2-metadata-token-ttl-seconds": str(AWS_TOKEN_S)}
            granted = call("PUT", root + "api/token", life)
            if granted.status != 200:
                return granted
            self._token = granted.text
        answer = call("GET", root + "meta-data/" + path, {"X-aws-ec2-metadata-token": self._token})
        if answer.status == 401:
            self._token = ""
        return answer


class GcpWatcher(CloudWatcher):
    """`instance/preempted` turns to TRUE; Google holds its answer until it does."""

    poll_s = 0.5
    """After an answer, or none; the waiting itself is done by the question."""

    def __init__(self, metadata_url: str) -> None:
        super().__init__(metadata_url)
        self._etag = ""

    def _look(self) -> Optional[Notice]:
        url = self._metadata_url + "/computeMetadata/v1/instance/preempted"
        if self._etag:
            url += "?wait_for_change=true&timeout_sec=%d&last_etag=%s" % (GCP_WAIT_S, self._etag)
        answer = call("GET", url, GCP_HEADERS, timeout_s=GCP_WAIT_S + 10.0)
        self._etag = answer.headers.get("ETag", "")
        return Notice("spot", SECONDS_LEFT) if answer.text == "TRUE" else None


class AzureWatcher(CloudWatcher):
    """A scheduled event of type `Preempt` or `Terminate` that names this machine."""

    poll_s = 1.0

    def __init__(self, metadata_url: str) -> None:
        super().__init__(metadata_url)
        self._url = metadata_url + AZURE_EVENTS
        self._timeout_s = AZURE_FIRST_ANSWER_S
        self._event_id = ""

    def _look(self) -> Optional[Notice]:
        answer = call("GET", self._url, AZURE_HEADERS, timeout_s=self._timeout_s)
        self._timeout_s = 5.0
        for event in json.loads(answer.text)["Events"]:
            if event.get("EventType") in ("Preempt", "Terminate") and self._means_us(event):
                self._event_id = event.get("EventId", "")
                return _azure_notice(event, answer)
        return None

    def drained(self) -> None:
        """Tell Azure that it need not wait any longer."""
        if not self._event_id:
            return
        request = json.dumps({"StartRequests": [{"EventId": self._event_id}]}).encode()
        headers = {"Content-Type": "application/json", **AZURE_HEADERS}
        with suppress(OSError):  # then it takes the machine when the time is over
            call("POST", self._url, headers, body=request, timeout_s=2.0)

    def _means_us(self, event: Dict[str, Any]) -> bool:
        """Whether an event is for this machine: its neighbours in a group are told of it too. When
        that cannot be known it is: to overlook one is worse."""
        named = [str(name).lower() for name in event.get("Resources", ())]
        answer = call("GET", self._metadata_url + AZURE_INSTANCE % "name", AZURE_HEADERS)
        return not named or answer.status != 200 or answer.text.lower() in named


WATCHERS = {"aws": AwsWatcher, "gcp": GcpWatcher, "azure": AzureWatcher}


def _spot(usual_s: float, left_s: Optional[float]) -> Notice:
    return Notice("spot", usual_s if left_s is None else min(usual_s, left_s))


def _aws_time(action: Answer) -> Optional[datetime]:
    try:
        return datetime.strptime(json.loads(action.text)["time"], "%Y-%m-%dT%H:%M:%S%z")
    except (ValueError, LookupError, TypeError):
        return None


def _azure_notice(event: Dict[str, Any], answer: Answer) -> Notice:
    # Once the event has started its time is empty.
    left_s = _seconds_until(_http_date(event.get("NotBefore")), answer)
    if event["EventType"] == "Preempt":
        return _spot(SECONDS_LEFT, left_s)
    return Notice("maintenance", SECONDS_LEFT if left_s is None else left_s)


def _seconds_until(moment: Optional[datetime], answer: Answer) -> Optional[float]:
    """Until a moment that an answer names, by the clock of who answered: a machine's own clock may
    still be wrong after its boot."""
    if moment is None:
        return None
    now = _http_date(answer.headers.get("Date")) or datetime.now(timezone.utc)
    return max((moment - now).total_seconds(), 0.0)


def _http_date(text: Any) -> Optional[datetime]:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError):
        return None
    return moment if moment.tzinfo else None
