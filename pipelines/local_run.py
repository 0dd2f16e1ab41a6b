"""Runs pipelines on this machine with `kfp.local`, each step in its own process."""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console

from core.artifacts import AUDIT, LUNGS_PAGE, METRICS, REPORT, VALIDATION_PAGE
from core.errors import UserError
from core.files import read_json, write_aside
from core.progress import LIVE, LIVE_PREFIX, PREFIX
from pipelines import preloaded, stopping
from pipelines.console import errors_to, fitted

CONTINUES = "run the same command to continue"

# The output of kfp.local, without colours.
_COLOUR = re.compile(r"\x1b\[\d+m")
_BEGINS = re.compile(r"Executing task '(.+?)(?:-step)?'")
_FAILS = re.compile(r"Task '.+?' finished with status FAILURE")
_USER_ERROR = f"{UserError.__module__}.{UserError.__qualname__}: "
_EXCEPTION = re.compile(r"^[\w.]+(Error|Exception|Interrupt)\b.*")


@dataclass(frozen=True, kw_only=True)
class LocalRun:
    """A run that has ended: the `directory` with its artifacts, and its `log`."""

    directory: Path
    log: Path


def run(
    pipeline: Callable[[], Any],
    arguments: Mapping[str, Any],
    output: Path,
    console: Console,
    *,
    verbose: bool,
) -> LocalRun:
    """Runs a pipeline and waits for its end.

    Args:
      pipeline: returns the pipeline.
      arguments: of the pipeline; directories as absolute paths.
      output: gets `runs/<time>/` with the artifacts and the log of this run.
      console: shows the steps and their messages.
      verbose: whether it also shows everything else that steps print.

    Raises:
      UserError: a step failed; the message says why, and where its output is.
    """
    directory = _new_directory(output / "runs")
    log = directory / "run.log"
    stopping.say_when_stopped(
        f"interrupted; {CONTINUES}, trainings from their last complete epoch (the whole output is in {log})"
    )
    # Steps are started as `python3`, which must be the interpreter with the packages.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w", encoding="utf-8") as file, console.status("starting") as status:
        listener = _Listener(file, console, status, verbose)
        try:
            with (
                _temporary_files() as scratch,
                errors_to(file),
                contextlib.redirect_stderr(file),  # which the status would show on the console
                _live_lines(wanted=console.is_terminal),
                preloaded.available(scratch, file) as step_begins,
                contextlib.redirect_stdout(listener),
            ):
                listener.step_begins = step_begins
                _run(pipeline, arguments, directory)
        except Exception as error:
            raise UserError(f"{listener.reason or error} (the whole output is in {log})") from error
    return LocalRun(directory=directory, log=log)


def _run(pipeline: Callable[[], Any], arguments: Mapping[str, Any], directory: Path) -> None:
    # Imported here, so that what the packages print on import goes to the log.
    from kfp import local

    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner, pipeline_root=str(directory), raise_on_error=True)
    made = pipeline()
    for executor in made.pipeline_spec.deployment_spec["executors"].values():
        container = executor["container"]
        container["command"] = preloaded.command(container["command"])
    made(**arguments)


@contextlib.contextmanager
def _temporary_files() -> Iterator[Path]:
    """Yields a directory that gets the temporary files of KFP and Beam, and removes it."""
    before = tempfile.tempdir, os.environ.pop("TMPDIR", None)
    with tempfile.TemporaryDirectory(prefix="cxrflow-", dir=before[1]) as scratch:
        tempfile.tempdir = os.environ["TMPDIR"] = scratch
        try:
            yield Path(scratch)
        finally:
            tempfile.tempdir = before[0]
            del os.environ["TMPDIR"]
            if before[1]:
                os.environ["TMPDIR"] = before[1]


@contextlib.contextmanager
def _live_lines(*, wanted: bool) -> Iterator[None]:
    """Asks steps to show progress as a live line, instead of in the log."""
    if wanted:
        os.environ[LIVE] = "1"
    try:
        yield
    finally:
        os.environ.pop(LIVE, None)


class _Listener(io.TextIOBase):
    """Receives the run's output: writes all of it to the log, and messages for people to the console.

    Attributes:
      reason: why the run failed; empty if it has not.
      step_begins: called for each step, with whether it computes.
    """

    def __init__(self, log: TextIO, console: Console, status: Any, verbose: bool) -> None:
        self._log, self._console, self._status, self._verbose = log, console, status, verbose
        self._rest = self._name = self._last_error = ""
        self._failed = False
        self._began = time.monotonic()
        self.reason = ""
        self.step_begins: Callable[[bool], None] = lambda computes: None

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._hear(_COLOUR.sub("", line))
        return len(text)

    def _hear(self, line: str) -> None:
        self._log.write(line + "\n")
        self._log.flush()
        begins = _BEGINS.search(line)
        said = line.strip()
        if begins:
            if self._failed:
                # The other candidates are still trained, which may take hours.
                self._say(f"failed: {self.reason}")
            self._failed, self._last_error = False, ""
            minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
            name = begins[1].replace("-", " ")
            self._console.print(f"[dim]{minutes}:{seconds:02d}[/] [bold]{name}[/]")
            self._name = name
            self._status.update(name)
            self.step_begins(_computes(begins[1]))
        elif _FAILS.search(line):
            self._failed = True
            self.reason = (
                self._last_error or f"{self._name}: it ended without a message; was it killed?"
            )
        elif said.startswith(LIVE_PREFIX):
            live = said.removeprefix(LIVE_PREFIX)
            text = f"{self._name}:{live}" if live else self._name
            self._status.update(fitted(text, self._console.width))
        elif said.startswith(PREFIX):
            self._say(said.removeprefix(PREFIX))
        elif self._verbose:
            self._say(line)
        if said.startswith(_USER_ERROR):
            self._last_error = said.removeprefix(_USER_ERROR)
        elif _EXCEPTION.match(said):
            self._last_error = said

    def _say(self, text: str) -> None:
        self._console.print(f"     {text}", markup=False, highlight=False)


def _computes(name: str) -> bool:
    from components.steps import NEEDS  # brings KFP, which the run has imported by now

    needs = NEEDS.get(f"{name}-step")
    return bool(needs and needs.size != "light")


def _new_directory(runs: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(100):
        directory = runs / (f"{stamp}-{attempt}" if attempt else stamp)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            return directory
    raise UserError(f"run: cannot make a new directory in {runs}")


def decision(directory: Path) -> dict[str, Any] | None:
    """Returns the decision of the main job's gate; None if the gate did not run.

    Args:
      directory: of the run.

    Returns:
      see `components.trust.gate.decide`.
    """
    written = next(directory.glob("**/gate-step/decision"), None)
    return read_json(written) if written else None


def collect_pages(directory: Path, target: Path) -> list[Path]:
    """Copies the pages of the main job, which KFP stores without an ending, so that a browser opens them.

    Args:
      directory: of the run.
      target: the directory to write; it replaces that of the run before.

    Returns:
      the pages, the report first; only the validation page if nothing was trained, and none if nothing was
      new.
    """
    pages = dict(zip([REPORT], directory.glob("**/report-step/page"), strict=False))
    for page in sorted(directory.glob("**/evaluate-step/page")):
        recipe = read_json(page.parent / "evaluation" / METRICS)["recipe"]
        pages[f"evaluation-{recipe}.html"] = page
    for page in sorted(directory.glob("**/audit-step/page")):
        recipe = read_json(page.parent / "audit" / AUDIT)["recipe"]
        pages[f"audit-{recipe}.html"] = page
    pages |= zip([LUNGS_PAGE], directory.glob("**/find-lungs-step/page"), strict=False)
    pages |= zip([VALIDATION_PAGE], directory.glob("**/validate-step/page"), strict=False)
    if not pages:
        return []
    with write_aside(target) as aside:
        aside.mkdir()
        for name, page in pages.items():
            shutil.copyfile(page, aside / name)
    return [target / name for name in pages]
