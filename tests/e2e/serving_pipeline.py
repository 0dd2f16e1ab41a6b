"""A pipeline whose one step starts a model server as `deploy` does, run as `cxrflow run` runs its own.

python serving_pipeline.py HOME OUTPUT VERSION …
"""

import sys
from pathlib import Path
from typing import Any

from kfp import dsl

from pipelines import local_run, stopping
from pipelines.console import console


@dsl.component(base_image="cxrflow-serving", install_kfp_package=False)
def start(version: str, home: str) -> str:
    from pathlib import Path

    from serving import local

    return local.serve(Path(version), Path(home)).url


def pipeline() -> Any:
    @dsl.pipeline(name="serving")
    def wired(versions: list[str], home: str) -> None:
        # As candidates are trained: from threads of KFP's, one after the other.
        with dsl.ParallelFor(versions, parallelism=1) as version:
            start(version=version, home=home).set_caching_options(False)

    return wired


if __name__ == "__main__":
    home, output, *versions = sys.argv[1:]
    with stopping.cleanly():
        arguments = {"versions": versions, "home": home}
        local_run.run(pipeline, arguments, Path(output), console, verbose=False)
