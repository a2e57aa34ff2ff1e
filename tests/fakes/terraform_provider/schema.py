"""The schema of a provider, as `terraform providers schema -json` tells it, for the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tf.gen import tfplugin_pb2 as pb

SPECS = Path(__file__).parents[1] / "specs" / "terraform"
NESTING = {
    "single": pb.Schema.NestedBlock.SINGLE,
    "list": pb.Schema.NestedBlock.LIST,
    "set": pb.Schema.NestedBlock.SET,
}

Block = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderSchema:
    """What a provider knows, by the names of types."""

    name: str
    provider: Block
    resources: Mapping[str, Block]
    data_sources: Mapping[str, Block]

    def full_name(self) -> str:
        """As Terraform calls it."""
        return f"hashicorp/{self.name}"


def load(name: str) -> ProviderSchema:
    """The schema that is kept for `aws`, `google` or `azurerm`."""
    (path,) = SPECS.glob(f"{name}-*.schema.json")
    told = json.loads(path.read_text())["provider_schemas"][f"hashicorp/{name}"]
    return ProviderSchema(
        name=name,
        provider=told["provider"]["block"],
        resources={key: each["block"] for key, each in told["resource_schemas"].items()},
        data_sources={key: each["block"] for key, each in told["data_source_schemas"].items()},
    )


def on_the_wire(block: Block) -> pb.Schema:
    """The schema of one type."""
    return pb.Schema(version=0, block=_block(block))


def empty(block: Block) -> dict[str, Any]:
    """An object of this type in which nothing is set."""
    found: dict[str, Any] = dict.fromkeys(block.get("attributes", {}))
    for name, each in block.get("block_types", {}).items():
        found[name] = None if each["nesting_mode"] == "single" else []
    return found


def _block(block: Block) -> pb.Schema.Block:
    return pb.Schema.Block(
        attributes=[
            pb.Schema.Attribute(
                name=name,
                type=json.dumps(each["type"]).encode(),
                required=each.get("required", False),
                optional=each.get("optional", False),
                computed=each.get("computed", False),
            )
            for name, each in block.get("attributes", {}).items()
        ],
        block_types=[
            pb.Schema.NestedBlock(
                type_name=name,
                block=_block(each["block"]),
                nesting=NESTING[each["nesting_mode"]],
                min_items=each.get("min_items", 0),
                max_items=each.get("max_items", 0),
            )
            for name, each in block.get("block_types", {}).items()
        ],
    )
