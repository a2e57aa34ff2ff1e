"""Where everything stands in the one table: every key, every attribute name, and what it means.

Names are short because every write pays for their bytes. Where an item has more than one purpose
the name means the same in all of them.

    C    A# Q# L# R#     what a controller's look begins with: documents, queues, leases, cool-downs
    C    W#              and messages that wait to be sent
    B    <key>           what is left for calls of one kind to a cloud
    T    <id>, F <name>  tokens of people; federations
    H    <name>, W <id>  hooks; the log of messages
    QX   <queue>         the shape registry of a removed queue, for when it is made again
    J    D               which days, months and autoscalers the partitions below are for
    J#<day>#<shard>      jobs; X#<job> beside each: what is too large or too old for its item
    K#<hash>             the job of an idempotency key that does not carry the job's id
    M    <id> <id>!      open machines: the record, and its run item
    MX   <id>            machines that have ended
    U#<day>              attempts that have ended, booked together
    LIM#<queue>          who counts against the limits of a queue
    PM# PO PC#           prices: of a machine, open ones, closed ones by month
    AV# P# PP#           versions of documents, plans, pieces of large plans
    E# ES# AN#           events (all of a day, and by subject), answers given

The index `ready` holds three kinds of rows: `R#` the waiting line, in claim order; `L` what is held
back until a time; `D#` dead letters.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from datetime import UTC, datetime, timedelta

from control_plane.core.job_ids import base32, made_at, number
from control_plane.core.model import PriceInterval
from control_plane.errors import InvalidInput
from control_plane.stores.dynamodb.client import Key
from control_plane.stores.dynamodb.items import Item
from control_plane.stores.dynamodb.table import TTL as TTL
from control_plane.stores.dynamodb.table import ready_index

# ------------------------------------------------------------------------------- attributes

PACKED = "d"
"""A whole record as compressed JSON; in a run item: tokens of leases that ended and are not booked;
in the item of days: those with jobs."""
VERSION = "v"
STATE = "st"
QUEUE = "q"
PRIORITY = "p"
POSITION = "po"
EPOCH = "ep"
ATTEMPT = "at"
FAILURES = "fa"
LOSSES = "ml"
MACHINE = "m"
SUBMITTED_AT = "sa"
QUEUED_AT = "qa"
NOT_BEFORE = "nb"
LEASED_AT = "la"
STARTED_AT = "ra"
FINISHED_AT = "fi"
EXIT_CODE = "ec"
REASON = "re"
KEPT_REASON = "kr"
"""The reason is that of the cancellation; the attempt ended without one of its own."""
OUTCOME = "oc"
"""How the attempt ended that ended the job."""
CANCEL = "cr"
NAME = "n"
OWNER = "o"
"""Of a job; of a controller lease: who holds it."""
LABELS = "lb"
CLONED_FROM = "cf"
DEPENDS_ON = "de"
DEPENDENTS = "dn"
"""Ids of the jobs that wait for this one."""
NEED = "nd"
SPEC = "sp"
SPEC_AT = "sx"
"""Where the spec is when it is too large for the job's item."""
KEY = "k"
"""The idempotency key."""
PROMOTED_AT = "pa"
PREVIOUS = "xa"
"""The attempt that ended last before the current one."""
ARTIFACTS = "af"
ARTIFACTS_AT = "ax"
"""The epoch under which the artifacts are when they are too many for the job's item."""
LIMITS = "lm"
"""Which limits the lease counts against: `OF_QUEUE`, `OF_OWNER` or their sum."""
INDEX_PARTITION = "gp"
INDEX_SORT = "gs"
ROW_NEED = "rn"
"""The need of a row that shares its shape with other needs."""
JOB = "j"
"""In the item of an idempotency key: the job's id."""
CLOSED = "cl"
"""In a run item: the machine takes no job."""
BEAT = "be"
IDLE_SINCE = "is"
"""In a run item: since when it has run nothing, by what was booked; leases that ended later count
too."""
SERVED = "sv"
"""In a run item: the machine has been ready; from then on its idle time is the job operations'."""
HELD = "h"
"""In a run item: tokens of all leases it may have. A lease is listed before it exists."""
RUN_VERSION = "rv"
"""Counts the listings; in a queue's item: the changes of its registry."""
BOOKINGS = "bn"
MEMBERS = "e"
"""In an item of limits: the tokens of the leases that count."""
BOOKED_DAYS = "bd"
EVENT_DAYS = "ed"
PAID_MONTHS = "pm"
PLANNED = "pl"
DECLARED = "dc"
"""In the item of days: those with booked attempts and with events; the months in which intervals of
the ledger ended; of which autoscalers there are plans, and versions of documents."""
CHANGED_AT = "ca"
GENERATION = "g"
UNTIL = "u"
"""Of a controller lease."""
KIND = "kd"
"""Of an event."""
KEEP = "kp"
"""In a plan: how many plans counted, it included, when it was made."""
PIECES = "pc"
"""In a plan: how many more items it takes."""
BEGUN_AT = "ba"
STATUS = "ss"
"""Of an answer; 0 while its request is in flight."""

OF_QUEUE = 1
OF_OWNER = 2

READY = ready_index([EPOCH, OWNER, QUEUED_AT, NOT_BEFORE, PROMOTED_AT, ROW_NEED])
"""What readers of the line need. None of it changes while a job stays where it is."""
INDEXES = (READY,)

# ------------------------------------------------------------------------------------- keys

CONTROL = "C"
AUTOSCALER_PREFIX = "A#"
QUEUE_PREFIX = "Q#"
LEASE_PREFIX = "L#"
COOLDOWN_PREFIX = "R#"
WAITING_PREFIX = "W#"
TOKENS = "T"
FEDERATIONS = "F"
HOOKS = "H"
DELIVERIES = "W"
MACHINES = "M"
ENDED_MACHINES = "MX"
OPEN_PRICES = "PO"
DAYS = ("J", "D")
SHARDS = 4
"""Of the jobs of one day: a day's jobs may be written faster than one partition takes."""
NO_DAY = "00000000"
"""Of jobs whose id does not carry a time."""


def autoscaler_key(name: str) -> Key:
    return CONTROL, AUTOSCALER_PREFIX + name


def queue_key(name: str) -> Key:
    return CONTROL, QUEUE_PREFIX + name


def lease_key(name: str) -> Key:
    return CONTROL, LEASE_PREFIX + name


def cooldown_key(key: str) -> Key:
    return CONTROL, COOLDOWN_PREFIX + key


def bucket_key(key: str) -> Key:
    """Apart from what every look reads: only who calls a cloud needs it."""
    return "B", key


def token_key(token_id: str) -> Key:
    return TOKENS, token_id


def federation_key(name: str) -> Key:
    return FEDERATIONS, name


def hook_key(name: str) -> Key:
    return HOOKS, name


def delivery_key(delivery_id: str) -> Key:
    return DELIVERIES, delivery_id


def due_key(delivery_id: str) -> Key:
    return CONTROL, WAITING_PREFIX + delivery_id


def removed_queue_key(name: str) -> Key:
    return "QX", name


def job_key(job_id: str) -> Key:
    """Found from the id alone, so nothing is needed to look a job up."""
    return jobs_of(job_day(job_id), shard_of(job_id, SHARDS)), job_id


def shard_of(job_id: str, shards: int) -> int:
    """One of so many shards."""
    return zlib.crc32(job_id.encode()) % shards


def job_day(job_id: str) -> str:
    """The day a job is kept under."""
    at = made_at(job_id)
    return day(at) if at else NO_DAY


def jobs_of(day_: str, shard: int) -> str:
    """The partition of a shard of a day's jobs."""
    return f"J#{day_}#{shard}"


def beside_job(job_id: str) -> str:
    """The partition of what belongs to a job and is not in its item."""
    return f"X#{job_id}"


def spec_key(job_id: str, digest: str) -> Key:
    return beside_job(job_id), f"S#{digest}"


def waiting_key(job_id: str) -> Key:
    """Who waits for a job that is still on its way here from another store."""
    return beside_job(job_id), "W"


def attempt_key(job_id: str, epoch: int) -> Key:
    return beside_job(job_id), f"A#{epoch:08}"


def artifacts_key(job_id: str, epoch: int) -> Key:
    return beside_job(job_id), f"F#{epoch:08}"


def pointer_key(idempotency_key: str) -> Key:
    return f"K#{short_hash(idempotency_key, 26)}", "-"


def machine_key(machine_id: str) -> Key:
    return MACHINES, machine_id


def run_key(machine_id: str) -> Key:
    """Sorts right behind the machine's record."""
    return MACHINES, f"{machine_id}!"


def ended_machine_key(machine_id: str) -> Key:
    return ENDED_MACHINES, machine_id


def bookings_of(day_: str) -> str:
    """The partition of the attempts booked under a day."""
    return f"U#{day_}"


def limits_of(queue: str) -> str:
    return f"LIM#{queue}"


def limit_key(queue: str, owner: str | None = None) -> Key:
    """Who counts against a queue's limit, or against one owner's in it."""
    return limits_of(queue), "-" if owner is None else f"O#{owner}"


def price_key(paid: PriceInterval) -> Key:
    return begun_price_key(paid.machine_id, paid.started_at)


def begun_price_key(machine_id: str, began: datetime) -> Key:
    return f"PM#{machine_id}", time_text(began)


def open_price_key(machine_id: str) -> Key:
    return OPEN_PRICES, machine_id


def closed_price_key(paid: PriceInterval) -> Key:
    """Sorted by start, so that a span of time needs nothing that began later."""
    assert paid.ended_at is not None, "an open one stands elsewhere"
    partition = closed_prices_of(month(paid.ended_at))
    return partition, f"{time_text(paid.started_at)}#{paid.machine_id}"


def closed_prices_of(month_: str) -> str:
    """The partition of prices that were closed in a month, `yyyymm`."""
    return f"PC#{month_}"


def versions_of(autoscaler: str) -> str:
    return f"AV#{autoscaler}"


def plans_of(autoscaler: str) -> str:
    return f"P#{autoscaler}"


def plan_sort(planned_at: datetime, plan_id: str) -> str:
    return f"{time_text(planned_at)}#{plan_id}"


def plan_piece_key(plan: Item, number_: int) -> Key:
    """Of what does not fit into the item of a plan."""
    return f"P{plan['pk']}", f"{plan['sk']}#{number_:04}"


def events_of(day_: str) -> str:
    return f"E#{day_}"


def events_about(subject: str) -> str:
    return f"ES#{subject}"


def answer_key(key: str) -> Key:
    return f"AN#{short_hash(key, 26)}", "-"


# ------------------------------------------------------------------------ rows of the index

PARKED = "L"
"""What is held back: delayed and blocked jobs, by the time at which to look again."""
DELAYED_ROW = "d"
BLOCKED_ROW = "b"
ANY_SHAPE = "any"
"""For needs beyond what the registry of a queue holds."""
SHAPE_PREFIX = "s_"
RETIRED_PREFIX = "r_"
"""In a queue's item: the registry of the shapes of needs in its line, and since when (second) a
shape has been without a row."""

_PRIORITY_DIGITS = 7
_POSITION_DIGITS = 13
_PLACE_DIGITS = _PRIORITY_DIGITS + _POSITION_DIGITS
_MOST = 1 << 34
_SIGN = 1 << 63


def line_partition(queue: str, shape: str, shard: int) -> str:
    return f"R#{queue}#{shape}#{shard}"


def line_sort(priority: int, position: float, job_id: str) -> str:
    """Claim order as text: priority descending, position ascending, id. Raises `InvalidInput` for a
    priority beyond ten digits."""
    return priority_prefix(priority) + _sortable(position) + job_id


def priority_prefix(priority: int) -> str:
    """What the places of one priority begin with."""
    if not -_MOST < priority < _MOST:
        raise InvalidInput(f"{priority} is no priority: it must be between {-_MOST} and {_MOST}")
    return base32(_MOST - priority, _PRIORITY_DIGITS)


def line_place(sort: str) -> tuple[int, float, str]:
    """Priority, position and id of a `line_sort`."""
    bits = number(sort[_PRIORITY_DIGITS:_PLACE_DIGITS])
    raw = bits ^ _SIGN if bits & _SIGN else bits ^ (2 * _SIGN - 1)
    (position,) = struct.unpack(">d", struct.pack(">Q", raw))
    return _MOST - number(sort[:_PRIORITY_DIGITS]), position, sort[_PLACE_DIGITS:]


def _sortable(position: float) -> str:
    # The bits of floats sort like whole numbers once the sign is turned round. Adding 0.0 makes
    # -0.0, which equals 0.0, look the same.
    (bits,) = struct.unpack(">Q", struct.pack(">d", position + 0.0))
    return base32(bits ^ (2 * _SIGN - 1) if bits & _SIGN else bits | _SIGN, _POSITION_DIGITS)


def parked_sort(until: datetime, kind: str, queue: str, place: str) -> str:
    """Where a delayed or blocked job stands; `place` is its `line_sort`."""
    job_id = place[_PLACE_DIGITS:]
    return f"{time_text(until)}#{kind}#{queue}#{job_id}#{place[:_PLACE_DIGITS]}"


def parked_place(sort: str) -> tuple[datetime, str, str, str]:
    """Time, kind, queue and `line_sort` of a `parked_sort`."""
    until, kind, rest = sort.split("#", 2)
    queue, job_id, place = rest.rsplit("#", 2)
    return moment(number(until)), kind, queue, place + job_id


def letters_partition(queue: str) -> str:
    """Dead letters of a queue, by id."""
    return f"D#{queue}"


# --------------------------------------------------------------------------- times and texts

FIRST = "0"
LAST = "~"
"""Before and behind every other sort key."""
TIME_DIGITS = 11
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def stamp(at: datetime) -> int:
    """A time in whole microseconds since 1970, which no rounding touches."""
    return (at - _EPOCH) // _MICROSECOND


def stamp_or_none(at: datetime | None) -> int | None:
    return None if at is None else stamp(at)


def moment(stored: int) -> datetime:
    """The time that `stamp` wrote."""
    return _EPOCH + stored * _MICROSECOND


def moment_or_none(stored: int | None) -> datetime | None:
    return None if stored is None else moment(stored)


def time_text(at: datetime) -> str:
    """A time as text that sorts like it."""
    return base32(stamp(at), TIME_DIGITS)


def day(at: datetime) -> str:
    """`yyyymmdd` in UTC."""
    return at.astimezone(UTC).strftime("%Y%m%d")


def month(at: datetime) -> str:
    """`yyyymm` in UTC."""
    return day(at)[:6]


NUMBERS = 1 << 53
"""More than any number of an event or a version: they are microseconds since 1970."""


def number_text(number_: int) -> str:
    """Such a number as text that sorts like it."""
    return base32(number_, TIME_DIGITS)


def number_of_text(text: str) -> int:
    """The number that `number_text` wrote."""
    return number(text)


def day_of_number(number_: int) -> str:
    """The day an event of this number is kept under. Small numbers, given by another store before
    its events came here, are of the first day."""
    return day(moment(number_))


def first_number(day_: str) -> int:
    """The first number of a day."""
    return stamp(datetime.strptime(day_, "%Y%m%d").replace(tzinfo=UTC))


def short_hash(text: str, digits: int) -> str:
    """Base-32 digits of the text's SHA-256."""
    return base32(int.from_bytes(hashlib.sha256(text.encode()).digest()[:20], "big"), digits)


# ------------------------------------------------------------------------------------ tokens

_TOKEN = re.compile(r"(.+):(\d+):([0-9a-z]+)")


def token(job_id: str, epoch: int, second: int) -> str:
    """One lease in a set of them: job, epoch, and the second (since 1970) it was listed in."""
    return f"{job_id}:{epoch}:{base32(second, 7)}"


def entry(job_id: str, epoch: int, mark: int) -> str:
    """One lease in a set of those that count against a limit."""
    return f"{job_id}:{epoch}:{base32(mark, 11)}"


def entry_mark(second: int, chance: int) -> int:
    """What tells the entries of two claims for one job apart, which must not strike out each
    other's: the second (since 1970) and 20 bits of chance."""
    return second << 20 | chance


def entry_second(mark: int) -> int:
    """The second in an `entry_mark`."""
    return mark >> 20


def token_parts(token_: str) -> tuple[str, int, int]:
    """Job id, epoch, and the second of a `token`, or the mark of an `entry`."""
    parts = _TOKEN.fullmatch(token_)
    assert parts is not None, "only `token` and `entry` write them"
    return parts[1], int(parts[2]), number(parts[3])
