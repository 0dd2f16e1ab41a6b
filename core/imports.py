"""Spares the garbage collector what imports create.

Importing TensorFlow creates hundreds of thousands of objects, none of which is garbage. Python's collector
looks at all of them several times during the import, and again when the process ends.
"""

import atexit
import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Pauses the collector. What exists at the end of the block is never searched."""
    was_enabled = gc.isenabled()  # if not, a block around this one keeps its pause
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()


def end_quickly() -> None:
    """Lets this process end without a last search for garbage.

    So objects in a cycle are not finalized then: a suspended generator in one does not run its `finally`.
    """
    atexit.register(gc.freeze)
