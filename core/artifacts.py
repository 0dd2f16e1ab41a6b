"""The names of verdicts and files that one step, or the server, reads from another, in the order of a run."""

# Verdicts for the conditions of the pipeline: of `check_for_new_data`, `choose_to_train` and `gate`.
NEW, NOTHING = "new", "nothing"
TRAIN, WAIT = "train", "wait"
DEPLOY, KEEP = "deploy", "keep"

# `ingest`: its tables (see `components.data.example_tables`) and counts; the examples of the previous span.
EXAMPLES, EXCLUDED, SUMMARY = "examples.parquet", "excluded.parquet", "summary.json"
PREVIOUS = "previous.parquet"

# `validate`: see `components.data.validation.findings`.
ANOMALIES, COMPARISONS = "anomalies.json", "comparisons.json"
VALIDATION_PAGE = "validation.html"

# `write_records`: the list of shards.
RECORDS = "manifest.json"

# `find_lungs`: the segmenter, its card and its page.
SEGMENTER, SEGMENTER_CARD, LUNGS_PAGE = "lungs.keras", "lungs.json", "lungs.html"

# `pretrain`: a base, how it was made, and a row for each image it has seen.
BASE_WEIGHTS, PRETRAINING = "base.weights.h5", "pretraining.json"

# `train`: the model's card, the model (see `training.export`), its losses and accuracies by epoch, and a row
# for each image it was made with (also of `pretrain`).
CARD, SAVED_MODEL, HISTORY = "model.json", "saved_model", "history.csv"
MADE_WITH = "images.parquet"

# `evaluate`: metrics (see `training.metrics.evaluate`), a row for each image (see
# `training.export.predictions`), some images with heat maps, and answers that a server must repeat.
METRICS, PREDICTIONS, GALLERY = "metrics.json", "predictions.parquet", "gallery.json"
KNOWN_ANSWERS = "known_answers.json"
EVALUATION_PAGE = "evaluation.html"

# `champion`: the version whose metrics are beside it.
CHAMPION = "champion.json"

# `audit`: what a model looks at; see `components.trust.audit`.
AUDIT, AUDIT_PAGE = "audit.json", "audit.html"

# `gate`: see `components.trust.gate.decide`.
DECISION = "decision.json"

# `report`; and `reproduce`: our figures beside those of a published system.
REPORT = "report.html"
REPRODUCTION, REPRODUCTION_PAGE = "reproduction.json", "reproduction.html"

# `deploy`, in a published version: its files with their sizes and digests, the run that made it, its card.
VERSION, LINEAGE = "manifest.json", "lineage.json"
MODEL_CARD, MODEL_CARD_PAGE = "model_card.md", "model_card.html"
