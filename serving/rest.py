"""The HTTP endpoints: KServe's V1 and V2, metrics, and the page."""

import functools
from pathlib import Path
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from kserve.errors import (
    InvalidInput,
    ModelNotFound,
    ModelNotReady,
    model_not_ready_handler,
)
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v1_endpoints import V1Endpoints
from kserve.protocol.rest.v2_datamodels import ModelReadyResponse
from kserve.protocol.rest.v2_endpoints import V2Endpoints
from pydantic.json_schema import models_json_schema
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from core.artifacts import AUDIT_PAGE, MODEL_CARD_PAGE
from serving.dataplane import DataPlane
from serving.model import Busy, ChestXrayModel
from serving.protocol import JSON_LENGTH, V1Request, V2Request, images_of_v1, v2_request

PAGE = Path(__file__).with_name("page")

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": description}
    for status, description in (
        (400, "the request, or an image in it, is invalid"),
        (404, "there is no such model, or the version is not being served"),
        (408, "the body did not arrive in time"),
        (413, "the body is too large"),
        (415, "the body's compression is not gzip or deflate"),
        (503, "busy, or not ready; see Retry-After"),
    )
}


class _NameConvertor(StringConvertor):
    """A model's name in a path, without a colon, so that `cxrflow:predict` is not taken for one."""

    regex = "[^/:]+"


register_url_convertor("name", _NameConvertor())


def application(model: ChestXrayModel, dataplane: DataPlane) -> FastAPI:
    """Returns the application of a model that is loaded and registered in a data plane."""
    app = FastAPI(title="cxrflow", docs_url=None, redoc_url=None)
    v1, v2 = V1Endpoints(dataplane), V2Endpoints(dataplane)

    # Not KServe's own endpoints: they return a request's headers with an explanation, treat every bytes
    # tensor as text, and let any client unload the model.
    @app.post("/v1/models/{model_name}:predict", **_takes(V1Request))
    async def predict(model_name: str, request: Request) -> Response:
        images = images_of_v1(await request.body())
        answer, _ = await dataplane.infer(model_name, images)
        return _json(answer)

    @app.post("/v1/models/{model_name}:explain", **_takes(V1Request))
    async def explain(model_name: str, request: Request) -> Response:
        images = images_of_v1(await request.body())
        answer, _ = await dataplane.explain(model_name, images)
        return _json(answer)

    @app.post("/v2/models/{model_name}/infer", **_takes(V2Request))
    async def infer(model_name: str, request: Request) -> Response:
        return await infer_version(model_name, "", request)

    @app.post("/v2/models/{model_name}/versions/{version}/infer", **_takes(V2Request))
    async def infer_version(model_name: str, version: str, request: Request) -> Response:
        json_length = request.headers.get(JSON_LENGTH)
        wanted = v2_request(await request.body(), json_length, model_name, version)
        answer, _ = await dataplane.infer(model_name, wanted)
        content, length = answer.to_rest()
        if length is None:
            return _json(content)
        return Response(
            content, headers={JSON_LENGTH: str(length)}, media_type="application/octet-stream"
        )

    @app.get("/v2/models/{model_name}", responses=_ERRORS)
    async def metadata(model_name: str) -> dict[str, Any]:
        return await version_metadata(model_name, "")

    @app.get("/v2/models/{model_name}/versions/{version}", responses=_ERRORS)
    async def version_metadata(model_name: str, version: str) -> dict[str, Any]:
        known = await dataplane.model_metadata(model_name, version)
        for tensor in known["outputs"]:
            if tensor["name"] == "probabilities":
                tensor["parameters"] = {"classes": model.about()["classes"]}
        return known

    app.get("/v1/models")(v1.models)
    app.get("/v1/models/{model_name:name}", responses=_ERRORS)(v1.model_ready)
    app.get("/v2")(v2.metadata)
    app.get("/v2/health/live")(v2.live)
    app.get("/v2/health/ready")(v2.ready)
    app.get("/v2/models")(v2.models)

    @app.get("/v2/models/{model_name}/ready", responses=_ERRORS)
    async def ready(model_name: str) -> ModelReadyResponse:
        return await version_ready(model_name, "")

    @app.get("/v2/models/{model_name}/versions/{version}/ready", responses=_ERRORS)
    async def version_ready(model_name: str, version: str) -> ModelReadyResponse:
        if not await dataplane.version_ready(model_name, version):
            raise ModelNotReady(model_name)
        return ModelReadyResponse(name=model_name, ready=True)

    app.get("/metrics", include_in_schema=False)(metrics_handler)

    @app.get("/model")
    async def about() -> dict[str, Any]:
        """Returns what is known about the version being served."""
        return model.about()

    @app.get("/model/card", include_in_schema=False)
    async def card() -> Response:
        return _document(model.document(MODEL_CARD_PAGE))

    @app.get("/model/audit", include_in_schema=False)
    async def audit() -> Response:
        return _document(model.document(AUDIT_PAGE))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=PAGE))
    app.openapi = functools.partial(_describe, app)  # type: ignore[method-assign]

    app.add_exception_handler(InvalidInput, _invalid)
    app.add_exception_handler(ModelNotFound, _not_found)
    app.add_exception_handler(ModelNotReady, model_not_ready_handler)
    app.add_exception_handler(Busy, _busy)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(Exception, _failed)
    return app


_, _SCHEMAS = models_json_schema(
    [(V1Request, "validation"), (V2Request, "validation")],
    ref_template="#/components/schemas/{model}",
)


def _describe(app: FastAPI) -> dict[str, Any]:
    """Returns the application's OpenAPI, with the request bodies that it parses itself."""
    described = FastAPI.openapi(app)
    described["components"]["schemas"].update(_SCHEMAS["$defs"])
    return described


def _takes(body: type[V1Request] | type[V2Request]) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{body.__name__}"}
    return {
        "responses": _ERRORS,
        "openapi_extra": {
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}
        },
    }


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), status, headers, "application/json")


def _document(file: Path) -> Response:
    if not file.is_file():
        return _json({"error": "this version was published without this page"}, 404)
    # The pipeline's pages are single files with inline styles and without scripts.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
    return FileResponse(file, headers={"Content-Security-Policy": policy}, media_type="text/html")


async def _invalid(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 400)


async def _not_found(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 404)


async def _busy(_: Request, error: Exception) -> Response:
    return _json({"error": Busy.details}, 503, {"Retry-After": "1"})


async def _no_route(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The guard also answers HEAD wherever there is GET.
        allowed = headers.get("Allow", "")
        allowed = "GET, HEAD" if "GET" in allowed else allowed
        return _json({"error": f"this path supports {allowed}"}, 405, {"Allow": allowed})
    if error.status_code == 404:
        return _json({"error": "unknown path; /openapi.json lists all paths"}, 404)
    return _json({"error": error.detail}, error.status_code, headers)


async def _failed(_: Request, error: Exception) -> Response:
    return _json({"error": "internal error; see the server's log"}, 500)
