"""Somebody who means harm to a deployment: sends requests as a client, or hands the function events
as the HTTP API makes them, with what no client library would let through."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

from tests.answers import SOON_S, Answer, ask
from tests.serverless.deployed import TOKEN, Deployed

KNOCK = "/v1/knock"
"""Asked for to hear of what was asked before."""


def request_event(
    method: str,
    path: str,
    body: str = "",
    *,
    headers: Mapping[str, str] | None = None,
    query: str = "",
    sender: str = "198.51.100.1",
    base64_body: bool = False,
) -> dict[str, Any]:
    """A request as an HTTP API hands it to a function, payload 2.0."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {
            "host": "orchctl.example",
            "content-type": "application/json",
            **(headers or {}),
        },
        "requestContext": {
            "http": {"method": method, "path": path, "sourceIp": sender},
            "stage": "$default",
        },
        "body": body,
        "isBase64Encoded": base64_body,
    }


def answer_of(told: Mapping[str, Any]) -> Answer:
    """What an HTTP API makes of what a function returned."""
    content = told.get("body", "").encode()
    return Answer(
        status=told["statusCode"],
        headers=told["headers"],
        body=base64.b64decode(content) if told.get("isBase64Encoded") else content,
    )


class Attacker:
    """Keeps what the function answered, to compare it with the function's log."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        self.answered: list[tuple[str, str, int]] = []
        """Method, path and status of each request."""
        self._lambda = deployed.client("lambda")
        self._logs = deployed.client("logs")
        self._began_ms = round(time.time() * 1000)

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str = TOKEN,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a request to the HTTP API."""
        got = ask(self.deployed.url, method, path, body, token=token, headers=headers)
        return self._note(method, unquote(path.partition("?")[0]), got)

    def hand(
        self,
        method: str,
        path: str,
        body: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        query: str = "",
        token: str = TOKEN,
        sender: str = "198.51.100.1",
        base64_body: bool = False,
    ) -> Answer:
        """Hand the function an event, payload 2.0."""
        event = request_event(
            method,
            path,
            body,
            headers={**({"authorization": f"Bearer {token}"} if token else {}), **(headers or {})},
            query=query,
            sender=sender,
            base64_body=base64_body,
        )
        return self._note(method, path, answer_of(self._invoke(event)))

    def _invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._lambda.invoke(
            FunctionName=self.deployed.name("api"), Payload=json.dumps(event).encode()
        )
        told: dict[str, Any] = json.loads(answer["Payload"].read())
        assert "FunctionError" not in answer, (event, told)
        return told

    def _note(self, method: str, path: str, got: Answer) -> Answer:
        self.answered.append((method, path, got.status))
        return got

    def lines(self) -> list[tuple[str, str, int]]:
        """What the function's log says of the requests so far, one line for each."""

        def told() -> list[tuple[str, str, int]]:
            found = [json.loads(each) for each in self._texts() if each.startswith("{")]
            lines = [
                (each["method"], each["path"], each["status"])
                for each in found
                if each["message"] == "answered"
            ]
            return [each for each in lines if each[1] != KNOCK]

        self._until(lambda: len(told()) >= len(self.answered))
        return told()

    def is_told(self, words: str) -> bool:
        """Whether the function's log says this of a request so far, beside its line."""
        return self._until(lambda: any(words in each for each in self._texts()))

    def _until(self, condition: Callable[[], bool]) -> bool:
        """The emulator gives out late lines with those of the next request."""
        deadline = time.monotonic() + SOON_S
        while not condition() and time.monotonic() < deadline:
            self._invoke(request_event("GET", KNOCK))
        return condition()

    def _texts(self) -> list[str]:
        group = f"/aws/lambda/{self.deployed.name('api')}"
        asked = {"logGroupName": group, "startTime": self._began_ms, "limit": 10_000}
        return [each["message"] for each in self._logs.filter_log_events(**asked)["events"]]
