"""What the Terraform modules allow, written from the tables that say what is needed.

    python -m infra.iam.terraform

A policy of AWS is a template of `templatefile`; `roles.tf` says what its words stand for. What is
needed at Google Cloud and Azure is what `orchctl doctor` looks for there.
"""

from __future__ import annotations

import json
from pathlib import Path

from infra.iam.permissions import TRUST, statements
from providers.azure import examine as azure
from providers.gcp import examine as gcp

MODULES = Path(__file__).parents[2] / "terraform" / "modules"
WORDS = (
    "account",
    "bucket",
    "dead_letters",
    "installation",
    "life_limit_role",
    "machine_role",
    "partition",
    "prefix",
    "reconcile",
    "region",
    "table",
)
"""What the module fills in."""
JOINED = ("Microsoft.Network/virtualNetworks/", "Microsoft.Network/networkSecurityGroups/")
"""What machines use of networks that are somebody else's."""


def files() -> dict[Path, object]:
    """All that is written, by where it is."""
    policies = {
        MODULES / "control-plane" / "policies" / f"{role}.json.tftpl": _policy(role)
        for role in TRUST
    }
    return policies | {
        MODULES / "gcp-access" / "permissions.json": _gcp(),
        MODULES / "azure-access" / "permissions.json": _azure(),
    }


def _policy(role: str) -> object:
    """The policy of a role as a template."""
    words = {word: "${" + word + "}" for word in WORDS}
    return {"Version": "2012-10-17", "Statement": statements(role, words)}


def _gcp() -> object:
    """Of the role in the project; to lend machines their account is a right on that account."""
    rights = {*gcp.READS, *gcp.GETS, *gcp.WRITES}
    return sorted(rights - {"iam.serviceAccounts.actAs"})


def _azure() -> object:
    """Of the roles in the group of the machines, in the subscription, and where networks are."""
    group = [*(f"{kind}/read" for kind in azure.READS), *azure.CHANGES]
    return {
        "group": sorted(group),
        "subscription": sorted(azure.OF_REGIONS),
        "networks": sorted(each for each in group if each.startswith(JOINED)),
    }


def main() -> None:
    """Write all of it."""
    for path, document in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
