"""The controller's custom roles at Google Cloud and Azure, as files for those clouds' own tools.
`make docs` writes them, from what `orchctl doctor` looks for there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from providers.azure import examine as azure
from providers.gcp import examine as gcp

HERE = Path(__file__).parent
GCP = HERE / "gcp-controller-role.yaml"
AZURE = HERE / "azure-controller-role.json"
AZURE_QUOTAS = HERE / "azure-quotas-role.json"

ACT_AS = "iam.serviceAccounts.actAs"
"""Given on the account of the machines alone, and not in the project."""
HEAD = "# Made from providers/gcp/examine.py by `make docs`; a test compares.\n"


def files() -> Mapping[Path, str]:
    """What each file says."""
    group = [*(f"{kind}/read" for kind in azure.READS), *azure.CHANGES]
    return {
        GCP: _gcp(),
        AZURE: _azure("orchctl", "Launches, finds and ends machines of orchctl", group),
        AZURE_QUOTAS: _azure("orchctl-quotas", "Reads sizes and quotas", azure.OF_REGIONS),
    }


def gcp_rights() -> Sequence[str]:
    """Of the role in the project."""
    return sorted({*gcp.READS, *gcp.GETS, *gcp.WRITES} - {ACT_AS})


def _gcp() -> str:
    told = {
        "title": "orchctl",
        "description": "Launches, finds and ends machines of orchctl",
        "stage": "GA",
    }
    lines = [f"{name}: {text}" for name, text in told.items()]
    rights = [f"  - {right}" for right in gcp_rights()]
    return HEAD + "\n".join([*lines, "includedPermissions:", *rights]) + "\n"


def _azure(name: str, says: str, actions: Sequence[str]) -> str:
    # Azure wants to know where a role may be given; whoever makes it knows the subscription.
    role = {
        "Name": name,
        "IsCustom": True,
        "Description": says,
        "Actions": sorted(actions),
        "AssignableScopes": ["/subscriptions/SUBSCRIPTION"],
    }
    return json.dumps(role, indent=2) + "\n"


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
