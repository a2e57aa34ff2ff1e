"""The one-file agent: a zip that Python runs, with the same bytes wherever it is built."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import lru_cache
from pathlib import Path

LEFT_OUT = ("bundle.py", "user_data.py")
"""Only the control plane needs these."""

MAIN = b"from agent_bootstrap.__main__ import main\n\nmain()\n"

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip can hold."""


@lru_cache(maxsize=1)
def bundle() -> bytes:
    """The agent as a `.pyz`. Stored, not deflated: compressed bytes differ between zlib builds."""
    here = Path(__file__).parent
    files = {"__main__.py": MAIN}
    for path in here.glob("*.py"):
        if path.name not in LEFT_OUT:
            files["agent_bootstrap/" + path.name] = path.read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def bundle_sha256() -> str:
    """What a start-up text checks before it runs the agent."""
    return hashlib.sha256(bundle()).hexdigest()
