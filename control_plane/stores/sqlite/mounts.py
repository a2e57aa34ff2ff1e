"""Which file system a path lies on: SQLite's log needs memory that all users of a file share, and
over a network there is none.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

MOUNTS = Path("/proc/mounts")
"""Linux tells it there; elsewhere nothing is known and nothing refused."""

NETWORK = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "fhgfs", "glusterfs", "gpfs"),
        *("lustre", "ncpfs", "nfs", "nfs4", "orangefs", "pvfs2", "smb", "smb2", "smb3", "smbfs"),
        "vboxsf",
    )
)
"""Types of file systems that reach over a network, or to the host of a virtual machine."""
NETWORK_FUSE = frozenset(
    (
        *("afpfs", "ceph", "curlftpfs", "davfs2", "gcsfuse", "glusterfs", "goofys", "mount-s3"),
        *("nfs", "rclone", "s3fs", "smbnetfs", "sshfs"),
    )
)
"""The same by FUSE, where a type reads `fuse.sshfs`."""


def filesystem(mounts: str, path: PurePosixPath) -> str:
    """The type of the file system of an absolute path without links, by the text of `/proc/mounts`;
    empty when no mount holds it."""
    found, depth = "", -1
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        place = PurePosixPath(_unescaped(fields[1]))
        # Of two mounts on one place the later covers the earlier.
        if path.is_relative_to(place) and len(place.parts) >= depth:
            found, depth = fields[2], len(place.parts)
    return found


def over_network(kind: str) -> bool:
    """Whether a type of file system reaches over a network."""
    family, _, program = kind.partition(".")
    return kind in NETWORK or (family == "fuse" and program in NETWORK_FUSE)


def network_of(path: Path) -> str:
    """The type of the network file system that a path lies on; empty when it lies on none."""
    try:
        kind = filesystem(MOUNTS.read_text(errors="replace"), PurePosixPath(path.resolve()))
    except OSError:
        return ""
    return kind if over_network(kind) else ""


def _unescaped(field: str) -> str:
    """The kernel writes space, tab, newline and backslash as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)
