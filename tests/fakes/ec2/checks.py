"""Every request and every answer held against botocore's own service models.

A request is parsed, validated, and written out again: what is lost on the way was no parameter of
the API. An answer may hold nothing that its shape does not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any
from xml.etree import ElementTree as ET

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from botocore.utils import parse_timestamp
from botocore.validate import ParamValidator
from moto.core.parse import EC2QueryParser
from moto.core.utils import get_service_model

_SCALARS = {
    "boolean": {"true": True, "false": False}.__getitem__,
    "integer": int,
    "long": int,
    "double": float,
    "float": float,
    "timestamp": parse_timestamp,
}


@cache
def model(service: str) -> ServiceModel:
    """botocore's description of a service."""
    return botocore.session.Session().get_service_model(service)


def ec2_request(operation: str, form: Mapping[str, str]) -> tuple[Mapping[str, Any], str]:
    """The parameters of an EC2 request, and what is wrong with it."""
    shape = get_service_model("ec2").operation_model(operation)
    parser: Any = EC2QueryParser(shape, timestamp_parser=parse_timestamp)
    try:
        parsed = parser.parse({"values": form})
    except ValueError as error:
        return {}, f"{operation}: {error}"
    if found := invalid(parsed, model("ec2").operation_model(operation).input_shape):
        return parsed, found
    again = create_serializer("ec2").serialize_to_request(
        dict(parsed), model("ec2").operation_model(operation)
    )["body"]
    unknown = sorted(set(form) - set(again))
    return parsed, f"{operation}: no such parameter: {unknown}" if unknown else ""


def json_request(service: str, operation: str, params: Mapping[str, Any]) -> str:
    """What is wrong with the parameters of a JSON request."""
    return invalid(params, model(service).operation_model(operation).input_shape)


def invalid(params: Mapping[str, Any], shape: Shape | None) -> str:
    """What botocore's own validation says; empty when all is well."""
    if shape is None:
        return f"takes no parameters: {params}" if params else ""
    report = ParamValidator().validate(params, shape)
    return report.generate_report() if report.has_errors() else ""


def answer_problems(service: str, operation: str, body: bytes) -> list[str]:
    """What an answer holds that its shape does not know."""
    found = model(service).operation_model(operation)
    if service == "ec2":
        root = ET.fromstring(body)
        return list(_strange(root, found.output_shape, operation)) if found.output_shape else []
    if model(service).protocol == "query":
        return list(_strange(ET.fromstring(body)[0], found.output_shape, operation))
    # What is null is as if it were not there.
    told = json.loads(body or b"{}", object_hook=_without_null)
    problem = invalid(told, found.output_shape)
    return [problem] if problem else []


def _without_null(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value is not None}


def read_answer(operation: str, body: str) -> dict[str, Any]:
    """An EC2 answer as its client reads it."""
    found: OperationModel = model("ec2").operation_model(operation)
    whole = {"status_code": 200, "headers": {}, "body": body.encode()}
    read: dict[str, Any] = create_parser("ec2").parse(whole, found.output_shape)
    return read


def _strange(element: ET.Element, shape: Shape, path: str) -> Iterator[str]:
    match shape.type_name:
        case "structure":
            names = {
                member.serialization.get("name", name): member
                for name, member in shape.members.items()
            }
            for child in element:
                name = child.tag.rpartition("}")[2]
                if name in names:
                    yield from _strange(child, names[name], f"{path}.{name}")
                elif name.lower() != "requestid":
                    yield f"{path} has no {name}"
        case "list":
            for child in element:
                yield from _strange(child, shape.member, f"{path}[]")
        case kind if kind in _SCALARS:
            try:
                _SCALARS[kind](element.text or "")
            except (ValueError, KeyError):
                yield f"{path} is no {kind}: {element.text!r}"
