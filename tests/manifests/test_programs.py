"""Programs that are named by their modules, as in `python -m serving.server`, are there."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"""\bpython"?,? "?-m"?,? "?([\w.]+)""")


def named() -> list[str]:
    """Returns the modules that manifests, images and the Makefile run."""
    files = [
        ROOT / "Makefile",
        *(file for file in (ROOT / "manifests").rglob("*") if file.is_file()),
    ]
    texts = [
        file.read_text(encoding="utf-8") for file in files if file.suffix not in (".png", ".gz")
    ]
    return sorted({module for text in texts for module in NAMED.findall(text)} - {"venv", "pip"})


def test_they_are_found() -> None:
    assert {"serving.server", "pipelines", "bench.demo"} <= {*named()}


@pytest.mark.parametrize("module", named())
def test_a_module_that_is_run_does_something(module: str) -> None:
    found = find_spec(module)
    assert found
    if found.submodule_search_locations:
        found = find_spec(f"{module}.__main__")
    assert found
    assert found.origin
    assert 'if __name__ == "__main__":' in Path(found.origin).read_text(encoding="utf-8")
