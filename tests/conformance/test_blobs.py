"""Every blob storage writes whole blobs, appends once, and lets no key out of its folder."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import unquote

import httpx2
import pytest

from control_plane.blobs.local import LocalBlobs
from control_plane.blobs.memory import MemoryBlobs
from control_plane.errors import Conflict, InvalidInput, NotFound
from control_plane.ports import Blobs, Presigned, Upload
from tests.conformance.conftest import BLOBS

ALL_BYTES = bytes(range(256)) * 4


def test_a_blob_comes_back_byte_by_byte(blobs: Blobs) -> None:
    blobs.put("sources/abc.tar.gz", ALL_BYTES)
    assert blobs.get("sources/abc.tar.gz") == ALL_BYTES
    assert blobs.size("sources/abc.tar.gz") == 1024


def test_a_put_replaces_the_whole(blobs: Blobs) -> None:
    blobs.put("k", b"long and old")
    blobs.put("k", b"new")
    assert blobs.get("k") == b"new"
    blobs.put("k", b"")
    assert blobs.get("k") == b""


def test_what_is_not_there_is_not_found_and_has_no_size(blobs: Blobs) -> None:
    blobs.put("logs/j-1", b"x")
    for key in ("nothing", "logs", "logs/j-1/deeper", "logs/j-2"):
        with pytest.raises(NotFound):
            blobs.get(key)
        assert blobs.size(key) == 0
        assert blobs.read(key, 0, 10) == b""


def test_appends_add_up(blobs: Blobs) -> None:
    assert blobs.append("logs/j-1", 0, b"hello ") == 6
    assert blobs.append("logs/j-1", 6, b"world") == 11
    assert blobs.get("logs/j-1") == b"hello world"


@pytest.mark.parametrize(
    ("offset", "data", "result"),
    [
        (0, b"abcd", b"abcd"),  # the same again
        (0, b"ab", b"abcd"),  # a part of it again
        (2, b"cd", b"abcd"),
        (2, b"cdef", b"abcdef"),  # half known, half new
        (0, b"abcdef", b"abcdef"),
        (4, b"ef", b"abcdef"),
        (4, b"", b"abcd"),
        (1, b"", b"abcd"),
    ],
)
def test_an_append_skips_what_is_known(
    blobs: Blobs, offset: int, data: bytes, result: bytes
) -> None:
    blobs.append("k", 0, b"abcd")
    assert blobs.append("k", offset, data) == len(result)
    assert blobs.get("k") == result


def test_an_append_beyond_the_end_is_a_conflict_and_changes_nothing(blobs: Blobs) -> None:
    blobs.append("k", 0, b"abcd")
    for key, offset in (("k", 5), ("new", 1)):
        with pytest.raises(Conflict):
            blobs.append(key, offset, b"x")
    assert blobs.get("k") == b"abcd"
    assert blobs.size("new") == 0


def test_reads_take_a_part(blobs: Blobs) -> None:
    blobs.put("k", b"0123456789")
    assert blobs.read("k", 0, 4) == b"0123"
    assert blobs.read("k", 8, 4) == b"89"
    assert blobs.read("k", 10, 4) == b""
    assert blobs.read("k", 99, 4) == b""
    assert blobs.read("k", 3, 0) == b""


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../up",
        "a/../../up",
        "a/..",
        ".",
        ".hidden",
        "a/.hidden",
        "a//b",
        "a/",
        "a\\b",
        "a b",
        "a\nb",
        "a\n",
        "a\0b",
        "é",
        "a:b",
        "~root",
        "-rf",
        "x" * 201,
        "/".join(["x" * 100] * 9),
    ],
)
def test_unsafe_keys_are_invalid_everywhere(blobs: Blobs, key: str) -> None:
    for call in (
        lambda: blobs.put(key, b""),
        lambda: blobs.get(key),
        lambda: blobs.append(key, 0, b""),
        lambda: blobs.read(key, 0, 1),
        lambda: blobs.size(key),
    ):
        with pytest.raises(InvalidInput):
            call()


def test_all_blobs_below_a_prefix_are_forgotten_and_no_others(blobs: Blobs) -> None:
    gone = ["jobs/j-1/1/log", "jobs/j-1/1/artifacts/ab", "jobs/j-1/2/log"]
    kept = ["jobs/j-10/1/log", "jobs/j-2/1/log", "jobs/j-1x", "sources/j-1/1/log"]
    for key in (*gone, *kept):
        blobs.put(key, b"x")
    blobs.remove("jobs/j-1/")
    for key in gone:
        assert (blobs.size(key), blobs.read(key, 0, 9)) == (0, b"")
        with pytest.raises(NotFound):
            blobs.get(key)
    assert [blobs.get(key) for key in kept] == [b"x"] * 4


def test_removing_again_or_nothing_does_nothing_and_a_key_is_free_again(blobs: Blobs) -> None:
    blobs.remove("jobs/j-1/")
    blobs.append("jobs/j-1/1/log", 0, b"old")
    blobs.put("jobs/j-2", b"a blob of that very name")
    for prefix in ("jobs/j-1/", "jobs/j-1/", "jobs/j-2/", "jobs/j-3/deeper/"):
        blobs.remove(prefix)
    assert blobs.get("jobs/j-2") == b"a blob of that very name"
    assert blobs.append("jobs/j-1/1/log", 0, b"new") == 3
    assert blobs.get("jobs/j-1/1/log") == b"new"


@pytest.mark.parametrize(
    "prefix", ["", "/", "jobs", "jobs/j-1", "../", "jobs/../", "/etc/", "a//", ".hidden/", "a/./"]
)
def test_a_prefix_that_does_not_name_a_folder_is_invalid(blobs: Blobs, prefix: str) -> None:
    blobs.put("jobs/j-1/1/log", b"x")
    with pytest.raises(InvalidInput):
        blobs.remove(prefix)
    assert blobs.get("jobs/j-1/1/log") == b"x"


@pytest.mark.usefixtures("jumpy_threads")
def test_many_may_remove_the_same(blobs: Blobs) -> None:
    for number in range(20):
        blobs.put(f"jobs/j-1/{number}", b"x")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(blobs.remove, ["jobs/j-1/"] * 8))
    assert [blobs.size(f"jobs/j-1/{number}") for number in range(20)] == [0] * 20


@pytest.mark.parametrize("key", ["a", "logs/j-7k2m9/1", "x/A_b.c+d=e@f-g", "1/2/3", "_", "x" * 200])
def test_safe_keys_are_taken(blobs: Blobs, key: str) -> None:
    blobs.put(key, b"x")
    assert blobs.get(key) == b"x"


@pytest.mark.usefixtures("jumpy_threads")
def test_threads_that_repeat_the_same_appends_write_each_byte_once(blobs: Blobs) -> None:
    quick = isinstance(blobs, (LocalBlobs, MemoryBlobs))
    whole = bytes(number % 251 for number in range(2000 if quick else 280))

    def send(_: int) -> None:
        offset = 0
        while offset < len(whole):
            offset = blobs.append("k", offset, whole[offset : offset + 7])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    assert blobs.get("k") == whole


def put_all(blobs: Blobs, versions: list[bytes]) -> None:
    for version in versions:
        blobs.put("k", version)


def test_a_reader_beside_a_writer_sees_one_whole_blob(blobs: Blobs) -> None:
    versions = [bytes([number]) * 50_000 for number in range(30)]
    blobs.put("k", versions[0])
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(put_all, blobs, versions)
        seen = [blobs.get("k")]
        while not writing.done():
            seen.append(blobs.get("k"))
        writing.result()
    assert set(seen) <= set(versions)
    assert blobs.get("k") == versions[-1]


# ---------------------------------------------------------------------------- files on this disk


def test_files_lie_below_the_root_and_nothing_unfinished_stays(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put("a/b", b"1")
    blobs.append("c", 0, b"2")
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == ["blobs/a/b", "blobs/c"]
    assert LocalBlobs(tmp_path / "blobs").get("a/b") == b"1"


def test_removed_files_are_off_the_disk_and_links_out_of_it_are_not_followed(
    tmp_path: Path,
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    blobs = LocalBlobs(tmp_path / "blobs")
    blobs.put("jobs/j-1/1/log", b"x")
    (tmp_path / "blobs" / "jobs" / "j-1" / "link").symlink_to(outside)
    blobs.remove("jobs/j-1/")
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert list(map(str, files)) == ["outside/precious"]


def test_a_removal_cut_short_leaves_nothing_to_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = LocalBlobs(tmp_path)
    for number in range(3):
        blobs.put(f"jobs/j-1/{number}", b"x")

    def cut_short(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("tempfile._shutil.rmtree", cut_short)
        with pytest.raises(OSError, match="Input/output"):
            blobs.remove("jobs/j-1/")
    assert [blobs.size(f"jobs/j-1/{number}") for number in range(3)] == [0] * 3


def test_a_put_that_fails_leaves_the_old_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.put("k", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("control_plane.blobs.local.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        blobs.put("k", b"new")
    assert blobs.get("k") == b"old"
    assert not list((tmp_path / ".unfinished").iterdir())


def test_of_a_blob_that_is_removed_while_it_is_read_nothing_comes(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the half that was still there."""
    blobs = BLOBS["s3"](request, tmp_path)
    client = request.getfixturevalue("s3")
    fetch = client.get_object

    def fetch_and_remove(**asked: Any) -> Any:
        answer = fetch(**asked)
        blobs.remove("logs/")
        return answer

    def append_twice() -> None:
        blobs.append("logs/j-1", 0, b"one ")
        blobs.append("logs/j-1", 4, b"two ")

    monkeypatch.setattr(client, "get_object", fetch_and_remove)
    append_twice()
    assert blobs.read("logs/j-1", 0, 100) == b""
    append_twice()
    with pytest.raises(NotFound):
        blobs.get("logs/j-1")


def test_a_key_cannot_lie_below_another_blob_or_above_one(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    blobs.put("a", b"1")
    blobs.put("b/c", b"2")
    for key in ("a/x", "a/x/y", "b"):
        with pytest.raises(InvalidInput):
            blobs.put(key, b"3")
        with pytest.raises(InvalidInput):
            blobs.append(key, 0, b"3")


# ------------------------------------------------------------------- addresses for one blob each


class Signing(Blobs, Presigned, Protocol):
    """A storage that names them."""


@pytest.fixture(params=["s3"])
def signing(request: pytest.FixtureRequest, tmp_path: Path) -> Signing:
    """Each storage that does."""
    made: Any = BLOBS[request.param](request, tmp_path)
    return cast("Signing", made)


def upload(signing: Signing, key: str, data: bytes) -> Upload:
    sha256 = hashlib.sha256(data).hexdigest()
    return signing.sign_upload(key, size=len(data), sha256=sha256, expires_s=60)


def test_what_is_put_at_an_address_is_a_blob(signing: Signing) -> None:
    to = upload(signing, "sources/abc", ALL_BYTES)
    for _ in range(2):  # a repeat changes nothing
        answer = httpx2.put(to.url, content=ALL_BYTES, headers=to.headers)
        assert answer.status_code == 200, answer.text
    assert signing.get("sources/abc") == ALL_BYTES
    assert signing.size("sources/abc") == len(ALL_BYTES)


def test_no_other_bytes_can_be_put_there(signing: Signing) -> None:
    to = upload(signing, "k", ALL_BYTES)
    answer = httpx2.put(to.url, content=ALL_BYTES[::-1], headers=to.headers)
    assert 400 <= answer.status_code < 500
    assert signing.size("k") == 0
    assert httpx2.put(to.url, content=ALL_BYTES, headers=to.headers).status_code == 200


def test_a_blob_is_fetched_at_an_address_as_a_file_of_a_name(signing: Signing) -> None:
    signing.put("k", ALL_BYTES)
    name = 'a "b"; c=\\é\u20ac.pt'
    answer = httpx2.get(signing.sign_download("k", name=name, expires_s=60))
    assert (answer.status_code, answer.content) == (200, ALL_BYTES)
    kind, _, shown = answer.headers["Content-Disposition"].partition("; filename*=UTF-8''")
    assert (kind, unquote(shown)) == ("attachment", name)


def test_an_address_of_what_is_not_there_finds_nothing(signing: Signing) -> None:
    answer = httpx2.get(signing.sign_download("k", name="x", expires_s=60))
    assert answer.status_code == 404


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../up", "a/.hidden", "a b", "a//b"])
def test_unsafe_keys_have_no_address(signing: Signing, key: str) -> None:
    with pytest.raises(InvalidInput):
        upload(signing, key, b"")
    with pytest.raises(InvalidInput):
        signing.sign_download(key, name="x", expires_s=60)


def test_more_than_fits_has_no_address(signing: Signing) -> None:
    with pytest.raises(InvalidInput, match="at most"):
        signing.sign_upload("k", size=2**50, sha256="0" * 64, expires_s=60)
