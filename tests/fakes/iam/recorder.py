"""Everything that is asked of AWS, seen where botocore hands it over."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import Any

import botocore.session
import pytest

from tests.fakes.iam.asks import Call

_ID = re.compile(r"(i|vol|eni|eipalloc|lt)-[0-9a-f]+")
_MINE = "orchctl.recorded"


class Recorder:
    """Sees all clients made while it is installed, whoever makes them."""

    def __init__(self) -> None:
        self.calls: dict[str, list[Call]] = {}
        """By who was at work."""
        self.tags: dict[str, Mapping[str, str]] = {}
        """Of what answers have shown, and of launch templates by name."""
        self.templates: dict[str, Mapping[str, Any]] = {}
        """What launch templates say, by name."""
        self._at_work = ""
        self._lock = Lock()

    @contextmanager
    def of(self, function: str) -> Iterator[None]:
        """All calls meanwhile are this function's."""
        self._at_work = function
        try:
            yield
        finally:
            self._at_work = ""

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Watch every client that is made from now on."""
        make = botocore.session.Session.create_client

        def watched(session: Any, *words: Any, **named: Any) -> Any:
            client = make(session, *words, **named)
            client.meta.events.register("provide-client-params", self._asked)
            client.meta.events.register("after-call", self._answered)
            return client

        patch.setattr(botocore.session.Session, "create_client", watched)

    def _asked(self, params: Any, model: Any, context: Any, **_: Any) -> None:
        if not self._at_work:
            return
        call = Call(
            service=model.service_model.service_name,
            operation=model.name,
            region=context["client_region"],
            parameters=dict(params),
        )
        with self._lock:
            calls = self.calls.setdefault(self._at_work, [])
            context[_MINE] = (self._at_work, len(calls))
            calls.append(call)
            self._learn_template(call)

    def _answered(self, parsed: Any, context: Any, **_: Any) -> None:
        if _MINE not in context:
            return
        function, at = context[_MINE]
        with self._lock:
            calls = self.calls[function]
            calls[at] = replace(calls[at], refused=str(parsed.get("Error", {}).get("Code", "")))
            if calls[at].service == "ec2":
                self._learn(parsed)

    def _learn(self, found: Any) -> None:
        """The tags of everything in an answer that has an id and tags."""
        if isinstance(found, list):
            for each in found:
                self._learn(each)
        elif isinstance(found, dict):
            tags = {tag["Key"]: tag["Value"] for tag in found.get("Tags", found.get("TagSet", ()))}
            names = [each for each in found.values() if isinstance(each, str)]
            if tags:
                self.tags |= {each: tags for each in names if _ID.fullmatch(each)}
            for each in found.values():
                self._learn(each)

    def _learn_template(self, call: Call) -> None:
        if call.operation == "CreateLaunchTemplate":
            (tagged,) = call.parameters["TagSpecifications"]
            tags = {tag["Key"]: tag["Value"] for tag in tagged["Tags"]}
            name = call.parameters["LaunchTemplateName"]
            self.tags[name], self.templates[name] = tags, call.parameters["LaunchTemplateData"]
