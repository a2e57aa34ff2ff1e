"""The real Terraform, with providers that need no network."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests import requires

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "terraform"
SPECS = ROOT / "tests" / "fakes" / "specs" / "terraform"
_PROVIDER = "tests.fakes.terraform_provider"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_PLATFORM = (
    f"{platform.system().lower()}_{_ARCHITECTURE.get(platform.machine(), platform.machine())}"
)
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that has ended."""

    code: int
    text: str
    """What it said, on both outputs."""

    def ok(self) -> Ended:
        """Itself, when nothing went wrong; 2 is a plan with changes."""
        assert self.code in (0, 2), self.text
        return self


class Terraform:
    """Runs commands on copies of modules and examples, with the providers of
    `tests/fakes/terraform_provider`."""

    def __init__(self, home: Path, **environment: str) -> None:
        """`home` is for its settings, its providers and the copies; `environment` is what providers
        find their cloud by."""
        self._program = requires.terraform()
        self._python = requires.terraform_providers()
        self._home = home
        self._copy = home / "terraform"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(home),
            "TF_CLI_CONFIG_FILE": str(home / "cli.tfrc"),
            "TF_IN_AUTOMATION": "1",
            "CHECKPOINT_DISABLE": "1",
            **environment,
        }
        shutil.copytree(SOURCES, self._copy, ignore=shutil.ignore_patterns(".terraform*"))
        self._install_providers()
        self._servers: list[subprocess.Popen[str]] = []
        self._attached = self._served()

    def close(self) -> None:
        """End the providers."""
        for server in self._servers:
            server.kill()
            server.communicate()

    def folder(self, name: str) -> Path:
        """The copy of `modules/NAME` or `examples/NAME`."""
        return self._copy / name

    def run(self, name: str, *words: str, attached: bool = True) -> Ended:
        """Run a command in the copy of a folder: with the providers that run already, or as users
        do, with such as it starts itself, which takes a second each time."""
        ended = subprocess.run(
            [self._program, *words],
            cwd=self.folder(name),
            env=self.environment | (self._attached if attached else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        return Ended(ended.returncode, ended.stdout)

    def ready(self, name: str) -> None:
        """`init`, once, from the mirror."""
        if not (self.folder(name) / ".terraform").exists():
            self.run(name, "init", "-input=false", "-no-color", attached=False).ok()

    def plan(self, name: str, *words: str) -> Mapping[str, Any]:
        """The plan of a folder as `terraform show -json` tells it."""
        self.ready(name)
        self.run(name, "plan", "-input=false", "-no-color", "-out=plan", *words).ok()
        told: Mapping[str, Any] = json.loads(self.run(name, "show", "-json", "plan").ok().text)
        return told

    def _install_providers(self) -> None:
        """What `init` finds: programs of the versions whose schemas are kept."""
        mirror = self._home / "mirror"
        (self._home / "cli.tfrc").write_text(
            f'provider_installation {{\n  filesystem_mirror {{\n    path = "{mirror}"\n  }}\n}}\n'
        )
        host = self._host()
        for path in SPECS.glob("*.schema.json"):
            name, _, version = path.name.removesuffix(".schema.json").partition("-")
            folder = mirror / host / "hashicorp" / name / version / _PLATFORM
            folder.mkdir(parents=True)
            program = folder / f"terraform-provider-{name}_v{version}"
            program.write_text(
                f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{self._python}" -m {_PROVIDER} {name}\n'
            )
            program.chmod(0o755)

    def _host(self) -> str:
        """Where Terraform thinks that providers without a host come from."""
        told = self.run("modules/control-plane", "providers", "-no-color", attached=False).ok()
        found = re.search(r"provider\[([^/]+)/hashicorp/aws\]", told.text)
        assert found, told.text
        return found[1]

    def _served(self) -> dict[str, str]:
        """Start the providers; what tells Terraform where they are."""
        for path in SPECS.glob("*.schema.json"):
            self._servers.append(
                subprocess.Popen(
                    [self._python, "-u", "-m", _PROVIDER, path.name.partition("-")[0], "--dev"],
                    env=self.environment | {"PYTHONPATH": str(ROOT)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        found: dict[str, Any] = {}
        for server in self._servers:
            assert server.stdout is not None
            line = next(line for line in server.stdout if "TF_REATTACH_PROVIDERS" in line)
            found |= json.loads(line.partition("=")[2].strip().strip("'"))
        return {"TF_REATTACH_PROVIDERS": json.dumps(found)}
