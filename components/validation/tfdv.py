"""TensorFlow Data Validation over ingested examples: a program, run with the interpreter that has TFDV.

TFDV 1.21 needs glibc 2.39. On older hosts release 1.16 runs in an environment of its own, in which
nothing else of this project can be imported; so this file imports nothing of it and talks in files.

    python tfdv.py EXAMPLES_PARQUET SCHEMA_PBTXT WARNINGS_PBTXT OUTPUT_DIRECTORY

writes, for each split, `<split>/FeatureStats.pb` (DatasetFeatureStatisticsList), the same as
`<split>/FeatureStats.json`, and `<split>/Anomalies.pb`; beside them `schema.pbtxt` and
`anomalies.json`, a list of what was found with `split`, `feature`, `severity`, `what`, `details`
and, where single rows are at fault, `rows` (ids) and `count`.
"""

import json
import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import tensorflow_data_validation as tfdv
from google.protobuf import json_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

# They identify a row rather than describe it: a distribution of them says nothing.
IDENTIFIERS = ("id", "sha256", "path", "perceptual_hash", "folder_split")
_ROWS_SHOWN = 20


def main(arguments: list[str]) -> None:
    """Runs the program; see the module."""
    examples, schema_file, warnings_file, output = (Path(argument) for argument in arguments)
    schema = tfdv.load_schema_text(str(schema_file))
    wanted = tfdv.load_schema_text(str(warnings_file))
    tfdv.write_schema_text(schema, str(output / "schema.pbtxt"))
    splits = pc.unique(pq.read_table(examples, columns=["split"])["split"]).to_pylist()
    found = []
    for split in sorted(splits):
        (output / split).mkdir()
        file = output / split / "FeatureStats.pb"
        _generate_statistics(examples, split, schema, file)
        statistics = tfdv.load_stats_binary(str(file))
        file.with_suffix(".json").write_text(
            json_format.MessageToJson(statistics, preserving_proto_field_name=True)
        )
        anomalies = tfdv.validate_statistics(statistics, schema)
        (output / split / "Anomalies.pb").write_bytes(anomalies.SerializeToString())
        table = pq.read_table(examples, filters=[("split", "=", split)])
        found += list(_anomalies(anomalies, split, schema, table))
        broken = set(anomalies.anomaly_info)
        found += list(_warnings(statistics, split, schema, wanted, table, broken))
    (output / "anomalies.json").write_text(json.dumps(found, indent=2) + "\n")


def _generate_statistics(
    examples: Path, split: str, schema: schema_pb2.Schema, output: Path
) -> None:
    options = tfdv.StatsOptions(schema=schema, num_top_values=50)
    with beam.Pipeline() as pipeline:
        _ = (
            pipeline
            | "Name file" >> beam.Create([str(examples)])
            | "Read batches" >> beam.FlatMap(_batches, split)
            | "Compute statistics" >> tfdv.GenerateStatistics(options)
            | "Write" >> tfdv.WriteStatisticsToBinaryFile(str(output))
        )


def _batches(examples: str, split: str) -> Iterator[pa.RecordBatch]:
    """Yields a split's rows as TFDV takes them: every column a list, null where a value is missing."""
    for batch in pq.ParquetFile(examples).iter_batches(batch_size=1000):
        batch = batch.filter(pc.equal(batch["split"], split))
        names = [name for name in batch.schema.names if name not in IDENTIFIERS]
        columns = [
            pa.array([None if value is None else [value] for value in column.to_pylist()],
                     pa.list_(column.type))
            for column in (batch[name] for name in names)
        ]  # fmt: skip
        if batch.num_rows:
            yield pa.RecordBatch.from_arrays(columns, names)


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
    wanted: schema_pb2.Schema,
    table: pa.Table,
    broken: Container[str],
) -> Iterator[dict[str, Any]]:
    """Yields what is not as `wanted`, of features that keep to the schema itself."""
    comments = {feature.name: feature.annotation.comment[0] for feature in wanted.feature}
    stricter = schema_pb2.Schema()
    stricter.CopyFrom(schema)
    kept = [feature for feature in schema.feature if feature.name not in comments]
    del stricter.feature[:]
    stricter.feature.extend([*kept, *wanted.feature])
    anomalies = tfdv.validate_statistics(statistics, stricter)
    for name, info in sorted(anomalies.anomaly_info.items()):
        if name in comments and name not in broken:
            rows = _rows_at_fault(table, name, stricter)
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
    """Returns the ids of the rows whose value of a feature is outside its domain or missing."""
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
