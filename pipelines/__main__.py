"""The entry of the command `cxrflow`, which a signal ends cleanly even while it imports the commands."""

from core.imports import end_quickly, uncollected
from pipelines import stopping


def main() -> None:
    """Imports the commands and runs the command line: see `pipelines.cli.main`."""
    end_quickly()
    with stopping.cleanly():
        with uncollected():
            from pipelines import cli
        cli.main()


if __name__ == "__main__":
    main()
