"""Server limits that keep one client from exhausting it."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class FeatureLogSettings(BaseSettings):
    """Settings of the feature log; see `serving.feature_log`.

    Attributes:
      feature_log: a directory, or a place at `gs://` or `s3://`; empty for no log.
      feature_share: the share of answered images to log, in 0..1.
    """

    model_config = SettingsConfigDict(env_prefix="CXRFLOW_", frozen=True)

    feature_log: str = ""
    feature_share: float = Field(default=0.1, ge=0, le=1)


class RolloutSettings(BaseSettings):
    """Where the state of a rollout is mounted; see `serving.rollout_metrics`.

    Attributes:
      rollout: a directory; empty if there is none.
    """

    model_config = SettingsConfigDict(env_prefix="CXRFLOW_", frozen=True)

    rollout: str = ""


class Limits(BaseSettings):
    """Limits of the server, each set by an environment variable, e.g. `CXRFLOW_BODY_MB=64`.

    Attributes:
      body_mb: size of one request, in MB.
      bodies_mb: size of all requests being read or answered, in MB; further ones are rejected.
      pixels: of one image.
      instances: images in one request.
      queue: images waiting or being processed; further ones are rejected.
      connections: concurrent ones.
      header_seconds: time to send a request's header.
      body_seconds: time to send a request's body.
      answer_seconds: time until a request times out.
      grace_seconds: time to finish accepted requests when the server is told to stop.
    """

    model_config = SettingsConfigDict(env_prefix="CXRFLOW_", frozen=True)

    body_mb: float = Field(default=32, gt=0)
    bodies_mb: float = Field(default=256, gt=0)
    pixels: int = Field(default=40_000_000, gt=0)
    instances: int = Field(default=64, gt=0)
    queue: int = Field(default=128, gt=0)
    connections: int = Field(default=512, gt=0)
    header_seconds: float = Field(default=10, gt=0)
    body_seconds: float = Field(default=30, gt=0)
    answer_seconds: float = Field(default=60, gt=0)
    grace_seconds: int = Field(default=30, gt=0)

    @property
    def body_bytes(self) -> int:
        """Returns the largest request's size in bytes."""
        return int(self.body_mb * 1e6)
