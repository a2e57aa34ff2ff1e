"""What single fields of the document may hold, each with its words for what does not fit.

The types here are for pydantic models: each reads a value as people write it and refuses with what,
why and fix ready for `explain.py`. JSON Schema patterns are for editors and may be a little wider
than what is really accepted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any
from zoneinfo import available_timezones

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from control_plane.config import units
from control_plane.config.errors import did_you_mean
from control_plane.core.alerts import AlertKind
from control_plane.core.policy import AtLimit, GpuRange, MarketPolicy, Range

_NAME = r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?"
_REGION = r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"
_SECRET = r"secret://[A-Za-z0-9][A-Za-z0-9._/-]{0,199}"
_SECONDS_MAX = 400 * 86_400


def refusal(what: str, *, why: str = "", fix: str = "") -> PydanticCustomError:
    """What a field's own check raises; `explain.py` turns it into a problem as it is."""
    return PydanticCustomError("refused", "{what}", {"what": what, "why": why, "fix": fix})


def _text(value: object, example: str) -> str:
    """The text of a value that people may write without quotes, such as `4`."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise refusal(
            f"expected a text such as `{example}`, found {kind_of(value)}",
            fix="write a value, or delete the line" if value is None else "",
        )
    return str(value)


def kind_of(value: object) -> str:
    """A value in words: `a list`, `nothing`, `true`, the text itself."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"`{str(value).lower()}`"
        case dict():
            return "a map"
        case list():
            return "a list"
    shown = str(value)
    if "://" in shown:
        return "an address"  # it may carry a secret, as webhooks do
    return f"`{shown}`" if len(shown) <= 40 else f"`{shown[:37]}…`"


def _unit(parse: Callable[[str], Any], example: str) -> PlainValidator:
    """A field read by one function of `units.py`."""

    def read(value: object) -> object:
        try:
            return parse(_text(value, example))
        except units.UnitError as error:
            raise refusal(error.what, why=error.forms, fix=error.fix) from None

    return PlainValidator(read)


def _word(noun: str, pattern: str, why: str, *, guess: bool = False) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            plain = re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")
            known = guess and re.fullmatch(pattern, plain)
            fix = f"did you mean `{plain}`?" if known else ""
            raise refusal(f"{kind_of(value)} is not a {noun}", why=why, fix=fix)
        return value

    return AfterValidator(check)


def one_of(noun: str, *words: str) -> PlainValidator:
    def check(value: object) -> object:
        if value not in words:
            what = f"{kind_of(value)} is not {noun}"
            if len(words) == 1:
                raise refusal(what, fix=f"write `{words[0]}`")
            why = f"choose one of: {', '.join(words)}"
            raise refusal(what, why=why, fix=did_you_mean(str(value), words))
        return value

    return PlainValidator(check)


def _shown(kind: str, pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": kind, "pattern": f"^{pattern}$", "examples": list(examples)})


def _duration_s(text: str) -> int:
    seconds = units.parse_duration_s(text)
    if seconds > _SECONDS_MAX:
        raise units.UnitError(f"`{text}` is longer than 400 days", units.DURATION_FORMS)
    return seconds


def _price_usd_hour(text: str) -> Decimal:
    return units.parse_money_usd(text, per="hour")


def _cron(value: str) -> str:
    fields = value.split()
    forms = "write five fields: minute hour day month weekday, such as `0 8 * * MON-FRI`"
    if len(fields) != 5:
        raise refusal(f"{kind_of(value)} has {len(fields)} fields, a cron line has 5", why=forms)
    try:
        # Any date will do: the question is whether the line can be read, and ever fires.
        fires = next(CronSim(value, datetime(2024, 1, 1)), None)  # noqa: DTZ001
    except CronSimError as error:
        what = f"{kind_of(value)} is not a cron line: {str(error).lower()}"
        raise refusal(what, why=forms) from None
    if fires is None:
        raise refusal(f"{kind_of(value)} never fires: no such day exists", why=forms)
    return value


def _timezone(value: str) -> str:
    known = available_timezones()
    if value not in known:
        fix = did_you_mean(value, known) or _zone_of_city(value, known)
        why = "write a name such as `Europe/Berlin` or `UTC`"
        raise refusal(f"{kind_of(value)} is not a time zone", why=why, fix=fix)
    return value


def _zone_of_city(city: str, known: set[str]) -> str:
    cities = {zone.rpartition("/")[2]: zone for zone in sorted(known) if "/" in zone}
    found = re.search(r"`(.+)`", did_you_mean(city.replace(" ", "_"), cities))
    return f"did you mean `{cities[found[1]]}`?" if found else ""


def _secret(value: object) -> str:
    """A reference. What is written instead may be the secret itself, so it is never shown."""
    if not isinstance(value, str) or not re.fullmatch(_SECRET, value):
        raise refusal(
            "this is not a reference to a secret (what is written here is not shown)",
            why="a document is kept and shown in full, so it may only name a secret",
            fix="store the value as a secret and write `secret://NAME`",
        )
    return value


_AMOUNT = r"[0-9]+(\.[0-9]+)? ?USD"
_SIZE = r"[0-9]+(\.[0-9]+)? ?[MGT]i?B"

Duration = Annotated[
    int,
    _unit(_duration_s, "5m"),
    _shown("string", "([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?", "5m"),
]
PriceHour = Annotated[
    Decimal,
    _unit(_price_usd_hour, "1.50 USD/hour"),
    _shown("string", rf"{_AMOUNT}( ?/ ?hour)?", "1.50 USD/hour"),
]
Hour = Annotated[
    Decimal, _unit(_price_usd_hour, "20 USD"), _shown("string", rf"{_AMOUNT}( ?/ ?hour)?", "20 USD")
]
Day = Annotated[
    Decimal,
    _unit(lambda text: units.parse_money_usd(text, per="day"), "200 USD"),
    _shown("string", rf"{_AMOUNT}( ?/ ?day)?", "200 USD"),
]
Month = Annotated[
    Decimal,
    _unit(lambda text: units.parse_money_usd(text, per="month"), "3000 USD"),
    _shown("string", rf"{_AMOUNT}( ?/ ?month)?", "3000 USD"),
]
Disk = Annotated[
    int,
    _unit(units.parse_disk_gib, "100GB"),
    _shown("string", _SIZE, "100GB"),
]
MemoryRange = Annotated[
    Range,
    _unit(units.parse_memory_range_mib, "16GB.."),
    _shown("string", rf"({_SIZE}(\.\.({_SIZE})?)?|\.\.{_SIZE})", "16GB..", "16GB..64GB"),
]
CountRange = Annotated[
    Range,
    _unit(units.parse_count_range, "4.."),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^([0-9]+|[0-9]+\.\.[0-9]*|\.\.[0-9]+)$"},
            ],
            "examples": ["4..", "2..8", 4],
        }
    ),
]
Gpu = Annotated[
    GpuRange,
    _unit(units.parse_gpu_range, "L4:1"),
    WithJsonSchema(
        {
            "type": ["string", "integer"],
            "examples": ["L4:1", "A100:1..8", "H100:80GB:8", "nvidia:24GB..:1"],
        }
    ),
]
Market = Annotated[
    str,
    one_of("a market", *(each.value for each in MarketPolicy)),
    WithJsonSchema({"enum": [each.value for each in MarketPolicy]}),
]
Limit = Annotated[
    str,
    one_of("a reaction to a used-up budget", *(each.value for each in AtLimit)),
    WithJsonSchema({"enum": [each.value for each in AtLimit]}),
]
AlertOn = Annotated[
    str,
    one_of("something to alert on", *(each.value for each in AlertKind)),
    WithJsonSchema({"enum": [each.value for each in AlertKind]}),
]
Name = Annotated[
    str,
    _word(
        "name",
        _NAME,
        "names have 1 to 40 lower-case letters, digits and `-`, and start with a letter",
        guess=True,
    ),
    Field(json_schema_extra={"pattern": f"^{_NAME}$"}),
]
Region = Annotated[
    str,
    _word("region", _REGION, "write the cloud's own code, such as `us-east-1`"),
    Field(json_schema_extra={"pattern": f"^{_REGION}$"}),
]
Option = Annotated[
    str,
    _word("usable setting", r"[A-Za-z0-9][A-Za-z0-9._()/:-]{0,199}", "write the plain name or id"),
]
AwsImage = Annotated[
    str,
    _word(
        "machine image",
        r"ami-[0-9a-f]{8,17}|/[A-Za-z0-9._/-]{1,500}",
        "write an image id or the path of an SSM parameter",
    ),
]
GcpPath = Annotated[
    str,
    _word(
        "resource of Google Cloud",
        r"[A-Za-z0-9][A-Za-z0-9._{}/:-]{0,299}",
        "write the plain name or the path, such as `projects/p/global/networks/n`",
    ),
]
GcpAccount = Annotated[
    str,
    _word(
        "service account",
        r"[a-z0-9-]{1,64}@[a-z0-9.-]{1,190}",
        "write its address, such as `agents@acme-ml.iam.gserviceaccount.com`",
    ),
]
_AZURE_ID = r"/subscriptions/(?:[A-Za-z0-9._()/-]|\{region\}){1,500}"
AzureId = Annotated[
    str, _word("resource id of Azure", _AZURE_ID, "write it whole, from `/subscriptions/` on")
]
AzureImage = Annotated[
    str,
    _word(
        "machine image",
        rf"[A-Za-z0-9._-]+(?::[A-Za-z0-9._-]+){{3}}|{_AZURE_ID}",
        "write `publisher:offer:sku:version` or a resource id",
    ),
]
Secret = Annotated[
    str, PlainValidator(_secret), _shown("string", _SECRET, "secret://slack-webhook")
]
Cron = Annotated[str, AfterValidator(_cron), Field(examples=["0 8 * * MON-FRI"])]
TimeZone = Annotated[str, AfterValidator(_timezone), Field(examples=["Europe/Berlin"])]
Count = Annotated[int, Field(ge=0, le=10_000)]
Some = Annotated[int, Field(ge=1, le=10_000)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
