"""What `cxrflow audit` audits a version on."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.data.ingest import ingest
from pipelines import auditing


def test_images_are_split_as_in_the_archive_and_of_the_views_that_were_trained_on(
    version: Path,
    covid_directory: Path,
    kermany_directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive = tmp_path / "archive"
    # A seed of its own splits otherwise than that of the version.
    ingest(covid_directory, kermany_directory, tmp_path / "run", archive=archive, seed=5)
    asked: dict[str, Any] = {}
    for name in ("write_records", "find_lungs"):
        monkeypatch.setattr(auditing, name, lambda *_, **__: {})
    monkeypatch.setattr(auditing, "measure", lambda *_, **given: asked.update(given) or {})
    data = auditing.Data(
        covid_directory=str(covid_directory),
        kermany_directory=str(kermany_directory),
        views=["PA", "AP"],
        sources=[],
    )
    found = []
    for place in (archive, tmp_path / "none"):
        auditing.audit(str(version), data, [], tmp_path / "audit", tmp_path / "kept", place)
        examples = pd.read_parquet(tmp_path / "audit" / "examples" / "examples.parquet")
        found.append(examples.set_index("id")["split"].to_dict())
    run = pd.read_parquet(tmp_path / "run" / "examples.parquet").set_index("id")["split"]
    assert found[0] == {identity: run[identity] for identity in found[0]}
    assert found[0] != found[1]
    assert asked["views"] == ["PA", "AP"]
