"""`ports.Provider` on a simulated cloud. Copy its shape for a new cloud."""

from __future__ import annotations

from collections.abc import Sequence

from control_plane.core.model import Observation, Offer, Sighting
from control_plane.core.policy import CloudPolicy
from control_plane.ports import Launched, LaunchRequest, MachineRef
from providers.simulated.cloud import SimulatedCloud


class SimulatedProvider:
    """One cloud under a name of its own, so several may stand side by side for real ones."""

    needs_token = True

    def __init__(self, cloud: SimulatedCloud, name: str = "simulated") -> None:
        self._cloud = cloud
        self.name = name

    def offers(self, clouds: Sequence[CloudPolicy] = ()) -> Sequence[Offer]:  # noqa: ARG002
        """All that can be bought here, sold out or not, with today's prices."""
        return self._cloud.offers(self.name)

    def launch(self, request: LaunchRequest) -> Launched:
        """Start a VM, or return the one that this key has started."""
        return self._cloud.launch(request)

    def launch_result(self, request: LaunchRequest, operation: str) -> Launched:
        """How a launch that answered with an operation goes on."""
        return self._cloud.launch_result(request, operation)

    def observe(
        self,
        fleet: str,
        clouds: Sequence[CloudPolicy] = (),  # noqa: ARG002
    ) -> Observation:
        """Every VM of a fleet; regions that did not answer are `unknown`."""
        sightings, unknown = self._cloud.observe(self.name, fleet)
        return Observation(
            provider=self.name,
            at=self._cloud.clock.now(),
            sightings=tuple(sightings),
            unknown=tuple(unknown),
        )

    def sighting(self, ref: MachineRef) -> Sighting | None:
        """One VM; None = it does not exist (any more)."""
        return self._cloud.sighting(self.name, ref)

    def terminate(self, ref: MachineRef) -> None:
        """Begin to end a VM."""
        self._cloud.terminate(ref)
