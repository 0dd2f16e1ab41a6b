"""The gRPC endpoints: KServe's V2, without the calls with which any client could unload the model."""

from typing import Any

from grpc import StatusCode
from grpc.aio import ServicerContext
from grpc_interceptor.exceptions import GrpcException
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.servicer import InferenceServicer

from serving.dataplane import DataPlane


class NotServed(GrpcException):
    """A call that this server does not support."""

    status_code = StatusCode.UNIMPLEMENTED
    details = "not supported: this server has one fixed model"


class Servicer(InferenceServicer):  # type: ignore[misc]
    """KServe's servicer, with support for versions."""

    def __init__(self, dataplane: DataPlane) -> None:
        super().__init__(dataplane, None)
        self._dataplane = dataplane

    async def ModelReady(  # noqa: N802
        self, request: Any, context: ServicerContext
    ) -> messages.ModelReadyResponse:
        """Returns whether a model, or a version of it, answers."""
        ready = await self._dataplane.version_ready(request.name, request.version)
        return messages.ModelReadyResponse(ready=ready)

    async def ModelMetadata(  # noqa: N802
        self, request: Any, context: ServicerContext
    ) -> messages.ModelMetadataResponse:
        """Returns a model's inputs and outputs."""
        known = await self._dataplane.model_metadata(request.name, request.version)
        return messages.ModelMetadataResponse(**known)

    async def RepositoryModelLoad(self, request: Any, context: ServicerContext) -> None:  # noqa: N802
        """Rejects the call.

        Raises:
          NotServed: always. An error that KServe's interceptor does not know would be logged.
        """
        raise NotServed

    RepositoryModelUnload = RepositoryModelLoad
