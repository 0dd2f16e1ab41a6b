import os
from pathlib import Path

import pytest

from components.data import phantoms


def drawn(directory: Path, seed: int) -> dict[str, bytes]:
    phantoms.write(directory, patients=10, seed=seed)
    files = [file for file in directory.rglob("*") if file.is_file()]
    return {file.relative_to(directory).as_posix(): file.read_bytes() for file in files}


def test_the_same_seed_draws_the_same_on_any_number_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    pool = phantoms.ThreadPoolExecutor
    monkeypatch.setattr(
        phantoms, "ThreadPoolExecutor", lambda threads: started.append(threads) or pool(threads)
    )
    results = []
    for cores in (1, 2, 3):
        monkeypatch.setattr(os, "cpu_count", lambda cores=cores: cores)
        results.append(drawn(tmp_path / str(cores), seed=1))
    assert started == [1, 2, 3]
    assert results[0] == results[1] == results[2]
    other = drawn(tmp_path / "other", seed=2)
    radiographs = [name for name in other if name.endswith(".jpeg")]
    assert all(other[name] != results[0][name] for name in radiographs)


def test_no_two_patients_have_the_same_picture(phantom_sources: Path) -> None:
    contents = [file.read_bytes() for file in phantom_sources.rglob("*.jpeg")]
    assert len(set(contents)) == len(contents) > 14
