"""The model server: KServe's protocols over HTTP and gRPC, and a page.

    python -m serving.server --model-dir DIRECTORY [--name NAME] [--host HOST] [--port PORT]
        [--grpc-port PORT]

It listens on loopback only, unless `--host` says otherwise. Its limits are in `serving.limits`.
"""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import grpc
import typer
import uvicorn
from google.protobuf.message import DecodeError
from kserve import ModelRepository
from kserve.errors import InvalidInput, ModelNotFound
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc
from kserve.protocol.grpc.interceptors import ExceptionToStatusInterceptor
from prometheus_client import REGISTRY

from core.errors import UserError
from core.locations import location
from serving import GRPC_PORT, NAME, PORT, ports
from serving.dataplane import DataPlane
from serving.feature_log import FeatureLog
from serving.guard import Guard, protocol
from serving.limits import FeatureLogSettings, Limits, RolloutSettings
from serving.model import Busy, ChestXrayModel
from serving.rest import application
from serving.rollout_metrics import RolloutMetrics
from serving.rpc import NotServed, Servicer


def main(
    model_dir: Annotated[Path, typer.Option()],
    name: Annotated[str, typer.Option()] = NAME,
    host: Annotated[str, typer.Option()] = ports.LOOPBACK,
    port: Annotated[int, typer.Option()] = PORT,
    grpc_port: Annotated[int, typer.Option()] = GRPC_PORT,
) -> None:
    """Serves a model and logs that it does; see `serve`."""

    def say() -> None:
        logging.getLogger("cxrflow.serving").info("serving %s on %s, port %d", name, host, port)

    serve(model_dir, name, host, port, grpc_port, say)


def serve(
    model_dir: Path, name: str, host: str, port: int, grpc_port: int, ready: Callable[[], None]
) -> None:
    """Serves a model until it is told to stop, then finishes the accepted requests.

    Args:
      model_dir: a version of the model store, or the directory of all versions of a model; then each new
        version is loaded beside the current one and replaces it.
      name: of the model at the endpoint.
      host: the name or address of this machine to listen on.
      port, grpc_port: to listen on.
      ready: called once the model is loaded and the server listens on both ports.

    Raises:
      UserError: a port is in use, there is no model in the directory, or it is damaged.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name_of_logger in ("kserve", "grpc._cython.cygrpc"):
        logging.getLogger(name_of_logger).addFilter(_no_refusal)
    # It logs each attempt with a traceback; the feature log already reports the failure in one line.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    limits, kept = Limits(), FeatureLogSettings()
    log = FeatureLog(location(kept.feature_log), kept.feature_share) if kept.feature_log else None
    model = ChestXrayModel(name, model_dir, limits, log)
    state = RolloutSettings().rollout
    if state:
        REGISTRY.register(RolloutMetrics(Path(state)))
    # Check both ports before loading the model, which takes long.
    with ports.bound(host, port, "--port") as listening:
        ports.bound(host, grpc_port, "--grpc-port").close()
        model.load()
        try:
            listening.listen()
        except OSError as error:  # two servers may bind the port, but only one may listen
            raise ports.refused(host, port, "--port", error) from error
        asyncio.run(_serve(model, limits, log, listening, host, grpc_port, ready))


async def _serve(
    model: ChestXrayModel,
    limits: Limits,
    log: FeatureLog | None,
    listening: socket.socket,
    host: str,
    grpc_port: int,
    ready: Callable[[], None],
) -> None:
    repository = ModelRepository()
    repository.update(model)
    dataplane = DataPlane(repository)
    rest = uvicorn.Server(
        uvicorn.Config(
            Guard(application(model, dataplane), limits),
            http=protocol(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=limits.grace_seconds,
        )
    )
    remote_calls = _grpc_server(dataplane, limits, host, grpc_port)
    await remote_calls.start()
    tasks = [asyncio.create_task(model.follow())]
    if log:
        tasks.append(asyncio.create_task(log.write()))

    def stop(*_: object) -> None:
        rest.should_exit = True

    # uvicorn handles these signals and raises them again once it has stopped.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    ready()
    await rest.serve(sockets=[listening])
    await remote_calls.stop(limits.grace_seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(
        *tasks, return_exceptions=True
    )  # this writes the last rows of the feature log


def _grpc_server(dataplane: DataPlane, limits: Limits, host: str, port: int) -> grpc.aio.Server:
    server = grpc.aio.server(
        interceptors=[ExceptionToStatusInterceptor()],
        maximum_concurrent_rpcs=limits.queue,
        options=[("grpc.max_receive_message_length", limits.body_bytes), ("grpc.so_reuseport", 0)],
    )
    grpc_predict_v2_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(dataplane), server)
    try:
        server.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except RuntimeError as error:
        raise UserError(f"serve: port {port} is in use; choose another with --grpc-port") from error
    return server


def _no_refusal(record: logging.LogRecord) -> bool:
    """Keeps rejected requests out of the log, which a client could otherwise fill."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, InvalidInput | ModelNotFound | Busy | NotServed | DecodeError)


def run() -> None:
    """Runs this module's command line; an error is printed as one line."""
    try:
        typer.run(main)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
