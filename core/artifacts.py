"""The names of all that one step, or the server, reads of another: verdicts and files, in the order of a run."""

# Verdicts, which the pipeline reads in its conditions: of `check_for_new_data`, `choose_to_train` and `gate`.
NEW, NOTHING = "new", "nothing"
TRAIN, WAIT = "train", "wait"
DEPLOY, KEEP = "deploy", "keep"

# `ingest`: its tables (see `components.data.example_tables`) and counts; the examples of the span before.
EXAMPLES, EXCLUDED, SUMMARY = "examples.parquet", "excluded.parquet", "summary.json"
PREVIOUS = "previous.parquet"

# `validate`: see `components.data.validation.findings`.
ANOMALIES, COMPARISONS = "anomalies.json", "comparisons.json"
VALIDATION_PAGE = "validation.html"

# `write_records`: what shards there are.
RECORDS = "manifest.json"

# `find_lungs`: the segmenter, and what is known of it.
SEGMENTER, SEGMENTER_CARD, LUNGS_PAGE = "lungs.keras", "lungs.json", "lungs.html"

# `pretrain`: a base, how it was made, and a row for each image it has seen.
BASE_WEIGHTS, PRETRAINING = "base.weights.h5", "pretraining.json"

# `train`: where a model comes from, the model (see `training.export`), its losses and accuracies by epoch,
# and a row for each image it was made with (also of `pretrain`).
CARD, SAVED_MODEL, HISTORY = "model.json", "saved_model", "history.csv"
MADE_WITH = "images.parquet"

# `evaluate`: figures (see `training.metrics.evaluate`), a row for each image (see
# `training.export.predictions`), some images with heat maps, and answers that a server must repeat.
METRICS, PREDICTIONS, GALLERY = "metrics.json", "predictions.parquet", "gallery.json"
KNOWN_ANSWERS = "known_answers.json"
EVALUATION_PAGE = "evaluation.html"

# `champion`: which version gave the metrics beside it.
CHAMPION = "champion.json"

# `audit`: what a model's answers rest on; see `components.trust.audit`.
AUDIT, AUDIT_PAGE = "audit.json", "audit.html"

# `gate`: see `components.trust.gate.decide`.
DECISION = "decision.json"

# `report`, and `reproduce`: the figures of a published system beside ours.
REPORT = "report.html"
REPRODUCTION, REPRODUCTION_PAGE = "reproduction.json", "reproduction.html"

# `deploy`: of a published version, its files with their sizes and digests, and the run that made it.
VERSION, LINEAGE = "manifest.json", "lineage.json"
MODEL_CARD, MODEL_CARD_PAGE = "model_card.md", "model_card.html"
