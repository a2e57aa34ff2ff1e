"""The published descriptions of the API, as checks: of addresses, of bodies, of answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema_rs import Draft202012Validator, ValidationError

_FOLDER = Path(__file__).parent.parent / "specs" / "azure"
_GROUP = "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}"
_DISKS = f"{_GROUP}/providers/Microsoft.Compute/disks"
_NETWORK = f"{_GROUP}/providers/Microsoft.Network"
DISK_API, NETWORK_API = "2026-03-02", "2025-09-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the API can be asked for."""

    name: str
    method: str
    pattern: re.Pattern[str]
    version: str
    query: frozenset[str]


def _operation(name: str, method: str, url: str, version: str, *query: str) -> Operation:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", url)
    return Operation(
        name=name,
        method=method,
        pattern=re.compile(pattern, re.IGNORECASE),
        version=version,
        query=frozenset({"api-version", "$skiptoken", *query}),
    )


@cache
def operations() -> tuple[Operation, ...]:
    """Those of the published list, and the few plain ones that it leaves out."""
    listed = json.loads((_FOLDER / "compute-2026-04-01.operations.json").read_text())
    return (
        *(
            _operation(each["op"], each["method"], each["url"], each["api_version"], *each["query"])
            for each in listed
        ),
        _operation("disks_list", "GET", _DISKS, DISK_API),
        _operation("disks_delete", "DELETE", f"{_DISKS}/{{name}}", DISK_API),
        _operation("network_list", "GET", f"{_NETWORK}/{{kind}}", NETWORK_API),
        _operation("network_delete", "DELETE", f"{_NETWORK}/{{kind}}/{{name}}", NETWORK_API),
        _operation(
            "subnets_get",
            "GET",
            f"{_NETWORK}/virtualNetworks/{{network}}/subnets/{{name}}",
            NETWORK_API,
        ),
        _operation("network_get", "GET", f"{_NETWORK}/{{kind}}/{{name}}", NETWORK_API),
        _operation("subscriptions_list", "GET", "/subscriptions", "2022-12-01"),
        _operation(
            "operations_get",
            "GET",
            "/subscriptions/{subscriptionId}/providers/Microsoft.Compute/locations/{location}"
            "/operations/{operation}",
            "2026-04-01",
            "t",
            "c",
        ),
    )


def find(method: str, path: str) -> tuple[Operation, Mapping[str, str]] | None:
    """The operation that an address means, and the names in it."""
    for operation in operations():
        if operation.method == method and (found := operation.pattern.fullmatch(path)):
            return operation, found.groupdict()
    return None


def wrong_in_machine(name: str, body: Mapping[str, Any]) -> str:
    """What is wrong with the body of a machine's PUT; empty = nothing."""
    schema = _document("compute-2026-04-01.put.schema.json")
    kind = "Microsoft.Compute.virtualMachines"
    if problem := _problem(
        _check("compute-2026-04-01.put.schema.json", kind), {**body, "name": name}
    ):
        return problem
    found = next(_read_only(schema, schema["$defs"][kind], body, ""), "")
    return f"{found} is read-only" if found else ""


def wrong_in_answer(model: str, answer: object) -> str:
    """What is wrong with an answer of the compute API; empty = nothing."""
    return _problem(_check("compute-2026-04-01.models.schema.json", model), answer)


def wrong_in_network_answer(kind: str, answer: object) -> str:
    """The same for a network interface or public address."""
    return _problem(
        _check("network-2025-09-01.put.schema.json", f"Microsoft.Network.{kind}"), answer
    )


@cache
def _document(file: str) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads((_FOLDER / file).read_text())
    return document


@cache
def _check(file: str, definition: str) -> Draft202012Validator:
    defs = _document(file)["$defs"]
    return Draft202012Validator({"$defs": defs, "$ref": f"#/$defs/{definition}"})


def _problem(check: Draft202012Validator, value: object) -> str:
    try:
        check.validate(value)
    except ValidationError as error:
        return f"{'/'.join(map(str, error.instance_path))}: {error.message}"
    return ""


def _read_only(
    document: Mapping[str, Any], schema: Mapping[str, Any], value: object, path: str
) -> Iterator[str]:
    """Paths in a body that only answers may have."""
    while "$ref" in schema:
        schema = document["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        for each in value:
            yield from _read_only(document, schema.get("items", {}), each, path)
    elif isinstance(value, dict):
        for name, inner in value.items():
            known = schema.get("properties", {}).get(name, {})
            if known.get("readOnly"):
                yield f"{path}/{name}"
            yield from _read_only(document, known, inner, f"{path}/{name}")
