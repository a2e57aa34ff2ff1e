"""The protocol of Terraform's plugins, version 6, as far as its commands need it."""
# ruff: noqa: N802 - the names are those of the protocol

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import wraps
from typing import Any

from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc
from tf.types import Unknown
from tf.utils import Diagnostics, read_dynamic_value, to_dynamic_value

from tests.fakes.terraform_provider import calls, resources
from tests.fakes.terraform_provider.plans import known, planned
from tests.fakes.terraform_provider.schema import ProviderSchema, on_the_wire


def _told(answer: type) -> Any:
    """What goes wrong is an error that Terraform shows."""

    def decorate(method: Any) -> Any:
        @wraps(method)
        def guarded(self: Servicer, request: Any, context: Any) -> Any:
            try:
                return method(self, request, context)
            except Exception as error:  # noqa: BLE001 - all of it is for whoever runs Terraform
                told = Diagnostics().add_error(type(error).__name__, str(error))
                return answer(diagnostics=told.to_pb())

        return guarded

    return decorate


class Servicer(rpc.ProviderServicer):
    """Answers for one provider."""

    def __init__(self, schema: ProviderSchema) -> None:
        self._schema = schema
        self._tags: Mapping[str, str] = {}

    def GetMetadata(self, request: Any, context: Any) -> pb.GetMetadata.Response:
        return pb.GetMetadata.Response(server_capabilities=pb.ServerCapabilities())

    def GetProviderSchema(self, request: Any, context: Any) -> pb.GetProviderSchema.Response:
        schema = self._schema
        return pb.GetProviderSchema.Response(
            provider=on_the_wire(schema.provider),
            provider_meta=on_the_wire({}),
            resource_schemas={name: on_the_wire(each) for name, each in schema.resources.items()},
            data_source_schemas={
                name: on_the_wire(each) for name, each in schema.data_sources.items()
            },
        )

    def GetFunctions(self, request: Any, context: Any) -> pb.GetFunctions.Response:
        return pb.GetFunctions.Response()

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:
        return pb.ValidateDataResourceConfig.Response()

    @_told(pb.ConfigureProvider.Response)
    def ConfigureProvider(self, request: Any, context: Any) -> pb.ConfigureProvider.Response:
        config = read_dynamic_value(request.config)
        self._tags = {
            name: value
            for block in config.get("default_tags") or ()
            for name, value in (block["tags"] or {}).items()
        }
        region = config.get("region")
        calls.use_region(region if isinstance(region, str) else None)
        return pb.ConfigureProvider.Response()

    @_told(pb.UpgradeResourceState.Response)
    def UpgradeResourceState(self, request: Any, context: Any) -> pb.UpgradeResourceState.Response:
        state = json.loads(request.raw_state.json)
        return pb.UpgradeResourceState.Response(upgraded_state=to_dynamic_value(state))

    @_told(pb.PlanResourceChange.Response)
    def PlanResourceChange(self, request: Any, context: Any) -> pb.PlanResourceChange.Response:
        block = self._schema.resources[request.type_name]
        proposed = read_dynamic_value(request.proposed_new_state)
        prior = read_dynamic_value(request.prior_state)
        state = planned(block, proposed, prior, self._tags) if proposed else None
        return pb.PlanResourceChange.Response(planned_state=to_dynamic_value(state))

    @_told(pb.ReadResource.Response)
    def ReadResource(self, request: Any, context: Any) -> pb.ReadResource.Response:
        state = read_dynamic_value(request.current_state)
        seen = resources.of(request.type_name).read(state)
        block = self._schema.resources[request.type_name]
        found = None if seen is None else known(block, state, seen)
        return pb.ReadResource.Response(new_state=to_dynamic_value(found))

    @_told(pb.ApplyResourceChange.Response)
    def ApplyResourceChange(self, request: Any, context: Any) -> pb.ApplyResourceChange.Response:
        resource = resources.of(request.type_name)
        prior = read_dynamic_value(request.prior_state)
        state = read_dynamic_value(request.planned_state)
        if state is None:
            resource.delete(prior)
            return pb.ApplyResourceChange.Response(new_state=to_dynamic_value(None))
        wanted = {name: None if value is Unknown else value for name, value in state.items()}
        resource.write(wanted, new=prior is None)
        seen = resource.read(wanted)
        assert seen is not None, f"{request.type_name} is not there after it was made"
        block = self._schema.resources[request.type_name]
        return pb.ApplyResourceChange.Response(
            new_state=to_dynamic_value(known(block, state, seen))
        )

    @_told(pb.ReadDataSource.Response)
    def ReadDataSource(self, request: Any, context: Any) -> pb.ReadDataSource.Response:
        config = read_dynamic_value(request.config)
        seen = resources.data(request.type_name)
        block = self._schema.data_sources[request.type_name]
        return pb.ReadDataSource.Response(state=to_dynamic_value(known(block, config, seen)))

    def StopProvider(self, request: Any, context: Any) -> pb.StopProvider.Response:
        return pb.StopProvider.Response()
