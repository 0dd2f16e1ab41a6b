"""What `ingest` leaves for the steps after it: files, columns, and the fingerprint of the data."""

import hashlib

import pandas as pd
import pyarrow as pa

EXAMPLES, EXCLUDED, SUMMARY = "examples.parquet", "excluded.parquet", "summary.json"

# One row an image. `id` is `<source>/<path>`; the rest is described at `sources.Row` and `images.Facts`.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("sha256", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("finding", pa.string()),
        ("patient", pa.string()),
        ("view", pa.string()),
        ("sex", pa.string()),
        ("age", pa.float32()),
        ("offset", pa.float32()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("mode", pa.string()),
        ("perceptual_hash", pa.string()),
        ("folder_split", pa.string()),
        ("split", pa.string()),
    ]
)
# One row an image that is not used: `kind` groups the reasons, `reason` is a sentence.
EXCLUDED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("source", "path", "kind", "reason", "finding")]
)


def fingerprint(examples: pd.DataFrame) -> str:
    """Returns 64 hexadecimal digits that follow from images, labels, patients and splits alone.

    Args:
      examples: with the columns `id`, `sha256`, `label`, `patient` and `split`, sorted by `id`.
    """
    digest = hashlib.sha256()
    identity = examples[["id", "sha256", "label", "patient", "split"]]
    for values in identity.itertuples(index=False, name=None):
        digest.update("\0".join(values).encode() + b"\n")
    return digest.hexdigest()
