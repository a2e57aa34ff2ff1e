"""The HTTP server: one account behind one port, for EC2, SSM, Service Quotas and Scheduler, and for
as much of STS and IAM as tells who somebody is.

Order of a call: faults, then botocore's validation of the request, then the service, then
botocore's validation of the answer, then the answer is lost or sent.
"""

from __future__ import annotations

import io
import json
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qsl

from flask import Flask
from moto.core.request import Request
from moto.core.routing import get_service_router
from moto.core.utils import convert_to_flask_response
from moto.ec2.models import ec2_backends
from moto.moto_server.werkzeug_app import BackendRequest, MotoRequestHandler, create_backend_app
from moto.scheduler.models import scheduler_backends
from werkzeug.serving import make_server

from tests.fakes.ec2.account import Account
from tests.fakes.ec2.api import Api
from tests.fakes.ec2.checks import answer_problems, ec2_request, json_request
from tests.fakes.ec2.faults import STATUSES

_Environ = dict[str, Any]
_Answer = tuple[int, bytes]
_HEADERS = "orchctl.headers"
_MODELS = {"servicequotas": "service-quotas"}
"""botocore's name of a service where it is signed under another one."""
_QUERY = frozenset({"sts", "iam"})
"""Services that are asked by forms and answer in XML."""


class Ec2Server:
    """A running fake at `url`. Use its `account` to see and to change what is there."""

    def __init__(self, account: Account | None = None) -> None:
        self.account = account or Account()
        self._apps: dict[str, Callable[..., Iterable[bytes]]] = {
            "ec2": _ec2_app(self.account),
            "scheduler": create_backend_app("scheduler"),
        }
        self._http = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        """Listen no more, and forget the account."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        for backends in (ec2_backends, scheduler_backends):
            backends.pop(self.account.id, None)

    def __call__(self, environ: _Environ, start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        if environ["PATH_INFO"].startswith("/_control/"):
            status, answer = self._control(environ["PATH_INFO"], body)
        else:
            status, answer = self._call(environ, body)
        if not status:
            _hang_up(environ)
        headers = {"Content-Length": str(len(answer)), **environ.get(_HEADERS, {})}
        start(f"{status or 500} -", list(headers.items()))
        return [answer]

    # ---------------------------------------------------------------------------------- a call

    def _call(self, environ: _Environ, body: bytes) -> _Answer:
        """Status and text of an answer; status 0 = none is sent."""
        region, service = _scope(environ)
        operation, wrong = self._parsed(service, environ, body)
        faults = self.account.faults
        faults.calls[operation] += 1
        time.sleep(faults.delay_s(region))
        if region in faults.silent:
            return 0, b""
        fault = faults.next(service, operation, region)
        if fault and fault.call_lost:
            return 0, b""
        if fault and fault.retry_after_s:
            environ[_HEADERS] = {"Retry-After": str(fault.retry_after_s)}
        if fault and fault.garbled:
            return 200, fault.garbled.encode()
        if fault and fault.code:
            return _refusal(service, fault.code, fault.message, fault.status)
        if wrong:
            self.account.violations.append(wrong)
            return _refusal(service, "InvalidParameterValue", wrong)
        status, answer = self._served(service, operation, region, environ, body)
        self.account.holds.before_answer(operation)
        return (0, b"") if fault and fault.answer_lost else (status, answer)

    def _parsed(self, service: str, environ: _Environ, body: bytes) -> tuple[str, str]:
        """The operation, and what is wrong with the request."""
        if service == "ec2":
            form = dict(parse_qsl(body.decode(), keep_blank_values=True))
            operation = form.pop("Action")
            form.pop("Version")
            return operation, ec2_request(operation, form)[1]
        if service in _QUERY:
            form = dict(parse_qsl(body.decode()))
            operation = form.pop("Action")
            form.pop("Version")
            return operation, json_request(service, operation, form)
        named = _MODELS.get(service, service)
        if target := environ.get("HTTP_X_AMZ_TARGET", ""):
            operation = target.rpartition(".")[2]
            return operation, json_request(named, operation, json.loads(body))
        found, at = get_service_router(named).match(Request(environ))
        params = {**(json.loads(body) if body else {}), **at}
        return found.name, json_request(named, found.name, params)

    def _served(
        self, service: str, operation: str, region: str, environ: _Environ, body: bytes
    ) -> _Answer:
        with self.account.lock:
            self.account.catch_up()
            if service == "ec2" and operation.startswith("Describe") and b"DryRun=true" in body:
                return _refusal(service, "DryRunOperation", "Request would have succeeded")
            if service in _QUERY:
                status, answer = self._who(operation, dict(parse_qsl(body.decode())))
            elif service not in self._apps:
                status, answer = self._beside(operation, region, json.loads(body))
            else:
                try:
                    status, answer = self._by_moto(service, environ)
                except Exception:
                    self.account.violations.append(traceback.format_exc())
                    raise
        if status >= 400:
            return STATUSES.get(_code(answer), status), answer
        # What DescribeInstances shows was checked when it was rendered.
        if operation != "DescribeInstances":
            problems = answer_problems(_MODELS.get(service, service), operation, answer)
            self.account.violations.extend(problems)
        return status, answer

    def _by_moto(self, service: str, environ: _Environ) -> _Answer:
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = self.account.id
        said: list[str] = []
        chunks = self._apps[service](environ, lambda status, *_: said.append(status))
        return int(said[0].split()[0]), b"".join(chunks)

    def _beside(self, operation: str, region: str, asked: Mapping[str, Any]) -> _Answer:
        """SSM and Service Quotas, as far as they are used."""
        if operation == "GetParameter":
            name = asked["Name"]
            image = self.account.parameters.get(name)
            if image is None:
                return _refusal("ssm", "ParameterNotFound", name)
            return _json({"Parameter": {"Name": name, "Type": "String", "Value": image}})
        if operation == "GetServiceQuota":
            code = asked["QuotaCode"]
            value = self.account.stock.quota(region, code)
            return _json({"Quota": {"ServiceCode": "ec2", "QuotaCode": code, "Value": value}})
        return _refusal("ssm", "UnknownOperationException", operation)

    def _who(self, operation: str, asked: Mapping[str, str]) -> _Answer:
        """STS and IAM."""
        account = self.account.id
        if operation == "GetCallerIdentity":
            arn = f"arn:aws:iam::{account}:user/controller"
            return _xml(operation, {"UserId": "AIDAEXAMPLE", "Account": account, "Arn": arn})
        name = asked["InstanceProfileName"]
        if name not in self.account.profiles:
            return _refusal("iam", "NoSuchEntity", f"Instance Profile {name} cannot be found.", 404)
        arn = f"arn:aws:iam::{account}:instance-profile/{name}"
        dated = {"Path": "/", "CreateDate": "2026-01-01T00:00:00Z"}
        role = {"RoleName": name, "RoleId": "AROAEXAMPLE", "Arn": f"arn:aws:iam::{account}:role/x"}
        profile = {"InstanceProfileName": name, "InstanceProfileId": "AIPAEXAMPLE", "Arn": arn}
        roles = {"Roles": {"member": {**role, **dated}}}
        return _xml(operation, {"InstanceProfile": {**profile, **dated, **roles}})

    # -------------------------------------------------------------------------------- controls

    def _control(self, path: str, body: bytes) -> _Answer:
        act = getattr(self.account, path.removeprefix("/_control/"), None)
        if not callable(act) or path.startswith("/_control/_"):
            return 404, b"{}"
        try:
            return _json(act(**(json.loads(body) if body else {})))
        except (KeyError, TypeError, ValueError) as error:
            return 400, json.dumps({"error": str(error)}).encode()


class _Handler(MotoRequestHandler):
    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` of an answer."""
        fake: Any = self.server.app
        return format_datetime(fake.account.now(), usegmt=True)

    def log(self, *_: Any) -> None:
        """Tests read the account, not a log."""


def _ec2_app(account: Account) -> Flask:
    api: Any = type("BoundApi", (Api,), {"account": account})
    app = Flask("ec2")
    app.request_class = BackendRequest
    app.config["PROPAGATE_EXCEPTIONS"] = True
    view = convert_to_flask_response(api.dispatch)
    app.add_url_rule("/", endpoint="ec2", methods=["POST"], view_func=view)
    return app


def _scope(environ: _Environ) -> tuple[str, str]:
    """Region and service of a signed request."""
    credential = environ["HTTP_AUTHORIZATION"].split("Credential=")[1].split(",")[0]
    _, _, region, service, _ = credential.split("/")
    return region, service


def _code(answer: bytes) -> str:
    text = answer.decode()
    return text.partition("<Code>")[2].partition("</Code>")[0]


def _refusal(service: str, code: str, message: str, status: int = 0) -> _Answer:
    status = status or STATUSES.get(code, 400)
    if service in _QUERY:
        error = f"<Code>{code}</Code><Message>{message}</Message>"
        return status, f"<ErrorResponse><Error>{error}</Error></ErrorResponse>".encode()
    if service != "ec2":
        return status, json.dumps({"__type": code, "message": message}).encode()
    text = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        "</Errors><RequestID>r</RequestID></Response>"
    )
    return status, text.encode()


def _json(answer: object) -> _Answer:
    return 200, json.dumps(answer, default=str).encode()


def _xml(operation: str, result: Mapping[str, Any]) -> _Answer:
    text = _elements({f"{operation}Response": {f"{operation}Result": result}})
    return 200, text.encode()


def _elements(tree: Mapping[str, Any]) -> str:
    return "".join(
        f"<{name}>{_elements(inner) if isinstance(inner, Mapping) else inner}</{name}>"
        for name, inner in tree.items()
    )


def _hang_up(environ: _Environ) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    connection.shutdown(socket.SHUT_RDWR)
