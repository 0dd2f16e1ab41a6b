"""Prints to the terminal: rows, errors and the live line."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from core.progress import shown_live

# Bound to the real output, because `run` redirects sys.stdout.
console = Console(file=sys.stdout, soft_wrap=True)


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Prints a table of names and values."""
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(f"[bold]{escape(name):<{width}}[/]  {escape(value)}", highlight=False)


def print_error(message: str) -> None:
    """Prints an error as one line on standard error."""
    Console(stderr=True, soft_wrap=True).print(
        f"[bold red]error:[/] {escape(message)}", highlight=False
    )


def fitted(text: str, width: int) -> Text:
    """Returns a text, truncated to fit on a line of `width` columns beside a spinner."""
    line = Text(text)
    line.truncate(width - 2, overflow="ellipsis")
    return line


@contextlib.contextmanager
def live_line() -> Iterator[None]:
    """Shows the progress of steps that run in this process as one live line, if there is a terminal."""
    if not console.is_terminal:
        yield
        return
    errors = sys.stderr  # the status would show it, although `quiet` may have redirected it
    with console.status("") as status, contextlib.redirect_stderr(errors):

        def show(text: str) -> None:
            status.update(fitted(text, console.width))

        with shown_live(show):
            yield


def parts_of(text: str) -> list[str]:
    """Returns the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides what packages print when they are imported, including native libraries."""
    with Path(os.devnull).open("w") as nowhere, warnings.catch_warnings(), errors_to(nowhere):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def errors_to(file: TextIO) -> Iterator[None]:
    """Sends standard error to a file, including that of native libraries."""
    before = os.dup(2)
    sys.stderr.flush()
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(before, 2)
        os.close(before)
