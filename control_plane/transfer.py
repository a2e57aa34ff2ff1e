"""Moving everything from one store to another through a folder: `orchctl server export|import`.

    manifest.json            what is in it: how many records of each kind, and their digests
    records/<kind>.jsonl     one record a line
    progress.json            while it is being written: where to go on after a crash
    import-<target>.json     the same for an import

A digest is the sum of the SHA-256 of all lines modulo 2^256. It does not depend on order, so the
records of two stores that sort differently can be compared; and it can be carried on after a crash.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from control_plane.errors import Conflict, InvalidInput, NotFound, Refused
from control_plane.ports import Row, Store, TransferKind

FORMAT = 1
MANIFEST = "manifest.json"
PAGE = 500
"""Records read and written at a time: what a crash costs at most."""

_KINDS = tuple(TransferKind)


@dataclass(slots=True)
class Tally:
    """Records counted and summed up."""

    count: int = 0
    digest: int = 0

    def add(self, line: bytes) -> None:
        """Count one record in its canonical form."""
        self.count += 1
        self.digest = (self.digest + int.from_bytes(hashlib.sha256(line).digest())) % (1 << 256)


@dataclass(slots=True, kw_only=True)
class _Progress:
    """How far an export has come, or an import of one export into one store."""

    id: str
    """Of the export."""
    kind: TransferKind = _KINDS[0]
    cursor: str = ""
    offset: int = 0
    """Bytes of the kind's file that are done with."""
    tallies: dict[TransferKind, Tally] = field(default_factory=dict)

    def kinds(self) -> Iterator[TransferKind]:
        """What is left to do; each kind but the first begins at its start."""
        for kind in _KINDS[_KINDS.index(self.kind) :]:
            if kind is not self.kind:
                self.kind, self.cursor, self.offset = kind, "", 0
            yield kind

    def save(self, path: Path) -> None:
        """Make it durable: a crash leaves the old file or the new one."""
        aside = path.with_suffix(".new")
        with aside.open("w", encoding="utf-8") as file:
            json.dump(self._as_json(), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)

    def _as_json(self) -> dict[str, Any]:
        records = {
            kind: {"count": tally.count, "sha256_sum": f"{tally.digest:064x}"}
            for kind, tally in self.tallies.items()
        }
        return {
            "format": FORMAT,
            "id": self.id,
            "kind": self.kind,
            "cursor": self.cursor,
            "offset": self.offset,
            "records": records,
        }


def write(store: Store, folder: Path) -> dict[TransferKind, Tally]:
    """Export all records of a store into a folder; after a crash it goes on where it was. Nothing
    else may write to the store meanwhile. Raises `Refused` for a folder with a finished export."""
    notes = folder / "progress.json"
    if is_finished(folder):
        raise finished(folder)
    (folder / "records").mkdir(parents=True, exist_ok=True)
    progress = _load(notes) if notes.exists() else _Progress(id=uuid.uuid4().hex)
    for kind in progress.kinds():
        _write_kind(store, kind, folder, progress)
    # Notes of one that is finished are of no use, so a crash here does no harm.
    progress.save(folder / MANIFEST)
    notes.unlink(missing_ok=True)
    return progress.tallies


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a whole export."""
    return (folder / MANIFEST).exists()


def finished(folder: Path) -> Refused:
    """Why nothing more is written into a folder."""
    return Refused(f"{folder} holds a finished export", fix="choose another folder")


def check_finished(folder: Path) -> None:
    """Raise `NotFound` unless a folder holds a whole export."""
    if not is_finished(folder):
        raise NotFound(
            f"there is no finished export in {folder}",
            fix=f"`orchctl server export {folder}` makes one, or carries on one that was cut off",
        )


def verify(folder: Path) -> dict[TransferKind, Tally]:
    """Check every record of an export against its manifest. Raises `NotFound` when there is no
    finished export, `InvalidInput` when something is missing or was changed."""
    expected = _manifest(folder).tallies
    for kind in _KINDS:
        lines = (line for _, line in _lines(_file(folder, kind), 0))
        if _summed(lines) != expected.get(kind, Tally()):
            raise InvalidInput(
                f"{_file(folder, kind)} is not what its manifest says",
                fix="copy the export again, or make a new one",
            )
    return expected


def read(
    folder: Path,
    store: Store,
    *,
    target: str,
    beforehand: Callable[[], None] = lambda: None,
) -> dict[TransferKind, Tally]:
    """Import an export into an empty store, then read all of it back and compare. After a crash it
    goes on where it was; `target` names the store. What else belongs there is put there
    `beforehand`, once it is clear that the store may be written to. Raises as `verify` does, and
    `Refused` for a store that is not empty, `Conflict` when what was stored is not what was
    exported."""
    expected = verify(folder)
    export = _manifest(folder).id
    name = hashlib.sha256(f"{export} {target}".encode()).hexdigest()[:12]
    notes = folder / f"import-{name}.json"
    if notes.exists():
        progress = _load(notes)
    else:
        _refuse_unless_empty(store, target)
        progress = _Progress(id=export)
        progress.save(notes)
    beforehand()
    for kind in progress.kinds():
        _read_kind(store, kind, folder, progress, notes)
    differences = [text for kind in _KINDS if (text := _difference(store, kind, expected))]
    # What was compared is over, for good or bad: the next import begins with an empty store.
    notes.unlink()
    if differences:
        raise Conflict(
            f"what {target} holds is not what was exported: {'; '.join(differences)}",
            fix="make sure that nothing else uses it, empty it and import again",
        )
    return expected


def canonical(row: Row) -> bytes:
    """A record as the one line that is stored and summed up."""
    return json.dumps(row, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _write_kind(store: Store, kind: TransferKind, folder: Path, progress: _Progress) -> None:
    tally = progress.tallies.setdefault(kind, Tally())
    with _file(folder, kind).open("ab") as file:
        # What was written behind the last note of progress is written again.
        file.truncate(progress.offset)
        more = True
        while more:
            page = store.transfer_read(kind, cursor=progress.cursor, limit=PAGE)
            for line in map(canonical, page.items):
                tally.add(line)
                file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
            progress.cursor, progress.offset = page.cursor, os.fstat(file.fileno()).st_size
            more = bool(page.cursor)
            if more:
                progress.save(folder / "progress.json")


def _read_kind(
    store: Store, kind: TransferKind, folder: Path, progress: _Progress, notes: Path
) -> None:
    lines = _lines(_file(folder, kind), progress.offset)
    while page := list(islice(lines, PAGE)):
        store.transfer_write(kind, [json.loads(line) for _, line in page])
        progress.offset = page[-1][0]
        progress.save(notes)


def _difference(store: Store, kind: TransferKind, expected: dict[TransferKind, Tally]) -> str:
    """What is wrong with the records of a kind; empty when nothing is."""
    want, have = expected.get(kind, Tally()), _summed(map(canonical, _rows(store, kind)))
    if have == want:
        return ""
    return f"{have.count} of {want.count} records of kind {kind}" + (
        ", some of them different" if have.count == want.count else ""
    )


def _refuse_unless_empty(store: Store, target: str) -> None:
    there = [kind for kind in _KINDS if store.transfer_read(kind, limit=1).items]
    if there:
        raise Refused(
            f"{target} is not empty: it holds records of kind {', '.join(there)}",
            fix="import into a new store",
        )


def _summed(lines: Iterable[bytes]) -> Tally:
    tally = Tally()
    for line in lines:
        tally.add(line)
    return tally


def _rows(store: Store, kind: TransferKind) -> Iterator[Row]:
    cursor, more = "", True
    while more:
        page = store.transfer_read(kind, cursor=cursor, limit=PAGE)
        yield from page.items
        cursor, more = page.cursor, bool(page.cursor)


def _lines(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """Lines from an offset on, each with the offset behind it; none when there is no file."""
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            offset += len(line)
            yield offset, line.rstrip(b"\n")


def _manifest(folder: Path) -> _Progress:
    check_finished(folder)
    return _load(folder / MANIFEST)


def _load(path: Path) -> _Progress:
    try:
        data = json.loads(path.read_bytes())
        if data["format"] != FORMAT:
            raise InvalidInput(
                f"{path} has format {data['format']}; this orchctl knows {FORMAT}",
                fix="use the orchctl that wrote it, or a newer one",
            )
        return _Progress(
            id=data["id"],
            kind=TransferKind(data["kind"]),
            cursor=data["cursor"],
            offset=data["offset"],
            tallies={
                TransferKind(kind): Tally(each["count"], int(each["sha256_sum"], 16))
                for kind, each in data["records"].items()
            },
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}", fix="make a new export") from error


def _file(folder: Path, kind: TransferKind) -> Path:
    return folder / "records" / f"{kind}.jsonl"
