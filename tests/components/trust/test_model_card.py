"""The card of a model that was audited with external data, as it is published."""

from pathlib import Path

import numpy as np
import pytest

from components.data.phantoms import draw_with_lungs
from components.data.sources import listed
from components.release import deploy as release
from components.trust.audit import audit
from components.trust.gate import gate
from core.files import read_json
from core.labels import COVID


@pytest.fixture(scope="module")
def audited(
    model: Path,
    records: Path,
    examples: Path,
    lungs: Path,
    directories: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """An audit of a candidate, with external data of which one file is unreadable."""
    home = tmp_path_factory.mktemp("audited")
    random = np.random.default_rng(7)
    for folder, label in (("No_findings", "normal"), ("COVID-19", COVID)):
        (home / "clinic" / folder).mkdir(parents=True)
        for number in range(3):
            image, _ = draw_with_lungs(label, random)
            image.save(home / "clinic" / folder / f"{number}.png")
    (home / "clinic" / "No_findings" / "broken.png").write_bytes(b"no picture")
    external = listed.parse([f"clinic={home / 'clinic'}"])
    audit(model, records, examples, lungs, home / "audit", external=external)
    return home / "audit"


@pytest.fixture
def published(
    model: Path,
    evaluation: Path,
    audited: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The version that is deployed after such an audit."""
    monkeypatch.setattr(release.local, "check", lambda version: "it answers")
    gate([evaluation], {"default": 0.0}, tmp_path / "decision", audits=[audited])
    store = str(tmp_path / "store")
    return Path(release.deploy(model, evaluation, audited, tmp_path / "decision", store, "cxrflow"))


def test_a_candidate_that_was_audited_with_external_data_is_deployed_with_its_card(
    published: Path, audited: Path
) -> None:
    (row,) = read_json(audited / "audit.json")["external"]
    assert row["left_out"] == {"seen": 0, "unlabelled": 0, "unreadable": 1, "of other views": 0}
    card = (published / "model_card.md").read_text()
    (line,) = [line for line in card.splitlines() if line.startswith("| clinic |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:2] == ["clinic", "6"]
    abstained = f"{100 * row['abstained']['value']:.1f}\u00a0%"
    assert cells[3].startswith(abstained)
    assert cells[4] == "1 unreadable"
    assert "1 unreadable" in (published / "model_card.html").read_text()


def test_a_card_shows_counts_as_counts(published: Path) -> None:
    lines = (published / "model_card.md").read_text().splitlines()
    (leaks,) = [line for line in lines if "number of test images whose patient" in line]
    assert leaks.split("|")[2].strip() == "0"
