import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from PIL import Image

from components.data.write_records import write_records
from components.data.write_shards import storable
from core.errors import UserError
from core.files import sha256_of
from training import data
from training.preprocess import MAX_SIDE, decode_grey


def contents(records: Path) -> dict[str, str]:
    return {file.name: sha256_of(file) for file in records.iterdir()}


def read(records: Path, split: str) -> dict[str, tuple[str, bytes]]:
    found = {}
    files = sorted(str(file) for file in records.glob(f"{split}-*.tfrecord"))
    for record in tf.data.TFRecordDataset(files).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        values = {name: feature[name].bytes_list.value[0] for name in ("id", "label", "image")}
        found[values["id"].decode()] = (values["label"].decode(), values["image"])
    return found


def test_every_example_is_in_the_records_of_its_split(examples: Path, records: Path) -> None:
    table = pd.read_parquet(examples / "examples.parquet")
    for split, members in table.groupby("split"):
        found = read(records, split)
        labels = {identity: label for identity, (label, _) in found.items()}
        assert labels == dict(zip(members["id"], members["label"], strict=True))
        for _, image in found.values():
            assert max(decode_grey(tf.constant(image)).shape) <= MAX_SIDE


def test_the_patient_of_each_image_is_beside_the_records(examples: Path, records: Path) -> None:
    table = pd.read_parquet(examples / "examples.parquet")
    columns = ["id", "patient", "sha256", "perceptual_hash"]
    pd.testing.assert_frame_equal(data.identities(records), table[columns])


def test_records_of_an_earlier_release_must_be_written_again(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an earlier release wrote these records"):
        data.identities(tmp_path)


def test_the_manifest_says_what_is_there(records: Path, examples: Path) -> None:
    manifest = json.loads((records / "manifest.json").read_text())
    summary = json.loads((examples / "summary.json").read_text())
    assert manifest["fingerprint"] == summary["fingerprint"]
    names = set()
    for split in manifest["splits"].values():
        assert split["records"] == sum(shard["records"] for shard in split["shards"])
        assert split["records"] == sum(split["labels"].values())
        for shard in split["shards"]:
            names.add(shard["name"])
            assert shard["sha256"] == sha256_of(records / shard["name"])
    assert names == {file.name for file in records.glob("*.tfrecord")}


def test_killed_and_begun_again_it_writes_the_same_files(
    examples: Path, directories: dict[str, Path], records: Path, tmp_path: Path
) -> None:
    output = tmp_path / "records"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from components.data import write_records, write_shards as module\n"
        "store, calls = module.store, []\n"
        "def killed(*arguments):\n"
        "    calls.append(store(*arguments))\n"
        "    if len(calls) == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.store = killed\n"
        "write_records.write_records(Path(sys.argv[1]), dict(zip(('covid-chestxray', 'kermany'),"
        " map(Path, sys.argv[2:4]))), Path(sys.argv[4]))"
    )
    arguments = [examples, *directories.values(), output]
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(output.glob("*.tfrecord"))) == 2
    assert not (output / "manifest.json").exists()
    write_records(examples, directories, output)
    assert contents(output) == contents(records)


def test_what_another_run_writes_just_now_is_left_alone(
    examples: Path, directories: dict[str, Path], tmp_path: Path
) -> None:
    shards = tmp_path / "archive" / "records"
    shards.mkdir(parents=True)
    live, left_over = shards / ".live.tmp", shards / ".left-over.tmp"
    for file in (live, left_over):
        file.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(left_over, (two_days_ago, two_days_ago))
    write_records(examples, directories, tmp_path / "records", archive=tmp_path / "archive")
    assert live.exists()
    assert not left_over.exists()


def test_several_workers_write_the_same_files(
    examples: Path, directories: dict[str, Path], records: Path, tmp_path: Path
) -> None:
    workers = ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    write_records(examples, directories, tmp_path / "records", beam_options=workers)
    assert contents(tmp_path / "records") == contents(records)


def test_an_image_that_has_gone_is_named(
    examples: Path, directories: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(Exception, match="is gone since it was ingested") as caught:
        write_records(examples, {**directories, "kermany": tmp_path}, tmp_path / "records")
    assert UserError.__name__ in repr(caught.value) or isinstance(caught.value, UserError)
    assert not (tmp_path / "records" / "manifest.json").exists()


def encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def test_a_small_jpeg_or_png_is_kept_byte_for_byte(picture) -> None:
    for kind in ("JPEG", "PNG"):
        content = encoded(Image.fromarray(picture(90, 70)), kind)
        assert storable(content) == content


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *[("JPEG", mode) for mode in ("L", "RGB", "CMYK")],
        *[("PNG", mode) for mode in ("L", "LA", "RGB", "RGBA", "P", "16")],
        *[("WEBP", mode) for mode in ("RGB", "RGBA")],
    ],
)
def test_whatever_is_stored_tensorflow_reads_as_pillow_does(picture, kind: str, mode: str) -> None:
    grey = picture(64, 48)
    if mode == "16":
        image = Image.fromarray(grey.astype(np.uint16) * 257)
    else:
        image = Image.fromarray(grey).convert(mode)
    content = encoded(image, kind)
    pixels = decode_grey(tf.constant(storable(content))).numpy()[..., 0]
    assert np.abs(pixels - grey).max() <= (12 if kind != "PNG" else 1.5)


def test_a_large_image_is_shrunk_and_keeps_its_aspect(picture) -> None:
    stored = storable(encoded(Image.fromarray(picture(1500, 3000)), "PNG"))
    with Image.open(io.BytesIO(stored)) as image:
        assert image.size == (MAX_SIDE, MAX_SIDE // 2)
