"""The way to Compute Engine: Google's own client, loaded at the first call, and its errors.

The client's operations object is never used: it would ask the real cloud, whatever endpoint and
credentials the client has. Nor are its retries: each call is made once, with a deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from providers.gcp.errors import Refused, refusal

if TYPE_CHECKING:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.credentials import Credentials
    from google.auth.transport.requests import AuthorizedSession

_GOOGLES = "compute.googleapis.com"
_BILLING = "https://cloudbilling.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
_SKUS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """How to reach the API."""

    endpoint: str = ""
    """Of all APIs; empty = Google's."""
    credentials: Credentials | None = None
    """None = those of the environment, as Google's libraries find them."""
    connect_s: float = 5.0
    read_s: float = 20.0
    """The longest silence of an answer."""


class Client:
    """One connection for any number of threads. Whatever goes wrong is a `ProviderError`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._services: dict[str, Any] = {}
        self._lock = threading.Lock()

    def call(self, service: str, method: str, **request: object) -> Any:
        """One call, such as `call("Instances", "get", project=…)`."""
        with _translated():
            return self._begun(service, method, request)

    def pages(self, service: str, method: str, **request: object) -> Iterator[Any]:
        """A listing, page by page."""
        with _translated():
            yield from self._begun(service, method, request).pages

    def find(self, service: str, method: str, name: str, **request: object) -> Any | None:
        """One call about one thing; None = the cloud says that there is no thing of this name. A
        404 that does not name it is about something else: the project, or a server on the way."""
        from google.api_core.exceptions import NotFound

        with _translated():
            try:
                return self._begun(service, method, request)
            except NotFound as error:
                if name in _said(error):
                    return None
                raise

    def account(self) -> str:
        """Whose credentials these are, as far as they say it themselves."""
        import google.auth

        with _translated():
            credentials = self._connection.credentials or google.auth.default()[0]
        told = (getattr(credentials, name, "") for name in ("service_account_email", "account"))
        return str(next(filter(None, told), type(credentials).__name__))

    def date(self, project: str) -> str:
        """The `Date` of an answer about a project: headers are shown to an interceptor only."""
        from google.cloud import compute_v1
        from google.cloud.compute_v1.services.projects.transports import rest

        headers: dict[str, str] = {}

        class Interceptor(rest.ProjectsRestInterceptor):
            def post_get_with_metadata(self, response: Any, metadata: Any) -> Any:
                headers.update({name.lower(): value for name, value in metadata})
                return response, metadata

        with _translated():
            transport = rest.ProjectsRestTransport(
                host=self._connection.endpoint or _GOOGLES,
                credentials=self._connection.credentials,
                interceptor=Interceptor(),
            )
            asked = {"project": project}
            with compute_v1.ProjectsClient(transport=transport) as client:
                client.get(request=asked, retry=None, timeout=self._deadline())
        return headers.get("date", "")

    def skus(self, service: str) -> Iterator[Mapping[str, Any]]:
        """All that a service of Google's is billed by, in US dollars. It is asked for without an
        SDK: that of this API is a package of its own."""
        from google.api_core.exceptions import from_http_response

        url = f"{self._connection.endpoint or _BILLING}/v1/services/{service}/skus"
        asked = {"currencyCode": "USD", "pageSize": str(_SKUS_AT_ONCE), "pageToken": ""}
        limits = (self._connection.connect_s, self._connection.read_s)
        with _translated(), self._session() as session:
            while True:
                answer = session.get(url, params=asked, timeout=limits)
                if not answer.ok:
                    raise from_http_response(answer)  # type: ignore[no-untyped-call]
                page = answer.json()
                yield from page.get("skus", ())
                asked["pageToken"] = page.get("nextPageToken", "")
                if not asked["pageToken"]:
                    return

    def _session(self) -> AuthorizedSession:
        import google.auth
        from google.auth.credentials import with_scopes_if_required
        from google.auth.transport.requests import AuthorizedSession

        credentials = self._connection.credentials or google.auth.default()[0]
        scoped = with_scopes_if_required(credentials, _SCOPES)  # type: ignore[no-untyped-call]
        return AuthorizedSession(scoped)  # type: ignore[no-untyped-call]

    def _begun(self, service: str, method: str, request: Mapping[str, object]) -> Any:
        called = getattr(self._service(service), method)
        return called(request=request, retry=None, timeout=self._deadline())

    def _service(self, name: str) -> Any:
        with self._lock:
            if name not in self._services:
                self._services[name] = self._opened(name)
            return self._services[name]

    def _opened(self, name: str) -> Any:
        from google.api_core.client_options import ClientOptions
        from google.cloud import compute_v1

        options = ClientOptions(api_endpoint=self._connection.endpoint or None)
        service = getattr(compute_v1, f"{name}Client")
        return service(credentials=self._connection.credentials, client_options=options)

    def _deadline(self) -> Any:
        from google.api_core import timeout

        # The transport hands it to `requests`, which takes the two limits as a pair.
        limits = (self._connection.connect_s, self._connection.read_s)
        return timeout.ConstantTimeout(limits)  # type: ignore[no-untyped-call]


@contextmanager
def _translated() -> Iterator[None]:
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from requests.exceptions import RequestException

    try:
        yield
    except GoogleAPICallError as error:
        raise _refused(error).error() from error
    except (RequestException, ParseError) as error:
        raise refusal("NoAnswer", f"{type(error).__name__}: {error}") from error
    except GoogleAuthError as error:
        code = "NoAnswer" if error.retryable else "NoCredentials"
        raise refusal(code, f"{type(error).__name__}: {error}") from error


def _refused(error: GoogleAPICallError) -> Refused:
    return Refused(
        code=_reason(error),
        text=_said(error) or str(error.message),
        status=int(error.code or 0),
        retry_after_s=_retry_after(error),
    )


def _said(error: GoogleAPICallError) -> str:
    """What the API says, without the address of the call, which names things too; empty when it was
    not the API that answered."""
    said = [str(each.get("message", "")) for each in error.errors if isinstance(each, Mapping)]
    return "; ".join(said)


def _reason(error: GoogleAPICallError) -> str:
    """The `reason` of an answer: the API's own word, not the name of the HTTP status."""
    for each in error.errors:
        if isinstance(each, Mapping) and each.get("reason"):
            return str(each["reason"])
    return str(error.reason or "")


def _retry_after(error: GoogleAPICallError) -> float | None:
    headers = getattr(error.response, "headers", {})
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isdecimal() else None
