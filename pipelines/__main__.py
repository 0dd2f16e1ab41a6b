"""The entry of the command `cxrflow`, which a signal ends cleanly even while it imports the commands."""

import atexit
import gc

from core.imports import uncollected
from pipelines import stopping


def main() -> None:
    """Imports the commands and runs the command line: see `pipelines.cli.main`."""
    # At its end, Python would look for garbage in all that was imported.
    atexit.register(gc.freeze)
    with stopping.cleanly():
        with uncollected():
            from pipelines import cli
        cli.main()


if __name__ == "__main__":
    main()
