"""Validates examples with TensorFlow Data Validation: a program for an interpreter that has TFDV.

TFDV 1.21 needs glibc 2.39. On older hosts, release 1.16 runs in its own environment, where the rest of this
project cannot be imported. So this file imports nothing of the project, and its input and output are files.

    python tfdv.py EXAMPLES_PARQUET SCHEMA_PBTXT WARNINGS_PBTXT OUTPUT_DIRECTORY
      [--previous PREVIOUS_PARQUET] [--served SERVED_PARQUET]

For each split it writes `<split>/FeatureStats.pb` (DatasetFeatureStatisticsList), the same as
`<split>/FeatureStats.json`, and `<split>/Anomalies.pb`. Beside them it writes `schema.pbtxt` and
`anomalies.json`, a list of anomalies: `split`, `feature`, `severity`, `what`, `details` and, if single rows
are at fault, `rows` (ids) and `count`.

The schema's comparators define two kinds of comparison. Drift: for each source, the new images of the last
span against the examples of the span before. Skew: the training images against the images that a server
received. `comparisons.json` is a list of `kind` (drift or skew); `source`; `before` and `now`, the numbers of
images; `measures`, a row for each comparator: `feature`, `measure`, `value`, `threshold`; and `statistics` of
both sides, as in `FeatureStats.json`. With fewer than 20 images on a side, `measures` is empty.
"""

import argparse
import gc
import json
import os
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

gc.disable()  # as in `core.imports`, which this program cannot import
try:
    import tensorflow_data_validation as tfdv
    from google.protobuf import json_format
    from tensorflow_data_validation.statistics import stats_impl
    from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
finally:
    gc.freeze()
    gc.enable()

# They identify a row instead of describing it, so their distribution says nothing.
IDENTIFIERS = ("id", "size", "sha256", "path", "perceptual_hash", "folder_split", "span")
_ROWS_SHOWN = 20
_LEAST_COMPARED = 20


def main(arguments: list[str]) -> None:
    """Runs the program; see the module."""
    parser = argparse.ArgumentParser()
    for name in ("examples", "schema", "warnings", "output", "--previous", "--served"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args(arguments)
    examples, output = given.examples, given.output
    schema = tfdv.load_schema_text(str(given.schema))
    stricter = tfdv.load_schema_text(str(given.warnings))
    tfdv.write_schema_text(schema, str(output / "schema.pbtxt"))
    splits = pc.unique(pq.read_table(examples, columns=["split"])["split"]).to_pylist()
    anomalies = []
    for split in sorted(splits):
        (output / split).mkdir()
        file = output / split / "FeatureStats.pb"
        table = pq.read_table(examples, filters=[("split", "=", split)])
        _generate_statistics(table, schema, file)
        statistics = tfdv.load_stats_binary(str(file))
        file.with_suffix(".json").write_text(
            json_format.MessageToJson(statistics, preserving_proto_field_name=True)
        )
        invalid = tfdv.validate_statistics(statistics, schema)
        (output / split / "Anomalies.pb").write_bytes(invalid.SerializeToString())
        anomalies += list(_anomalies(invalid, split, schema, table))
        broken = set(invalid.anomaly_info)
        anomalies += list(_warnings(statistics, split, schema, stricter, table, broken))
    (output / "anomalies.json").write_text(json.dumps(anomalies, indent=2) + "\n")
    compared: list[dict[str, Any]] = []
    if given.previous:
        previous = pq.read_table(given.previous)
        compared += _drift(previous, pq.read_table(examples), schema, output)
    if given.served:
        trained_on = pq.read_table(examples, filters=[("split", "=", "train")])
        compared.append(_skew(trained_on, pq.read_table(given.served), schema, output))
    (output / "comparisons.json").write_text(json.dumps(compared, indent=2) + "\n")


def _drift(
    previous: pa.Table, examples: pa.Table, schema: schema_pb2.Schema, output: Path
) -> Iterator[dict[str, Any]]:
    new = examples.filter(pc.equal(examples["span"], pc.max(examples["span"])))
    for source in sorted(pc.unique(new["source"]).to_pylist()):
        before = previous.filter(pc.equal(previous["source"], source))
        now = new.filter(pc.equal(new["source"], source))
        if before.num_rows:
            directory = output / "drift" / source
            yield {"source": source, **_compared("drift", before, now, schema, directory)}


def _skew(
    trained_on: pa.Table, served: pa.Table, schema: schema_pb2.Schema, output: Path
) -> dict[str, Any]:
    common = [name for name in trained_on.column_names if name in served.column_names]
    sides = (trained_on.select(common), served.select(common))
    return {"source": "", **_compared("skew", *sides, schema, output / "skew")}


def _compared(
    kind: str, before: pa.Table, now: pa.Table, schema: schema_pb2.Schema, directory: Path
) -> dict[str, Any]:
    comparison = {"kind": kind, "before": before.num_rows, "now": now.num_rows}
    if min(before.num_rows, now.num_rows) < _LEAST_COMPARED:
        return {**comparison, "measures": [], "statistics": {}}
    directory.mkdir(parents=True)
    sides = {}
    for name, table in (("before", before), ("now", now)):
        _generate_statistics(table, schema, directory / f"{name}.pb")
        sides[name] = tfdv.load_stats_binary(str(directory / f"{name}.pb"))
    if kind == "drift":
        # TFDV validates the newer side against the schema.
        anomalies = tfdv.validate_statistics(
            sides["now"], schema, previous_statistics=sides["before"]
        )
    else:
        anomalies = tfdv.validate_statistics(
            sides["before"], schema, serving_statistics=sides["now"]
        )
    (directory / "Anomalies.pb").write_bytes(anomalies.SerializeToString())
    return {
        **comparison,
        "measures": [
            {
                "feature": ".".join(info.path.step),
                "measure": type(measured).Type.Name(measured.type).lower(),
                "value": round(measured.value, 4),
                "threshold": round(measured.threshold, 4),
            }
            for info in anomalies.drift_skew_info
            for measured in (info.drift_measurements if kind == "drift" else info.skew_measurements)
        ],
        "statistics": {
            name: json_format.MessageToDict(side, preserving_proto_field_name=True)["datasets"][0][
                "features"
            ]
            for name, side in sides.items()
        },
    }


def _generate_statistics(table: pa.Table, schema: schema_pb2.Schema, output: Path) -> None:
    # A table has a row per image and is in memory already; a pipeline for it would only add seconds.
    # In memory, TFDV counts values in sketches, which are exact if they have room for all.
    stats_impl._DEFAULT_MG_SKETCH_SIZE = stats_impl._DEFAULT_KMV_SKETCH_SIZE = table.num_rows
    options = tfdv.StatsOptions(schema=schema, num_top_values=50)
    statistics = stats_impl.generate_statistics_in_memory(_batch(table), options)
    output.write_bytes(statistics.SerializeToString())


def _batch(table: pa.Table) -> pa.RecordBatch:
    """Returns a table in TFDV's form: each column has lists, or null if the value is missing."""
    names = [name for name in table.column_names if name not in IDENTIFIERS]
    columns = [
        pa.array([None if value is None else [value] for value in column.to_pylist()],
                 pa.list_(column.type))
        for column in (table[name] for name in names)
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(columns, names)


def _anomalies(
    anomalies: anomalies_pb2.Anomalies, split: str, schema: schema_pb2.Schema, table: pa.Table
) -> Iterator[dict[str, Any]]:
    for name, info in sorted(anomalies.anomaly_info.items()):
        feature = ".".join(info.path.step) or name
        rows = _rows_at_fault(table, feature, schema)
        for reason in info.reason:
            yield {
                "split": split,
                "feature": feature,
                "severity": anomalies_pb2.AnomalyInfo.Severity.Name(info.severity).lower(),
                "what": reason.short_description or info.short_description,
                "details": reason.description or info.description,
                "rows": rows[:_ROWS_SHOWN],
                "count": len(rows),
            }


def _warnings(
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    split: str,
    schema: schema_pb2.Schema,
    stricter: schema_pb2.Schema,
    table: pa.Table,
    broken: Container[str],
) -> Iterator[dict[str, Any]]:
    """Yields features that match the schema but violate the stricter one, which has only some features."""
    comments = {feature.name: feature.annotation.comment[0] for feature in stricter.feature}
    both = schema_pb2.Schema()
    both.CopyFrom(schema)
    others = [feature for feature in schema.feature if feature.name not in comments]
    del both.feature[:]
    both.feature.extend([*others, *stricter.feature])
    anomalies = tfdv.validate_statistics(statistics, both)
    for name, info in sorted(anomalies.anomaly_info.items()):
        if name in comments and name not in broken:
            rows = _rows_at_fault(table, name, both)
            yield {
                "split": split,
                "feature": name,
                "severity": "warning",
                "what": info.short_description,
                "details": comments[name],
                "rows": rows[:_ROWS_SHOWN],
                "count": len(rows),
            }


def _rows_at_fault(table: pa.Table, name: str, schema: schema_pb2.Schema) -> list[str]:
    """Returns the ids of rows in which a feature is missing or outside its domain."""
    feature = next((feature for feature in schema.feature if feature.name == name), None)
    if feature is None or name not in table.column_names:
        return []
    column = table[name]
    faulty = pa.array([False] * table.num_rows)
    if feature.presence.min_fraction == 1.0:
        faulty = pc.or_(faulty, pc.is_null(column))
    if feature.HasField("string_domain"):
        known = pa.array(feature.string_domain.value, pa.string())
        strange = pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, value_set=known)))
        faulty = pc.or_(faulty, strange)
    for domain in ("int_domain", "float_domain"):
        if feature.HasField(domain):
            limits = getattr(feature, domain)
            outside = pc.or_(pc.less(column, limits.min), pc.greater(column, limits.max))
            faulty = pc.or_(faulty, pc.fill_null(outside, False))
    return [str(value) for value in table.filter(faulty)["id"].to_pylist()]


if __name__ == "__main__":
    main(sys.argv[1:])
    # All is written. Otherwise Python would delete all modules and objects, which takes long.
    sys.stdout.flush()
    os._exit(0)
