"""KServe's data plane, with what is true of this server: its versions, and the extensions that it has."""

from typing import Any

from kserve.errors import ModelNotFound
from kserve.protocol import dataplane


class NoSuchVersion(ModelNotFound):  # type: ignore[misc]
    """A request names another version than the one that is served."""

    def __init__(self, name: str, wanted: str, served: str) -> None:
        super().__init__(name)
        self.reason = f"version {wanted} of {name} is not served here; version {served} is"


class DataPlane(dataplane.DataPlane):  # type: ignore[misc]
    """Answers what the HTTP and the gRPC endpoints are asked about the server and its models."""

    def metadata(self) -> dict[str, Any]:
        """Returns `name`, `version` and `extensions` of the server, as V2 has them."""
        # KServe's names an extension by which clients could unload the model.
        return {**super().metadata(), "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str, version: str = "") -> dict[str, Any]:
        """Returns V2's metadata of a model.

        Args:
          model_name: of the model.
          version: that must be the one that is served; empty: whichever is.

        Raises:
          ModelNotFound: there is no such model, or another version is served.
        """
        known = await super().model_metadata(model_name)
        served = self._served(model_name, version)
        versions = [served] if served else []
        return {**known, "platform": "tensorflow_savedmodel", "versions": versions}

    async def version_ready(self, model_name: str, version: str) -> bool:
        """Returns whether a version answers; see `model_metadata`.

        Raises:
          ModelNotFound: there is no such model, or another version is served.
        """
        self._served(model_name, version)
        return bool(await self.model_ready(model_name))

    def _served(self, model_name: str, version: str) -> str:
        served = str(self.get_model_from_registry(model_name).about()["version"])
        if version and version != served:
            raise NoSuchVersion(model_name, version, served)
        return served
