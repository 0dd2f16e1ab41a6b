"""`make demo`, with commands that do nothing. CI runs the real one; test_stopping.py interrupts it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import demo
from serving import local


@pytest.fixture
def make_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """Begins a demo in `tmp_path / "demo"`; returns its commands, and `stop` where it stops a server."""
    done: list[str] = []

    def begin(*options: str, passes: bool = True, fails: str = "") -> list[str]:
        def cxrflow(command: str, *_: str) -> None:
            done.append(command)
            if command == fails:
                sys.exit(1)

        done.clear()
        monkeypatch.setattr(demo, "cxrflow", cxrflow)
        monkeypatch.setattr(local, "running", lambda _: passes)
        monkeypatch.setattr(local, "stop", lambda _: done.append("stop"))
        monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path / "demo"), *options])
        demo.main()
        return done

    begin.done = done
    return begin


def test_it_keeps_the_server_only_if_asked(make_demo) -> None:
    assert make_demo() == ["sample-data", "run", "predict", "stop"]
    assert make_demo("--keep") == ["sample-data", "run", "predict"]


@pytest.mark.parametrize("command", ["run", "predict"])
def test_after_an_error_it_never_keeps_it(make_demo, command: str) -> None:
    with pytest.raises(SystemExit, match="1"):
        make_demo("--keep", fails=command)
    assert make_demo.done[-2:] == [command, "stop"]


def test_where_nothing_is_served_it_says_so_and_asks_nobody(make_demo) -> None:
    with pytest.raises(SystemExit, match="nothing is served"):
        make_demo(passes=False)
    assert "predict" not in make_demo.done


def test_it_draws_once(make_demo, tmp_path: Path) -> None:
    (tmp_path / "demo" / "data").mkdir(parents=True)
    assert make_demo() == ["run", "predict", "stop"]
