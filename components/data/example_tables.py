"""The tables that `ingest` writes: their columns, and the fingerprint of the data."""

import hashlib

import pandas as pd
import pyarrow as pa

# One row for each image. `id` is `<source>/<path>`, `size` the file's size in bytes, `span` the number of the
# span that added it (see `components.data.spans`). For the others see `sources.Row` and `facts.Facts`.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("size", pa.int64()),
        ("sha256", pa.string()),
        ("source", pa.string()),
        ("path", pa.string()),
        ("label", pa.string()),
        ("finding", pa.string()),
        ("patient", pa.string()),
        ("origin", pa.string()),
        ("view", pa.string()),
        ("sex", pa.string()),
        ("age", pa.float32()),
        ("offset", pa.float32()),
        ("width", pa.int64()),
        ("height", pa.int64()),
        ("mode", pa.string()),
        ("perceptual_hash", pa.string()),
        ("brightness", pa.float32()),
        ("contrast", pa.float32()),
        ("frame", pa.float32()),
        ("folder_split", pa.string()),
        ("split", pa.string()),
        ("span", pa.int64()),
    ]
)
# One row for each image that was ever opened: its facts, so that it is not opened again, and its split, which
# stays. `kind` and `reason` are null if it can be used.
SEEN = "seen"
SEEN_SCHEMA = pa.schema(
    [
        *(
            SCHEMA.field(name)
            for name in (
                "id size sha256 width height mode perceptual_hash brightness contrast frame patient "
                "split span"
            ).split()
        ),
        ("kind", pa.string()),
        ("reason", pa.string()),
    ]
)
# One row for each image that is not used: `kind` groups reasons, `reason` is a sentence.
EXCLUDED_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("source", "path", "kind", "reason", "finding")]
)


def fingerprint(examples: pd.DataFrame) -> str:
    """Returns a digest of images, labels, patients and splits, as 64 hexadecimal digits.

    Args:
      examples: with the columns `id`, `sha256`, `label`, `patient` and `split`, sorted by `id`.
    """
    digest = hashlib.sha256()
    identity = examples[["id", "sha256", "label", "patient", "split"]]
    for values in identity.itertuples(index=False, name=None):
        digest.update("\0".join(values).encode() + b"\n")
    return digest.hexdigest()
