"""The command line, run as a user runs it."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path
from unittest import mock

# These run pipelines or servers, in processes of their own, or talk to a cluster, whose client reads
# KUBECONFIG when it is imported; the others are run in the process of the test.
_OF_THEIR_OWN = {
    "run", "reproduce", "pretrain", "audit", "lungs", "serve", "deploy", "promote", "rollback",
}  # fmt: skip


def cxrflow(*arguments: str, fails: bool = False, cwd: Path | None = None) -> str:
    """Returns what a command prints: on standard error where it is to fail, else on the other."""
    begins = "--help" not in arguments and _OF_THEIR_OWN.intersection(arguments[:2])
    code, output, errors = (_apart if begins or cwd else _here)(arguments, cwd)
    assert (code != 0) == fails, output + errors
    return errors if fails else output


def _apart(arguments: tuple[str, ...], cwd: Path | None) -> tuple[int, str, str]:
    command = [str(Path(sys.executable).parent / "cxrflow"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    return done.returncode, done.stdout, done.stderr


def run() -> None:
    """Runs the command in `sys.argv` as `pipelines.__main__` does, but for the signals."""
    from pipelines import cli

    try:
        cli.app(prog_name="cxrflow")
    except Exception as error:
        cli.fail(error)


def _here(arguments: tuple[str, ...], _: Path | None) -> tuple[int, str, str]:
    from pipelines.console import console

    output, errors = io.StringIO(), io.StringIO()
    code: int | str | None = 0
    with (
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
        mock.patch.object(console, "_file", output),  # which it was given for good when it was made
        mock.patch.object(sys, "argv", ["cxrflow", *arguments]),
    ):
        try:
            run()
        except SystemExit as end:
            code = end.code
    return int(code or 0), output.getvalue(), errors.getvalue()
