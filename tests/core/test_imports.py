"""What is imported costs no garbage collection."""

import gc
import subprocess
import sys

import pytest

from core.imports import uncollected


def test_the_collector_pauses_and_never_looks_at_what_exists_afterwards() -> None:
    before = gc.get_freeze_count()
    with uncollected():
        assert not gc.isenabled()
        made = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(made)


def test_a_block_inside_another_does_not_end_its_pause() -> None:
    with uncollected():
        with uncollected():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_looks_again_after_an_import_that_failed() -> None:
    with pytest.raises(ModuleNotFoundError), uncollected():
        import nowhere  # noqa: F401
    assert gc.isenabled()


def test_tensorflow_is_imported_so() -> None:
    program = (
        "import gc, training.without_keras; print(gc.get_freeze_count() > 100_000, gc.isenabled(), "
        "gc.get_stats()[2]['collections'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True", "0"]


@pytest.mark.parametrize("ends", ["", "core.imports.end_quickly()"])
def test_what_exists_at_the_end_of_a_process_is_not_looked_at(ends: str) -> None:
    # The first to be registered is the last to be called. Who looks for garbage finds the cycle.
    program = f"""
import atexit, gc, core.imports
atexit.register(lambda: print(gc.collect() > 900))
{ends}
gc.disable()
for _ in range(999):
    cycle = []
    cycle.append(cycle)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == ("False\n" if ends else "True\n")
