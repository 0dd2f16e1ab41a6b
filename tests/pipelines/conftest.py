"""What the tests of pipelines share."""

import functools
import inspect
import types
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="session")
def _quick_stacks() -> Iterator[None]:
    """Gives KFP the names of its callers without their source.

    KFP asks for them at each setting of a task. Where thousands of modules are loaded, as in a process of
    tests, finding the source takes 15 s a pipeline.
    """
    from kfp.dsl import pipeline_task

    with pytest.MonkeyPatch.context() as patch:
        stack = functools.partial(inspect.stack, context=0)
        patch.setattr(pipeline_task, "inspect", types.SimpleNamespace(stack=stack))
        yield
