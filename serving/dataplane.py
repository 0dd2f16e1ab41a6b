"""KServe's data plane, with the versions and protocol extensions of this server."""

from typing import Any

from kserve.errors import ModelNotFound
from kserve.protocol import dataplane


class NoSuchVersion(ModelNotFound):  # type: ignore[misc]
    """The request names a version that is not being served."""

    def __init__(self, name: str, wanted: str, served: str) -> None:
        super().__init__(name)
        self.reason = f"version {wanted} of {name} is not being served; version {served} is"


class DataPlane(dataplane.DataPlane):  # type: ignore[misc]
    """Answers requests of the HTTP and gRPC endpoints about the server and its models."""

    def metadata(self) -> dict[str, Any]:
        """Returns `name`, `version` and `extensions` of the server, as V2 has them."""
        # KServe's own list has an extension with which clients could unload the model.
        return {**super().metadata(), "extensions": ["binary_tensor_data"]}

    async def model_metadata(self, model_name: str, version: str = "") -> dict[str, Any]:
        """Returns V2's metadata of a model.

        Args:
          model_name: of the model.
          version: must be the one being served; empty for any.

        Raises:
          ModelNotFound: there is no such model, or the version is not being served.
        """
        known = await super().model_metadata(model_name)
        served = self._served(model_name, version)
        versions = [served] if served else []
        return {**known, "platform": "tensorflow_savedmodel", "versions": versions}

    async def version_ready(self, model_name: str, version: str) -> bool:
        """Returns whether a version answers; see `model_metadata`.

        Raises:
          ModelNotFound: there is no such model, or the version is not being served.
        """
        self._served(model_name, version)
        return bool(await self.model_ready(model_name))

    def _served(self, model_name: str, version: str) -> str:
        served = str(self.get_model_from_registry(model_name).about()["version"])
        if version and version != served:
            raise NoSuchVersion(model_name, version, served)
        return served
