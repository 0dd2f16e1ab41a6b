"""Step `deploy`: puts the winner into the model store and, on a laptop, serves it."""

from pathlib import Path

from kfp import dsl

from components.progress import logger
from components.step import serving_step
from serving import local, store
from serving.version import DECISION
from training import export


def deploy(model: Path, decision: Path, models: Path, name: str, server: Path | None) -> Path:
    """Publishes a model and, where asked to, starts a server of it in place of the one before.

    Args:
      model: the output of `train`.
      decision: the output of `gate`, kept beside the model: why it was deployed.
      models: the model store.
      name: of the model there.
      server: where a local server keeps its state and log (see `serving.local`), or None for none.
        One that runs goes on and takes the new version in.

    Returns:
      the published version's directory.

    Raises:
      UserError: the server does not start or refuses the version, which is published all the same.
    """
    version = store.publish(
        {
            ".": model / export.SAVED_MODEL,
            export.CARD: model / export.CARD,
            DECISION: decision,
        },
        models,
        name,
    )
    logger.info("published version %s of %s: %s", version.name, name, version)
    if server:
        logger.info("ready at %s", local.serve(version, server).url)
    return version


@serving_step
def deploy_step(
    model: dsl.Input[dsl.Model],
    decision: dsl.Input[dsl.Artifact],
    store: str,
    name: str,
    server: str,
) -> str:
    """Publishes the winner into the model store and, locally, serves it. See `deploy`."""
    from pathlib import Path

    from components.deploy import deploy

    home = Path(server) if server else None
    return str(deploy(Path(model.path), Path(decision.path), Path(store), name, home))
