"""Writes everything in `docs/` that follows from the program: `make docs`.

Whole files: `cli.md`, `openapi.json`, `orchctl.schema.json`, and the roles and policies of clouds.
Inside pages written by hand: what stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel

from control_plane.api import openapi
from control_plane.config import fields
from control_plane.config.diff import usual_fields
from control_plane.config.json_schema import schema_text
from control_plane.config.schema import PLACES, CloudsDoc, MachinesDoc, Place
from control_plane.core.alerts import AlertKind
from control_plane.core.policy import Window
from docs import generate_cli, generate_serverless, generate_store, generate_terraform
from infra.iam import clouds, render, terraform

REFERENCE = Path(__file__).parent / "reference"
CONFIGURATION = REFERENCE / "configuration.md"
SCHEMA = REFERENCE / "orchctl.schema.json"
OPENAPI = REFERENCE / "openapi.json"

_BLOCK = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n).*?(<!-- end -->)", re.DOTALL)

_FORMS = (
    (fields.Duration, "duration"),
    (fields.PriceHour, "USD per hour"),
    (fields.Hour, "USD per hour"),
    (fields.Day, "USD per day"),
    (fields.Month, "USD per month"),
    (fields.Disk, "size"),
    (fields.MemoryRange, "range of sizes"),
    (fields.CountRange, "range of numbers"),
    (fields.Gpu, "kind of GPU"),
    (fields.Market, "`spot`, `on-demand` or `spot-first`"),
    (fields.Limit, "`hold` or `drain`"),
    (fields.Name, "name"),
    (fields.Option, "text"),
    (fields.Secret, "secret reference"),
    (fields.AwsImage, "image id or SSM parameter"),
    (fields.GcpPath, "name or path"),
    (fields.GcpAccount, "e-mail address"),
    (fields.AzureId, "resource id"),
    (fields.AzureImage, "`publisher:offer:sku:version` or resource id"),
    (bool, "`true` or `false`"),
    (list[fields.Option], "list of texts"),
    (fields.Cron, "cron line"),
    (fields.TimeZone, "time zone"),
    (fields.Count, "number, 0 to 10000"),
    (fields.Some, "number, 1 to 10000"),
    (fields.Priority, "number, -1000 to 1000"),
    (list[fields.Region], "list of regions"),
    (list[fields.AlertOn], "list of " + ", ".join(f"`{kind}`" for kind in AlertKind)),
    (list[str], "list of pool names"),
)
"""The type of a field, and what one writes there."""

_UNWRITTEN = {
    "jobs_per_machine": "what each job states",
    "max_running": "no limit",
    "max_running_per_owner": "no limit",
    "gpu": "no GPU",
    "cpu": "any",
    "memory": "any",
    "max_price": "no limit",
    "machines": "as below",
    "budget": "as below",
    "warm": "none",
    "closed": "none",
    "alerts": "none",
    "subscription": "that of the credentials",
    "timezone": f"`{Window(cron='', duration_s=0).timezone}`",
    "slack": "one of the two",
    "webhook": "one of the two",
    "regions": "all",
    "subnets": "those of the default VPC",
    "security_groups": "the default one",
    "instance_profile": "`orchctl-machine`",
    "role": "as `instance_profile`",
    "life_limit_role": "none",
    "image": "one with NVIDIA's driver",
    "public_ip": "as the cloud does",
    "network": "`default`",
    "subnetwork": "that of the region",
    "service_account": "the project's default",
    "subnet": "`default` of `orchctl-{region}`",
    "network_security_group": "none",
    "identity": "none",
}
"""What holds where a field without a default of its own is not written."""

_AZURE_NET = "/subscriptions/0000/resourceGroups/net/providers/Microsoft.Network"
EXAMPLES = {
    "apiVersion": "orchctl/v1",
    "kind": "Autoscaler",
    "name": "research",
    "queues": "{default: {pools: [l4]}}",
    "pools": "{l4: {clouds: {local: {}}}}",
    "budget": "{hour: 20 USD, at_limit: drain}",
    "alerts": "[{slack: secret://slack-webhook, on: [budget]}]",
    "queues.*.pools": "[l4]",
    "queues.*.priority": "10",
    "queues.*.launch_after": "90s",
    "queues.*.jobs_per_machine": "8",
    "queues.*.ageing": "30m",
    "queues.*.max_running": "64",
    "queues.*.max_running_per_owner": "8",
    "pools.*.gpu": "A100:80GB:1..8",
    "pools.*.cpu": "4..",
    "pools.*.memory": "16GB..64GB",
    "pools.*.disk": "200GB",
    "pools.*.clouds": "{aws: {regions: [us-east-1]}}",
    "pools.*.market": "on-demand",
    "pools.*.max_price": "1.50 USD/hour",
    "pools.*.machines": "{min: 0, max: 12}",
    "pools.*.gpus_max": "16",
    "pools.*.idle_timeout": "5m",
    "pools.*.boot_timeout": "10m",
    "pools.*.max_lifetime": "24h",
    "pools.*.warm": '[{cron: "0 8 * * MON-FRI", for: 10h, machines: 1}]',
    "pools.*.closed": '[{cron: "0 20 * * FRI", for: 60h}]',
    "pools.*.clouds.local": "{}",
    "pools.*.clouds.simulated": "{}",
    "pools.*.clouds.aws": "{regions: [us-east-1]}",
    "pools.*.clouds.gcp": "{regions: [us-central1], project: acme-ml}",
    "pools.*.clouds.azure": "{regions: [eastus], resource_group: orchctl}",
    "pools.*.clouds.simulated.regions": "[sim-north]",
    "pools.*.clouds.aws.regions": "[us-east-1, us-west-2]",
    "pools.*.clouds.aws.subnets": "[subnet-0abc1234def567890]",
    "pools.*.clouds.aws.security_groups": "[sg-0abc1234def567890]",
    "pools.*.clouds.aws.instance_profile": "orchctl-machine",
    "pools.*.clouds.aws.role": "orchctl-machine",
    "pools.*.clouds.aws.image": "ami-0abc1234def567890",
    "pools.*.clouds.aws.public_ip": "false",
    "pools.*.clouds.aws.life_limit_role": "arn:aws:iam::123456789012:role/orchctl-life-limit",
    "pools.*.clouds.gcp.regions": "[us-central1]",
    "pools.*.clouds.gcp.project": "acme-ml",
    "pools.*.clouds.gcp.network": "ml-net",
    "pools.*.clouds.gcp.subnetwork": "projects/acme-net/regions/{region}/subnetworks/gpu",
    "pools.*.clouds.gcp.service_account": "agents@acme-ml.iam.gserviceaccount.com",
    "pools.*.clouds.gcp.image": "projects/acme-ml/global/images/family/gpu",
    "pools.*.clouds.gcp.public_ip": "false",
    "pools.*.clouds.azure.regions": "[eastus]",
    "pools.*.clouds.azure.resource_group": "orchctl",
    "pools.*.clouds.azure.subscription": "00000000-0000-0000-0000-000000000000",
    "pools.*.clouds.azure.subnet": f"{_AZURE_NET}/virtualNetworks/ml-{{region}}/subnets/gpu",
    "pools.*.clouds.azure.network_security_group": f"{_AZURE_NET}/networkSecurityGroups/gpu",
    "pools.*.clouds.azure.identity": (
        "/subscriptions/0000/resourceGroups/ml/providers/Microsoft.ManagedIdentity/"
        "userAssignedIdentities/machine"
    ),
    "pools.*.clouds.azure.image": "microsoft-dsvm:ubuntu-hpc:2204:latest",
    "pools.*.clouds.azure.public_ip": "false",
    "pools.*.machines.min": "1",
    "pools.*.machines.max": "12",
    "pools.*.warm.*.cron": '"0 8 * * MON-FRI"',
    "pools.*.warm.*.for": "10h",
    "pools.*.warm.*.timezone": "Europe/Berlin",
    "pools.*.warm.*.machines": "1",
    "pools.*.closed.*.cron": '"0 20 * * FRI"',
    "pools.*.closed.*.for": "60h",
    "pools.*.closed.*.timezone": "Europe/Berlin",
    "budget.hour": "20 USD",
    "budget.day": "200 USD",
    "budget.month": "3000 USD",
    "budget.at_limit": "drain",
    "alerts.*.slack": "secret://slack-webhook",
    "alerts.*.webhook": "secret://alert-address",
    "alerts.*.on": "[budget, job-failed]",
}
"""One value for every field, by its path. A test puts each into a document and loads it."""


def main() -> None:
    """Write all of it."""
    generate_cli.TARGET.write_text(generate_cli.generate(), encoding="utf-8")
    OPENAPI.write_text(openapi.text(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    CONFIGURATION.write_text(configuration(CONFIGURATION.read_text("utf-8")), encoding="utf-8")
    store = generate_store.PAGE
    store.write_text(with_tables(store.read_text("utf-8"), generate_store.tables()), "utf-8")
    for readme in generate_terraform.readmes():
        text = with_tables(readme.read_text("utf-8"), generate_terraform.tables(readme))
        readme.write_text(text, "utf-8")
    terraform.main()
    render.main()
    clouds.main()
    for page, tables in generate_serverless.PAGES.items():
        page.write_text(with_tables(page.read_text("utf-8"), tables()), "utf-8")


def configuration(page: str) -> str:
    """The page of the document with its tables written anew."""
    return with_tables(page, {path_of(place): "\n".join(_table(place)) for place in PLACES})


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """A page with its tables written anew. Raises `KeyError` for a table nobody can make."""
    return _BLOCK.sub(lambda match: f"{match[1]}{tables[match['name']]}\n{match[3]}", page)


def path_of(place: Place) -> str:
    """`pools.*.machines`; the top of the document is `document`."""
    return ".".join(place.pattern) or "document"


def paths() -> Iterator[str]:
    """Every field of the document, by its path."""
    for place in PLACES:
        for name in place.fields:
            yield ".".join((*place.pattern, name))


def _table(place: Place) -> Iterator[str]:
    if not place.fields:
        yield "It has no fields: write `{}`."
        return
    yield "| field | what it says | form | default | example |"
    yield "| --- | --- | --- | --- | --- |"
    hints = get_type_hints(place.part, include_extras=True)
    for name, info in place.part.model_fields.items():
        shown = info.alias or name
        example = EXAMPLES[".".join((*place.pattern, shown))]
        cells = (
            f"`{shown}`",
            info.description or _FIXED[shown],
            _form(hints[name]),
            _default(place.part, shown, required=info.is_required()),
            f"`{example}`",
        )
        yield f"| {' | '.join(cells)} |"


_FIXED = {"apiVersion": "The version of this format.", "kind": "The kind of document."}


def _form(hint: Any) -> str:
    for kind, words in _FORMS:
        if kind == hint:
            return words
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if plain is str:
        return "fixed text"
    return "list of maps" if get_origin(plain) is list else "map"


def _default(part: type[BaseModel], name: str, *, required: bool) -> str:
    if required:
        return "required"
    if part is CloudsDoc:
        return "not used"
    usual = usual_fields().get(f"machines.{name}" if part is MachinesDoc else name, "")
    return f"`{usual}`" if usual else _UNWRITTEN[name]


if __name__ == "__main__":
    main()
