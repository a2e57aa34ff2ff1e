"""Rows of a transfer: plain JSON that comes back as what it was, in any later version too."""

from __future__ import annotations

import json

import pytest

from control_plane.core.model import Artifact, Attempt, JobState, Need
from control_plane.errors import InvalidInput
from control_plane.ports import TransferKind
from control_plane.stores import transfer
from control_plane.stores.transfer import AttemptRow, JobRow
from tests.conformance.builders import NOW, at, job, machine_record


def test_there_is_a_shape_for_every_kind() -> None:
    assert set(transfer.SHAPES) == set(TransferKind)


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (
            TransferKind.JOB,
            JobRow(
                job=job("j", state=JobState.BLOCKED, depends_on=("a", "b"), not_before=at(0.25)),
                idempotency_key="k",
                promoted_at=at(5),
            ),
        ),
        (
            TransferKind.ATTEMPT,
            AttemptRow(
                attempt=Attempt(
                    job_id="j",
                    number=1,
                    epoch=1,
                    queue="q",
                    owner="",
                    machine_id="m",
                    need=Need(gpus=1),
                    queued_at=NOW,
                    leased_at=at(1),
                ),
                artifacts=(Artifact(name="ü", size_bytes=1, sha256="ab", blob="b"),),
            ),
        ),
        (TransferKind.MACHINE, machine_record()),
    ],
)
def test_a_record_comes_back_through_text(kind: TransferKind, record: object) -> None:
    row = json.loads(json.dumps(transfer.row(record)))
    assert transfer.record(kind, row, transfer.SHAPES[kind]) == record


def test_what_a_newer_program_adds_is_passed_over_and_what_is_missing_is_as_if_unset() -> None:
    row = dict(transfer.row(JobRow(job=job("j"))))
    del row["promoted_at"]
    row["from_the_future"] = 1
    assert transfer.record(TransferKind.JOB, row, JobRow) == JobRow(job=job("j"))


@pytest.mark.parametrize("row", [{}, {"job": 5}, {"job": {"id": "j"}}, {"job": None}])
def test_a_row_of_another_kind_is_named_by_the_kind_it_should_be(row: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="no record of kind job"):
        transfer.record(TransferKind.JOB, row, JobRow)
