"""Which file system a store file lies on, by the texts that kernels write."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from control_plane.errors import Unavailable
from control_plane.stores.sqlite import SqliteStore, mounts

SERVER = """\
/dev/vda1 / ext4 rw,relatime,errors=remount-ro 0 0
tmpfs /run tmpfs rw,nosuid,nodev,size=1626044k,mode=755 0 0
/dev/nvme1n1 /data xfs rw,relatime 0 0
10.0.0.5:/export /data/shared nfs4 rw,relatime,vers=4.2,rsize=1048576 0 0
//nas/team /mnt/team\\040share cifs rw,relatime,vers=3.1.1 0 0
ann@host:/home/ann /home/ann/there fuse.sshfs rw,nosuid,nodev 0 0
gvfsd-fuse /run/user/1000/gvfs fuse.gvfsd-fuse rw,nosuid 0 0
/dev/sdb1 /media/stick fuseblk rw,nosuid,nodev 0 0
"""
CONTAINER = """\
overlay / overlay rw,relatime,lowerdir=/var/lib/docker/overlay2/l/A:/var/lib/docker/overlay2/l/B 0 0
proc /proc proc rw,nosuid,nodev,noexec,relatime 0 0
fs-0123.efs.us-east-1.amazonaws.com:/ /state nfs4 rw,relatime,vers=4.1 0 0
"""
SUBSYSTEM = """\
/dev/sdc / ext4 rw,relatime,discard 0 0
C:\\134 /mnt/c 9p rw,noatime,dirsync,aname=drvfs;path=C:\\;uid=1000 0 0
"""


@pytest.mark.parametrize(
    ("text", "path", "kind"),
    [
        (SERVER, "/home/ann/.local/state/orchctl", "ext4"),
        (SERVER, "/", "ext4"),
        (SERVER, "/data/orchctl/orchctl.db", "xfs"),
        (SERVER, "/data/shared/orchctl.db", "nfs4"),
        (SERVER, "/data/sharedish", "xfs"),  # a longer name is another folder
        (SERVER, "/mnt/team share/state", "cifs"),
        (SERVER, "/mnt/team", "ext4"),
        (SERVER, "/home/ann/there", "fuse.sshfs"),
        (SERVER, "/media/stick/x", "fuseblk"),
        (CONTAINER, "/root/state", "overlay"),
        (CONTAINER, "/state/orchctl.db", "nfs4"),
        (SUBSYSTEM, "/mnt/c/Users/ann", "9p"),
        (SUBSYSTEM, "/home/ann", "ext4"),
        (SERVER + "tmpfs /data tmpfs rw 0 0\n", "/data/orchctl", "tmpfs"),  # mounted over it
        ("", "/anywhere", ""),
        ("nonsense\n\n/dev/vda1 /\n", "/anywhere", ""),
    ],
)
def test_the_mount_that_holds_a_path_is_found(text: str, path: str, kind: str) -> None:
    assert mounts.filesystem(text, PurePosixPath(path)) == kind


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "beegfs",
        "afs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.rclone",
        "fuse.gcsfuse",
    ],
)
def test_file_systems_that_reach_over_a_network(kind: str) -> None:
    assert mounts.over_network(kind)


@pytest.mark.parametrize(
    "kind",
    [
        "ext4",
        "xfs",
        "btrfs",
        "zfs",
        "tmpfs",
        "overlay",
        "apfs",
        "fuseblk",
        "fuse.ntfs-3g",
        "fuse.gvfsd-fuse",
        "f2fs",
    ],
)
def test_file_systems_of_this_machine(kind: str) -> None:
    assert not mounts.over_network(kind)


def test_a_store_on_a_network_file_system_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "mounts"
    told.write_text(f"/dev/vda1 / ext4 rw 0 0\nnas:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", told)
    path = tmp_path / "state" / "store.db"
    path.parent.mkdir()
    with pytest.raises(Unavailable, match=r"store\.db .*\(nfs4\)") as refused:
        SqliteStore(path)
    assert refused.value.fix == "Put the state directory on a local disk."
    assert list(path.parent.iterdir()) == []


def test_a_link_to_a_network_file_system_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    told = tmp_path / "mounts"
    told.write_text(f"/dev/vda1 / ext4 rw 0 0\nnas:/x {tmp_path / 'there'} cifs rw 0 0\n")
    monkeypatch.setattr(mounts, "MOUNTS", told)
    assert mounts.network_of(tmp_path / "here" / "store.db") == "cifs"


def test_where_mounts_are_not_told_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "MOUNTS", tmp_path / "nowhere")
    assert mounts.network_of(tmp_path) == ""
    SqliteStore(tmp_path / "store.db").close()
