"""Blobs as objects of one S3 bucket.

An object cannot grow. So what is appended is a row of objects, `KEY/.part-…`, each named after
where it begins and written on condition that nobody has written one there: of two that append at
the same place one wins, and the other one sees its bytes. They are named from high to low, so the
first name that a listing shows is the end of the blob, however long it is.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from typing import Any
from urllib.parse import quote

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from control_plane.blobs import keys
from control_plane.errors import Conflict, InvalidInput, NotFound, Unavailable
from control_plane.ports import Blobs, Presigned, Upload

PUT_MAX_BYTES = 5 * 2**30
"""Of one PutObject. Source: Amazon S3 User Guide, "Uploading objects"."""

_HIGHEST = (1 << 48) - 1
_PART = "/.part-"
"""No key has a name that begins with a dot, so no part is ever taken for a blob."""
_ABSENT = ("404", "NoSuchKey", "NotFound")
_TAKEN = ("412", "PreconditionFailed", "ConditionalRequestConflict", "409")


def connect(*, region: str = "", endpoint_url: str = "", **credentials: str) -> Any:
    """An S3 client; what is left empty comes from where the AWS SDK looks for it."""
    config = Config(
        retries={"total_max_attempts": 4, "mode": "standard"},
        connect_timeout=5,
        read_timeout=20,
        max_pool_connections=32,
        # Else addresses for others are signed in an old way, which no header takes part in, and
        # name the global endpoint, which redirects while a bucket is young.
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint_url else "virtual"},
    )
    return botocore.session.get_session().create_client(
        "s3",
        region_name=region or None,
        endpoint_url=endpoint_url or None,
        config=config,
        **credentials,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of an appended blob."""

    name: str
    start: int
    size: int

    @property
    def end(self) -> int:
        return self.start + self.size


class S3Blobs:
    """`ports.Blobs` in a bucket. Any number of threads and processes may use it. What was
    acknowledged is stored as durably as S3 does."""

    def __init__(self, client: Callable[[], Any], bucket: str) -> None:
        """`client` makes one when it is needed first: most requests need none."""
        self._client = cache(client)
        self._bucket = bucket

    def put(self, key: str, data: bytes) -> None:
        keys.check(key)
        self._call("put_object", Key=key, Body=data)

    def get(self, key: str) -> bytes:
        keys.check(key)
        whole = self._get(key)
        if whole is not None:
            return whole
        text = self._joined(self._parts(key))
        if text is None:
            raise NotFound(f"there is no blob {key}")
        return text

    def append(self, key: str, offset: int, data: bytes) -> int:
        keys.check(key)
        while True:
            size = self._appended(key)
            if offset > size:
                raise Conflict(f"blob {key} has {size} bytes, offset {offset} is beyond it")
            fresh = data[size - offset :]
            if not fresh:
                return size
            try:
                self._call("put_object", Key=_name(key, size), Body=fresh, IfNoneMatch="*")
            except _Taken:
                continue  # somebody has appended there: what they wrote is known now
            return size + len(fresh)

    def read(self, key: str, offset: int, limit: int) -> bytes:
        keys.check(key)
        if limit <= 0:
            return b""
        parts = self._parts(key, below=offset + limit)
        wanted = list(takewhile(lambda part: part.end > offset, parts))
        if not wanted:
            return self._get(key, offset, limit) or b""
        first = wanted[-1].start
        text = self._joined(wanted) or b""
        return text[offset - first : offset - first + limit]

    def size(self, key: str) -> int:
        keys.check(key)
        return self._appended(key) or self._put_size(key)

    def remove(self, prefix: str) -> None:
        keys.check_prefix(prefix)
        for page in self._pages(prefix):
            doomed = {"Objects": [{"Key": each["Key"]} for each in page], "Quiet": True}
            answer = self._call("delete_objects", Delete=doomed)
            if answer.get("Errors"):
                raise Unavailable(f"S3 did not delete {answer['Errors'][0]['Key']}")

    def _put_size(self, key: str) -> int:
        # The first name with this beginning is the name itself. Asked by a listing: who may not
        # list is told the same of what is missing as of what is forbidden.
        found = self._call("list_objects_v2", Prefix=key, MaxKeys=1).get("Contents", ())
        return next((int(each["Size"]) for each in found if each["Key"] == key), 0)

    # --------------------------------------------------------------------- `ports.Presigned`

    def sign_upload(self, key: str, *, size: int, sha256: str, expires_s: int) -> Upload:
        keys.check(key)
        if size > PUT_MAX_BYTES:
            raise InvalidInput(f"one blob has at most {PUT_MAX_BYTES // 2**30} GiB")
        digest = base64.b64encode(bytes.fromhex(sha256)).decode()
        url = self._sign(
            "put_object", expires_s, Key=key, ContentLength=size, ChecksumSHA256=digest
        )
        # Both are signed, so whoever sends others is refused; and S3 compares what it receives.
        return Upload(
            url=url, headers={"Content-Length": str(size), "x-amz-checksum-sha256": digest}
        )

    def sign_download(self, key: str, *, name: str, expires_s: int) -> str:
        keys.check(key)
        # The form of RFC 8187, in which a name may hold anything.
        shown = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        return self._sign("get_object", expires_s, Key=key, ResponseContentDisposition=shown)

    def _sign(self, action: str, expires_s: int, **parameters: Any) -> str:
        with _answering(action):
            url: str = self._client().generate_presigned_url(
                action, Params={"Bucket": self._bucket, **parameters}, ExpiresIn=expires_s
            )
            return url

    # ------------------------------------------------------------------------------ parts

    def _appended(self, key: str) -> int:
        last = next(self._parts(key), None)
        return last.end if last else 0

    def _parts(self, key: str, *, below: int = _HIGHEST) -> Iterator[_Part]:
        """Those that begin before an offset, the last one first."""
        after = _name(key, below) if below < _HIGHEST else ""
        for page in self._pages(key + _PART, after):
            for each in page:
                start = _HIGHEST - int(each["Key"].rpartition("-")[2], 16)
                yield _Part(name=each["Key"], start=start, size=each["Size"])

    def _joined(self, parts: Iterable[_Part]) -> bytes | None:
        """What stands in them, the last one first; None when there are none, or one is no more:
        somebody is removing the blob."""
        texts = [self._get(part.name) for part in parts]
        present = [text for text in texts if text is not None]
        return b"".join(reversed(present)) if present and len(present) == len(texts) else None

    # ------------------------------------------------------------------------------ calls

    def _pages(self, prefix: str, after: str = "") -> Iterator[list[dict[str, Any]]]:
        more: dict[str, str] = {"StartAfter": after} if after else {}
        while True:
            page = self._call("list_objects_v2", Prefix=prefix, **more)
            if page.get("Contents"):
                yield page["Contents"]
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _get(self, name: str, offset: int = 0, limit: int = 0) -> bytes | None:
        """An object or a stretch of it; None when there is none."""
        stretch = {"Range": f"bytes={offset}-{offset + limit - 1}"} if limit else {}
        try:
            body = self._call("get_object", Key=name, **stretch)["Body"]
        except NotFound:
            return None
        except _Beyond:
            return b""
        with _answering("get_object"):
            return bytes(body.read())

    def _call(self, action: str, **parameters: Any) -> Any:
        with _answering(action):
            return getattr(self._client(), action)(Bucket=self._bucket, **parameters)


_: type[Blobs] = S3Blobs
__: type[Presigned] = S3Blobs


class _Taken(Exception):
    """There is such an object already."""


class _Beyond(Exception):
    """The stretch begins behind the end."""


def _name(key: str, start: int) -> str:
    return f"{key}{_PART}{_HIGHEST - start:012x}"


@contextmanager
def _answering(action: str) -> Iterator[None]:
    """Refusals of S3 as errors of ours."""
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _ABSENT:
            raise NotFound(f"S3 {action}: {code}") from error
        if code in _TAKEN:
            raise _Taken from error
        if code in ("416", "InvalidRange"):
            raise _Beyond from error
        raise Unavailable(f"S3 refuses {action}: {error}") from error
    except BotoCoreError as error:
        raise Unavailable(f"S3 does not answer {action}: {error}") from error
