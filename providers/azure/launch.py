"""One launch at Azure: from a key to a machine, an operation or a refusal. Nothing here waits.

The name of the machine is made from the key, and `If-None-Match: *` lets only the first PUT of a
name make anything; who comes second finds it made. A name is free again when its machine has gone,
so a machine that came up leaves a mark which outlives it: an SSH key resource of the same name,
which costs nothing. A key that has a mark and no machine starts nothing more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from control_plane.core.model import ErrorClass, Market
from control_plane.errors import ProviderError
from control_plane.ports import Launched, LaunchRequest
from providers.azure import ending
from providers.azure.body import KEY, LAUNCHED, is_of, labels, vm_body, vm_name
from providers.azure.client import Clients, Place
from providers.azure.errors import ended, is_gone, refused, told
from providers.azure.listing import Vm, failure, identity, machine, made_at, provisioning, tags

if TYPE_CHECKING:
    from azure.core.pipeline import PipelineResponse
    from azure.mgmt.compute.models import VirtualMachine


class Launch:
    """The launch of one request."""

    def __init__(
        self,
        clients: Clients,
        request: LaunchRequest,
        *,
        now: Callable[[], datetime],
        operations: MutableMapping[str, str],
    ) -> None:
        """`operations` keeps, by machine, where Azure tells how the making goes on. These addresses
        are thousands of characters long, so they are kept for this process only: without one, the
        machine itself tells what went wrong."""
        self._clients = clients
        self._request = request
        self._now = now
        self._operations = operations
        self._spot = request.offer.market is Market.SPOT
        self._place: Place = clients.place(request.cloud.options)
        self._name = vm_name(request.boot.fleet, request.key)
        self._id = self._place.vm_id(self._name)
        self._compute = clients.compute(self._place.subscription)

    def begin(self, render: Callable[[LaunchRequest], str]) -> Launched:
        """Make the machine, or find the one that this key has made."""
        with told(spot=self._spot):
            if self._marked():
                return self._judged(self._found(), marked=True)
            body = vm_body(self._request, self._place, render(self._request))
            return self._judged(self._put(body) or self._found())

    def result(self) -> Launched:
        """How the making of the machine goes on."""
        with told(spot=self._spot):
            return self._judged(self._found())

    # --------------------------------------------------------------------------------- inside

    def _put(self, body: Mapping[str, Any]) -> Vm | None:
        """The machine as it is being made; None when the name is taken."""
        from azure.core import MatchConditions
        from azure.core.exceptions import HttpResponseError
        from azure.mgmt.compute.models import VirtualMachine

        try:
            made = self._compute.virtual_machines.begin_create_or_update(
                self._place.group,
                self._name,
                VirtualMachine(body),
                match_condition=MatchConditions.IfMissing,
                polling=False,
                cls=self._note_operation,
            )
        except HttpResponseError as error:
            if error.status_code == 412:
                return None
            raise
        return made.result().as_dict()

    def _note_operation(
        self, answer: PipelineResponse[Any, Any], vm: VirtualMachine, _headers: object
    ) -> VirtualMachine:
        self._operations[self._id] = answer.http_response.headers.get("Azure-AsyncOperation", "")
        return vm

    def _found(self) -> Vm:
        vm = machine(self._clients, self._place, self._name)
        if vm is None:
            raise ended(self._name)
        if not is_of(tags(vm), self._request):
            raise ProviderError(
                f"{self._id} is there already, and its label {KEY} is not {self._request.key}",
                error_class=ErrorClass.INVALID,
                raw_code="NameTaken",
            )
        return vm

    def _judged(self, vm: Vm, *, marked: bool = False) -> Launched:
        """What a machine's state means for its launch. A state that is none of these stands for
        something that goes on."""
        state, at = provisioning(vm), made_at(vm) or self._now()
        if state == "Deleting":
            raise ended(self._name)
        if state in ("Failed", "Canceled"):
            self._refuse()
        known = identity(self._place, vm)
        if state != "Succeeded":
            return Launched(provider_id=self._id, at=at, operation=self._id, identity=known)
        if not marked:
            self._mark(at)
        self._operations.pop(self._id, None)
        return Launched(provider_id=self._id, at=at, identity=known)

    def _refuse(self) -> NoReturn:
        """A machine that could not be made stays, and keeps what was made with it: end it."""
        said = self._said_by_operation() or failure(self._found())
        self._operations.pop(self._id, None)
        ending.clear(self._clients, self._place, self._name)
        raise refused(said, spot=self._spot)

    def _said_by_operation(self) -> Mapping[str, Any]:
        from azure.core.exceptions import AzureError

        url = self._operations.get(self._id)
        with suppress(AzureError):
            answer = self._clients.call(self._place.subscription, "GET", url) if url else {}
            return answer.get("error") or {}
        return {}

    def _marked(self) -> bool:
        from azure.core.exceptions import HttpResponseError

        try:
            self._compute.ssh_public_keys.get(self._place.group, self._name)
        except HttpResponseError as error:
            if is_gone(error):
                return False
            raise
        return True

    def _mark(self, at: datetime) -> None:
        """Best effort: the machine is there, and a launch that succeeded must say so."""
        from azure.core.exceptions import AzureError
        from azure.mgmt.compute.models import SshPublicKeyResource

        told_by = labels(self._request) | {LAUNCHED: str(int(at.timestamp()))}
        mark = SshPublicKeyResource(location=self._request.offer.region, tags=told_by)
        with suppress(AzureError):
            self._compute.ssh_public_keys.create(self._place.group, self._name, mark)
