"""Plans, events, and answers given: what is kept for a while and then expires by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from math import ceil

from control_plane.core.model import Event
from control_plane.ports import Page, PlanRecord, StoredAnswer
from control_plane.stores import cursors, transitions
from control_plane.stores.dynamodb import layout as at
from control_plane.stores.dynamodb import records
from control_plane.stores.dynamodb.calls import ConditionFailed
from control_plane.stores.dynamodb.expressions import ABSENT, PRESENT, expr
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.parts import Parts

PIECE_BYTES = 350 * 1024
"""A compressed plan that is larger is kept in pieces: an item holds 400 KB."""
PLANS_KEPT = 200
READS_MAX = 25
"""Pages read for one page of events: where few events are of the kind that is asked for, or many
days are empty, it may be short."""
PAGE_LEAST = 100
_IN_FLIGHT = 0


class History(Parts):
    """The part of `ports.ControlStore` about what has happened."""

    # --------------------------------------------------------------------------------- plans

    def plan_put(self, record: PlanRecord, *, keep: int = PLANS_KEPT) -> None:
        self._note_day(at.PLANNED, record.autoscaler)
        for item in self._plan_items(record, keep):
            self._table.put(item)

    def plan_list(self, autoscaler: str, *, limit: int = 20) -> Sequence[PlanRecord]:
        # Nobody pays for taking old ones away: the newest says how many still count.
        items = self._table.query(
            at.plans_of(autoscaler), forward=False, consistent=True, page_size=limit
        )
        alive = (item for item in items if not self._expired(item))
        newest = next(alive, None)
        if newest is None or limit <= 0:
            return ()
        rest = islice(alive, min(limit, newest[at.KEEP]) - 1)
        return tuple(self._plan(item) for item in (newest, *rest))

    def _plan(self, item: Item) -> PlanRecord:
        keys = [at.plan_piece_key(item, number) for number in range(item.get(at.PIECES, 0))]
        pieces = self._table.batch_get(keys) if keys else {}
        packed = b"".join([item[at.PACKED], *(pieces[key][at.PACKED] for key in keys)])
        return records.unpack(PlanRecord, packed)

    def _plan_items(self, record: PlanRecord, keep: int) -> list[Item]:
        """The item of a plan, behind the pieces it refers to. They live longer than it does."""
        packed = records.pack(record)
        rest = range(PIECE_BYTES, len(packed), PIECE_BYTES)
        item: Item = {
            "pk": at.plans_of(record.autoscaler),
            "sk": at.plan_sort(record.at, record.id),
            at.PACKED: packed[:PIECE_BYTES],
            at.PIECES: len(rest) or None,
            at.KEEP: keep,
            at.TTL: self._expiry(),
        }
        pieces: list[Item] = []
        for number, start in enumerate(rest):
            pk, sk = at.plan_piece_key(item, number)
            piece = packed[start : start + PIECE_BYTES]
            pieces.append({"pk": pk, "sk": sk, at.PACKED: piece, at.TTL: self._expiry_beside()})
        return [*pieces, item]

    # -------------------------------------------------------------------------------- events

    def event_append(self, event: Event) -> None:
        while True:
            numbered = replace(event, seq=self._numbers.fresh())
            log, about = self._event_items(numbered)
            self._note_day(at.EVENT_DAYS, at.day_of_number(numbered.seq))
            with suppress(ConditionFailed):  # another process has just taken the same number
                self._table.put(log, condition=ABSENT)
                break
        # A crash here leaves an event that is in the log and not in its subject's history.
        self._table.put(about)

    def event_list(
        self, *, kind: str = "", subject: str = "", cursor: str = "", limit: int = 100
    ) -> Page[Event]:
        scope = ("events", kind, subject)
        behind = cursors.read(scope, cursor, (0,))[0] if cursor else at.NUMBERS
        found: list[Event] = []
        pages = self._event_pages(behind, kind, subject, max(PAGE_LEAST, limit) + 1)
        for reads, (events, reached) in enumerate(pages, start=1):
            found += events
            if len(found) > limit:
                return cursors.page(scope, found, limit, lambda event: (event.seq,))
            if reads == READS_MAX:
                return Page(items=tuple(found), cursor=cursors.write(scope, (reached,)))
        return Page(items=tuple(found))

    def _event_pages(
        self, behind: int, kind: str, subject: str, size: int
    ) -> Iterator[tuple[list[Event], int]]:
        """Events numbered below `behind`, newest first, page by page; and with each page the number
        down to which it reaches."""
        if subject:
            yield from self._event_pages_of(at.events_about(subject), behind, kind, size, 0)
            return
        for day in self._days(at.EVENT_DAYS):
            first = at.first_number(day)
            yield from self._event_pages_of(at.events_of(day), behind, kind, size, first)

    def _event_pages_of(
        self, partition: str, behind: int, kind: str, size: int, first: int
    ) -> Iterator[tuple[list[Event], int]]:
        start = None
        while behind > first:
            page = self._table.query_page(
                partition,
                sk_between=(at.number_text(first), at.number_text(behind - 1)),
                forward=False,
                consistent=True,
                filter=expr(f"{at.KIND} = :kind", kind=kind) if kind else None,
                limit=size,
                start=start,
            )
            start = page.next
            events = [event(item) for item in page.items if not self._expired(item)]
            yield events, at.number_of_text(start["sk"]) if start else first
            if start is None:
                return

    def _event_items(self, numbered: Event) -> tuple[Item, Item]:
        """The two places of an event: in the log of its day, and in its subject's history."""
        content = {
            "sk": at.number_text(numbered.seq),
            at.KIND: numbered.kind,
            at.PACKED: records.text(numbered),
            at.TTL: self._expiry(),
        }
        log = {"pk": at.events_of(at.day_of_number(numbered.seq)), **content}
        return log, {"pk": at.events_about(numbered.subject), **content}

    # ------------------------------------------------------------------------------- answers

    def answer_begin(
        self, key: str, fingerprint: str, *, now: datetime, keep_s: float
    ) -> StoredAnswer | None:
        pk, sk = at.answer_key(key)
        kept_until = max(now, self._clock.now()) + timedelta(seconds=keep_s)
        begun: Item = {
            "pk": pk,
            "sk": sk,
            at.BEGUN_AT: at.stamp(now),
            at.STATUS: _IN_FLIGHT,
            at.PACKED: records.pack(StoredAnswer(fingerprint=fingerprint)),
            at.TTL: ceil(kept_until.timestamp()),
        }
        lasts = timedelta(seconds=keep_s)
        in_flight = min(lasts, timedelta(seconds=transitions.ANSWER_IN_FLIGHT_S))
        free = expr(
            f"attribute_not_exists(pk) OR {at.BEGUN_AT} < :old "
            f"OR ({at.STATUS} = :flying AND {at.BEGUN_AT} < :dead)",
            old=at.stamp(now - lasts),
            flying=_IN_FLIGHT,
            dead=at.stamp(now - in_flight),
        )
        try:
            self._table.put(begun, condition=free)
        except ConditionFailed as failure:
            there = failure.old or begun
            return records.unpack(StoredAnswer, there[at.PACKED])
        return None

    def answer_finish(self, key: str, answer: StoredAnswer) -> None:
        finished = {at.STATUS: answer.status, at.PACKED: records.pack(answer)}
        with suppress(ConditionFailed):
            self._table.update(*at.answer_key(key), assign=finished, condition=PRESENT)

    def answer_abandon(self, key: str) -> None:
        reserved = expr(f"{at.STATUS} = :flying", flying=_IN_FLIGHT)
        with suppress(ConditionFailed):
            self._table.delete(*at.answer_key(key), condition=reserved)

    def answer_abandon_all(self) -> None:
        """Nothing: other servers may be answering, and a key is free again after a minute."""


def event(item: Item) -> Event:
    """The event of an item."""
    return records.from_text(Event, item[at.PACKED])
