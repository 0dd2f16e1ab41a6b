"""How a plain function becomes a KFP component: which image it runs in, and nothing else."""

import functools
import os
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

from kfp import dsl

_VERSION = version("cxrflow")


def _step(target: str) -> Callable[[Callable[..., Any]], Any]:
    if os.environ.get("_KFP_RUNTIME") == "true":
        # Inside of a running step KFP has no `component`; its wrapper is then of no use anyway.
        return lambda function: function
    # The images hold this package and KFP already, so nothing is installed when a step starts.
    return functools.partial(
        dsl.component, base_image=f"cxrflow-{target}:{_VERSION}", install_kfp_package=False
    )


data_step = _step("data")
training_step = _step("training")
serving_step = _step("serving")
