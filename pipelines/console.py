"""What the commands print with."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from core.progress import shown_live

# Bound to the real output, because `run` lends sys.stdout to the pipeline.
console = Console(file=sys.stdout, soft_wrap=True)


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Prints names and values, one below the other."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"[bold]{escape(name):<{width}}[/]  {escape(value)}", highlight=False)


def print_error(message: str) -> None:
    """Prints an error, in one line, to the standard error."""
    Console(stderr=True, soft_wrap=True).print(
        f"[bold red]error:[/] {escape(message)}", highlight=False
    )


def fitted(text: str, width: int) -> Text:
    """Returns the beginning of a text, as much as a line of `width` columns holds beside a spinner."""
    line = Text(text)
    line.truncate(width - 2, overflow="ellipsis")
    return line


@contextlib.contextmanager
def live_line() -> Iterator[None]:
    """Shows how far steps are that this process runs itself, in a terminal as one live line."""
    if not console.is_terminal:
        yield
        return
    errors = sys.stderr  # whoever is quiet has sent it elsewhere; the status would show it
    with console.status("") as status, contextlib.redirect_stderr(errors):

        def show(text: str) -> None:
            status.update(fitted(text, console.width))

        with shown_live(show):
            yield


def parts_of(text: str) -> list[str]:
    """Returns the parts of a list that is written with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what packages print on import, below Python, too, from those who did not ask for it."""
    before = os.dup(2)
    with Path(os.devnull).open("wb") as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
