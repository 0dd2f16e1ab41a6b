"""How a plain function becomes a KFP component: which image it runs in, and nothing else."""

import functools
from importlib.metadata import version

from kfp import dsl

_VERSION = version("cxrflow")


def _step(target: str) -> functools.partial:  # type: ignore[type-arg]
    # The images hold this package and KFP already, so nothing is installed when a step starts.
    return functools.partial(
        dsl.component, base_image=f"cxrflow-{target}:{_VERSION}", install_kfp_package=False
    )


data_step = _step("data")
training_step = _step("training")
serving_step = _step("serving")
