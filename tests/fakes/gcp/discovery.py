"""The discovery document as a route table, with a check for every request and every answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema_rs

_DOCUMENT = Path(__file__).parents[1] / "specs" / "gcp" / "compute.v1.trimmed.json"
_BILLING = _DOCUMENT.with_name("cloudbilling.v1.trimmed.json")
_COMMON = frozenset({"alt", "fields", "key"})
_WHOLE_NUMBERS = frozenset({"int64", "uint64"})

Json = dict[str, Any]


class ApiError(Exception):
    """An answer that is no success, as the API words it."""

    def __init__(
        self, status: int, reason: str, message: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = headers or {}

    def body(self) -> Json:
        domain = "usageLimits" if self.status in (403, 429) else "global"
        error = {"message": self.message, "domain": domain, "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [error]}}


class NoSuchMethod(Exception):
    """The path of a request is not in the document."""


def invalid(field: str, value: object, why: str) -> ApiError:
    """400 for one field."""
    return ApiError(400, "invalid", f"Invalid value for field '{field}': '{value}'. {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One method of the API."""

    name: str
    """Such as `instances.insert`."""
    verb: str
    path: re.Pattern[str]
    query: frozenset[str]
    request: jsonschema_rs.Validator | None
    answer: jsonschema_rs.Validator

    def check_request(self, query: Mapping[str, str], body: Json | None) -> None:
        """Raise the 400 that the real API answers to what it does not know."""
        if strange := sorted(set(query) - self.query):
            raise ApiError(400, "badRequest", f'Unknown name "{strange[0]}": cannot bind query')
        if (self.request is None) != (body is None):
            raise ApiError(400, "badRequest", "a body is missing, or there should be none")
        if self.request is not None and (problem := _problem(self.request, body)):
            raise ApiError(400, "invalid", f"Invalid value for field {problem}")

    def check_answer(self, body: Json) -> str:
        """What is wrong with an answer of ours; empty = nothing."""
        return _problem(self.answer, body)


def _problem(validator: jsonschema_rs.Validator, value: object) -> str:
    found = next(validator.iter_errors(value), None)
    return f"'resource.{'.'.join(map(str, found.instance_path))}': {found.message}" if found else ""


@cache
def methods() -> Sequence[Method]:
    """All methods of Compute Engine, and the one of the price list."""
    document = json.loads(_DOCUMENT.read_text())
    return (*_methods(document), _price_list(json.loads(_BILLING.read_text())))


def _price_list(document: Json) -> Method:
    raw = document["resources"]["services"]["resources"]["skus"]["methods"]["list"]
    names = raw["parameters"].items()
    return Method(
        name="skus.list",
        verb=raw["httpMethod"],
        path=re.compile("/v1/services/(?P<service>[^/]+)/skus"),
        query=frozenset(name for name, each in names if each["location"] == "query") | _COMMON,
        request=None,
        answer=_validator(document, raw["response"]["$ref"], ""),
    )


def _methods(document: Json) -> Iterator[Method]:
    everywhere = set(document["parameters"]) | {"$alt"}
    for resource in document["resources"].values():
        for raw in resource["methods"].values():
            names = raw["parameters"].items()
            query = {name for name, each in names if each["location"] == "query"}
            request = raw.get("request", {}).get("$ref")
            yield Method(
                name=raw["id"].removeprefix("compute."),
                verb=raw["httpMethod"],
                path=_path(raw),
                query=frozenset(query | everywhere),
                request=_validator(document, request, raw["id"]) if request else None,
                answer=_validator(document, raw["response"]["$ref"], ""),
            )


def _path(raw: Json) -> re.Pattern[str]:
    def part(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{raw['parameters'][found[1]].get('pattern', '[^/]+')})"

    return re.compile("/compute/v1/" + re.sub(r"\{(\w+)\}", part, raw["path"]))


def find(verb: str, path: str) -> tuple[Method, dict[str, str]]:
    """The method of a request and the names in its path. Raises `NoSuchMethod`."""
    for method in methods():
        if method.verb == verb and (found := method.path.fullmatch(unquote(path))):
            return method, found.groupdict()
    raise NoSuchMethod(f"{verb} {path} is not a method of this API")


def _validator(document: Json, name: str, method_id: str) -> jsonschema_rs.Validator:
    schemas = {key: _schema(value, method_id) for key, value in document["schemas"].items()}
    return jsonschema_rs.validator_for({"$ref": f"#/$defs/{name}", "$defs": schemas})


def _schema(raw: Json, method_id: str) -> Json:
    """One discovery schema as JSON Schema; names that it does not list are refused."""
    if "$ref" in raw:
        return {"$ref": f"#/$defs/{raw['$ref']}"}
    made: Json = {key: raw[key] for key in ("type", "enum") if raw.get(key, "any") != "any"}
    if "pattern" in raw:
        # `[a-zA-Z0-9-_]` is a class with a dash in its middle, which strict engines refuse.
        made["pattern"] = f"^(?:{raw['pattern'].replace('0-9-_', '0-9_-')})$"
    elif raw.get("format") in _WHOLE_NUMBERS and raw["type"] == "string":
        made["pattern"] = "^-?[0-9]+$"
    if "items" in raw:
        made["items"] = _schema(raw["items"], method_id)
    if "properties" in raw:
        made["properties"] = {k: _schema(v, method_id) for k, v in raw["properties"].items()}
        made["required"] = _required(raw["properties"], method_id)
        made["additionalProperties"] = False
    elif "additionalProperties" in raw:
        made["additionalProperties"] = _schema(raw["additionalProperties"], method_id)
    return made


def _required(properties: Json, method_id: str) -> list[str]:
    return [
        name
        for name, each in properties.items()
        if method_id in each.get("annotations", {}).get("required", ())
    ]


@cache
def field_names(schema: str) -> frozenset[str]:
    """The fields of one schema, for checking filters."""
    document = json.loads(_DOCUMENT.read_text())
    return frozenset(document["schemas"][schema]["properties"])
