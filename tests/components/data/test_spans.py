import copy
import csv
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data import span_tables, spans, splits
from components.data.ingest import ingest
from components.data.write_records import write_records
from core import locations
from core.divisions import TEST, TRAIN
from core.errors import UserError


@pytest.fixture
def covid(covid_directory: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(covid_directory, tmp_path / "covid"))


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def rows_of(covid: Path) -> list[dict[str, str]]:
    with (covid / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(covid: Path, rows: list[dict[str, str]]) -> None:
    with (covid / "metadata.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def state(archive: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(archive)): file.read_bytes()
        for file in archive.rglob("*")
        if file.is_file()
    }


def table(output: Path) -> pd.DataFrame:
    return pd.read_parquet(output / "examples.parquet").set_index("id")


@pytest.fixture(scope="module")
def grown_once(
    covid_directory: Path, kermany_directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    home = tmp_path_factory.mktemp("grown")
    covid, archive = home / "covid", home / "archive"
    shutil.copytree(covid_directory, covid)
    rows = rows_of(covid)
    write(covid, rows[:-8])
    first = ingest(covid, kermany_directory, home / "first", archive=archive)
    write(covid, rows)
    second = ingest(covid, kermany_directory, home / "second", archive=archive)
    return home, {"first": first, "second": second, "rows": rows}


@pytest.fixture
def grown(grown_once: tuple[Path, dict[str, Any]], covid: Path, tmp_path: Path) -> dict[str, Any]:
    """A first span of all but the last 8 rows, and a second of all."""
    home, told = grown_once
    shutil.copytree(home, tmp_path, dirs_exist_ok=True)
    return copy.deepcopy(told)


def test_what_has_not_changed_is_not_opened_and_makes_no_span(
    covid: Path, kermany_directory: Path, archive: Path, tmp_path: Path
) -> None:
    first = ingest(covid, kermany_directory, tmp_path / "first", archive=archive)
    before = state(archive)
    second = ingest(covid, kermany_directory, tmp_path / "second", archive=archive)
    assert first["span"]["opened"] > 0
    assert second["span"] == {**first["span"], "opened": 0}
    assert state(archive) == before
    for name in ("examples.parquet", "excluded.parquet"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_first_span_is_what_a_whole_ingest_finds(
    covid: Path, kermany_directory: Path, archive: Path, examples: Path, tmp_path: Path
) -> None:
    ingest(covid, kermany_directory, tmp_path / "first", archive=archive)
    pd.testing.assert_frame_equal(table(tmp_path / "first"), table(examples))


def test_only_new_images_are_opened_and_the_others_stay_where_they_were(
    grown: dict[str, Any], tmp_path: Path
) -> None:
    first, second = table(tmp_path / "first"), table(tmp_path / "second")
    new = second.index.difference(first.index)
    span = grown["second"]["span"]
    assert (span["number"], span["added"], span["changed"], span["withdrawn"]) == (
        2,
        len(new),
        0,
        0,
    )
    assert len(new) <= span["opened"] <= 8
    assert (second.loc[first.index, "split"] == first["split"]).all()
    assert (second.loc[new, "span"] == 2).all()
    assert (second.loc[first.index, "span"] == 1).all()
    assert grown["second"]["leakage"]["ours"] == 0
    whole = {"covid": 0, **span["added_by_label"]}
    assert whole["covid"] == (second.loc[new, "label"] == "covid").sum()


def test_an_archive_can_be_read_without_a_new_span(
    grown: dict[str, Any], covid: Path, kermany_directory: Path, archive: Path, tmp_path: Path
) -> None:
    """As an audit does: images stay in their splits, a new one gets one, and the archive stays as it is."""
    last, before = table(tmp_path / "second"), state(archive)
    write(covid, grown["rows"][:-1])
    read = ingest(covid, kermany_directory, tmp_path / "read", archive=archive, adds_span=False)
    assert read["span"] is None
    assert state(archive) == before
    now = table(tmp_path / "read")
    assert (now["split"] == last.loc[now.index, "split"]).all()


def test_labels_are_as_the_sources_have_them_now_and_a_test_image_stays_one(
    grown: dict[str, Any], covid: Path, kermany_directory: Path, archive: Path, tmp_path: Path
) -> None:
    before = table(tmp_path / "second")
    of_test = before[(before["split"] == TEST) & (before["source"] == "covid-chestxray")].index[0]
    name = of_test.rpartition("/")[2]
    relabelled = before[(before["label"] == "covid") & (before.index != of_test)].index[0]
    rows = grown["rows"]
    without = [dict(row) for row in rows if row["filename"] != name]
    for row in without:
        if relabelled.endswith(row["filename"]):
            row["finding"] = "SARS"
    write(covid, without)
    third = ingest(covid, kermany_directory, tmp_path / "third", archive=archive)
    after = table(tmp_path / "third")
    assert of_test not in after.index
    assert after.loc[relabelled, "label"] == "viral"
    assert after.loc[relabelled, "split"] == before.loc[relabelled, "split"]
    span = third["span"]
    assert (span["number"], span["changed"], span["withdrawn"], span["opened"]) == (3, 1, 1, 0)
    write(covid, rows)
    fourth = ingest(covid, kermany_directory, tmp_path / "fourth", archive=archive)
    assert fourth["span"]["opened"] == 0
    assert table(tmp_path / "fourth").loc[of_test, "split"] == TEST


def test_a_file_with_other_bytes_is_read_again(
    grown: dict[str, Any], covid: Path, kermany_directory: Path, archive: Path, tmp_path: Path
) -> None:
    before = table(tmp_path / "second")
    identity = before.index[(before["source"] == "covid-chestxray") & (before["mode"] == "L")][0]
    file = covid / before.loc[identity, "path"]
    file.write_bytes(file.read_bytes() + b"\0")  # decoders do not mind
    third = ingest(covid, kermany_directory, tmp_path / "third", archive=archive)
    after = table(tmp_path / "third")
    assert third["span"]["opened"] == third["span"]["changed"] == 1
    assert after.loc[identity, "sha256"] != before.loc[identity, "sha256"]
    assert (after.loc[identity, "span"], after.loc[identity, "split"]) == (
        3,
        before.loc[identity, "split"],
    )


def test_killed_anywhere_and_run_again_it_ends_the_same(
    grown: dict[str, Any],
    covid: Path,
    kermany_directory: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = state(archive)
    writes = len(spans.newest(archive).tables) + 1  # type: ignore[union-attr]
    for fatal in range(writes):
        again = tmp_path / f"again-{fatal}"
        calls = []

        def dying(file: Path, content: bytes, fatal: int = fatal, calls: list = calls) -> None:
            if len(calls) == fatal:
                raise KeyboardInterrupt
            calls.append(file)
            locations.create(file, content)

        write(covid, grown["rows"][:-8])
        ingest(covid, kermany_directory, tmp_path / "first", archive=again)
        write(covid, grown["rows"])
        with monkeypatch.context() as patch:
            patch.setattr(span_tables, "create", dying)
            with pytest.raises(KeyboardInterrupt):
                ingest(covid, kermany_directory, tmp_path / "second", archive=again)
        assert spans.newest(again).number == 1  # type: ignore[union-attr]
        ingest(covid, kermany_directory, tmp_path / "second", archive=again)
        found = {name: content for name, content in state(again).items() if "spans/" not in name}
        assert found == {name: content for name, content in wanted.items() if "spans/" not in name}
        assert spans.newest(again).digest == spans.newest(archive).digest  # type: ignore[union-attr]


def test_of_two_at_once_one_adds_the_span_and_the_other_begins_again_from_it(
    covid: Path,
    kermany_directory: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assign = splits.assign
    rows = rows_of(covid)

    def overtaken(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(splits, "assign", assign)
        write(covid, rows[:-8])
        ingest(covid, kermany_directory, tmp_path / "other", archive=archive)
        write(covid, rows)
        return assign(*arguments, **options)

    monkeypatch.setattr(splits, "assign", overtaken)
    summary = ingest(covid, kermany_directory, tmp_path / "one", archive=archive)
    assert "another run has added a span" in capsys.readouterr().out
    assert summary["span"]["number"] == spans.newest(archive).number == 2  # type: ignore[union-attr]
    assert 0 < summary["span"]["opened"] <= 8
    other = table(tmp_path / "other")
    assert (table(tmp_path / "one").loc[other.index, "split"] == other["split"]).all()


def test_another_seed_is_refused(
    grown: dict, covid: Path, kermany_directory: Path, archive: Path
) -> None:
    with pytest.raises(UserError, match="begun with --seed 0"):
        ingest(covid, kermany_directory, archive / "out", archive=archive, seed=1)


def test_only_shards_of_what_is_new_or_changed_are_written(
    grown: dict[str, Any], covid: Path, kermany_directory: Path, archive: Path, tmp_path: Path
) -> None:
    sources = {"covid-chestxray": covid, "kermany": kermany_directory}
    first = write_records(tmp_path / "first", sources, tmp_path / "r1", archive=archive)
    there = {file: file.stat().st_mtime_ns for file in (archive / "records").glob("*.tfrecord")}
    second = write_records(tmp_path / "second", sources, tmp_path / "r2", archive=archive)
    names = [
        {shard["name"] for split in one["splits"].values() for shard in split["shards"]}
        for one in (first, second)
    ]
    assert names[0] < names[1]
    assert all("-00002-" in name for name in names[1] - names[0])
    assert all(file.stat().st_mtime_ns == time for file, time in there.items())
    assert second["span"] == 2
    counted = sum(split["records"] for split in second["splits"].values())
    assert counted == len(table(tmp_path / "second"))


def test_a_withdrawn_image_leaves_its_shard_and_no_other_image_is_read_again(
    grown: dict[str, Any],
    covid: Path,
    kermany_directory: Path,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sources = {"covid-chestxray": covid, "kermany": kermany_directory}
    second = write_records(tmp_path / "second", sources, tmp_path / "r2", archive=archive)
    before = table(tmp_path / "second")
    withdrawn = before.index[(before["source"] == "covid-chestxray") & (before["split"] == TRAIN)][
        0
    ]
    write(covid, [row for row in grown["rows"] if row["filename"] not in withdrawn])
    ingest(covid, kermany_directory, tmp_path / "third", archive=archive)
    opened: list[Path] = []
    monkeypatch.setattr("components.data.write_shards._content", opened.append)
    third = write_records(tmp_path / "third", sources, tmp_path / "r3", archive=archive)
    assert opened == []
    told = [
        {shard["name"] for split in one["splits"].values() for shard in split["shards"]}
        for one in (second, third)
    ]
    assert len(told[0] - told[1]) == len(told[1] - told[0]) == 1
    monkeypatch.undo()
    anew = write_records(tmp_path / "third", sources, tmp_path / "r4", archive=tmp_path / "other")
    assert anew["splits"] == third["splits"]


PATIENTS = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from(["covid", "normal"])), min_size=60, max_size=90
)


def drawn(patients: list[tuple[int, str]]) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(len(patients))],
            "patient": [f"{label}-{number}" for number, label in patients],
            "label": [label for _, label in patients],
            "sha256": [f"{i:064d}" for i in range(len(patients))],
            "perceptual_hash": [random.bytes(32).hex() for _ in patients],
        }
    )


@settings(max_examples=40, deadline=None)
@given(patients=PATIENTS, then=st.integers(30, 55), withdrawn=st.integers(0, 10), data=st.data())
def test_however_a_dataset_grows_no_patient_changes_sides(
    patients: list[tuple[int, str]], then: int, withdrawn: int, data: Any
) -> None:
    everyone = drawn(patients)
    first = everyone.iloc[:then]
    earlier = first.assign(
        split=[
            {"0": TEST, "1": "validation"}.get(str(zlib.crc32(patient.encode()) % 5), TRAIN)
            for patient in first["patient"]
        ]
    )
    now = everyone.iloc[withdrawn:]
    split = splits.extend(now, earlier, seed=0)
    assert set(split) <= {TEST, TRAIN, "validation"}
    by_patient = split.groupby(now["patient"]).nunique()
    assert (by_patient == 1).all()
    was = earlier.set_index("patient")["split"]
    for patient, is_now in zip(now["patient"], split, strict=True):
        assert patient not in was.index or is_now == was.loc[[patient]].iloc[0]
    order = data.draw(st.permutations(range(len(now))))
    again = splits.extend(now.iloc[order], earlier, seed=0)
    assert again.sort_index().tolist() == split.sort_index().tolist()


def test_new_patients_fill_what_is_below_its_share() -> None:
    everyone = drawn([(i, "covid") for i in range(100)])
    earlier = everyone.iloc[:20].assign(split=TEST)
    split = splits.extend(everyone, earlier, seed=0)
    assert split.value_counts().to_dict() == {TRAIN: 70, TEST: 20, "validation": 10}


def test_who_turns_out_to_be_related_to_a_test_image_is_used_no_more() -> None:
    everyone = drawn([(i, "covid") for i in range(30)])
    earlier = everyone.assign(split=[TEST, TRAIN, "validation", *[TRAIN] * 27])
    bridge = drawn([(0, "covid")]).assign(
        id="new", patient=everyone["patient"][1], perceptual_hash=everyone["perceptual_hash"][0]
    )
    split = splits.extend(pd.concat([everyone, bridge], ignore_index=True), earlier, seed=0)
    assert split.iloc[[0, 1, 30]].tolist() == [TEST, "", TEST]
    assert (split.iloc[3:30] == TRAIN).all()
