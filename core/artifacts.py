"""The file names and verdicts that steps hand to each other and to the server, in the order of a run."""

from enum import StrEnum


class NewData(StrEnum):
    """Verdict of `check_for_new_data`, which the pipeline reads in a condition."""

    NEW = "new"
    NOTHING = "nothing"


class ToTrain(StrEnum):
    """Verdict of `choose_to_train`, which the pipeline reads in a condition."""

    TRAIN = "train"
    WAIT = "wait"


class ToDeploy(StrEnum):
    """Verdict of `gate`, which the pipeline reads in a condition."""

    DEPLOY = "deploy"
    KEEP = "keep"


class Verdict(StrEnum):
    """What an audit says of a model, the least trusted first; see `components.trust.rules`."""

    NOT_TRUSTED = "not trusted"  # a rule is broken
    UNPROVEN = (
        "unproven"  # no rule is broken, but one that is needed cannot be judged on these data
    )
    TRUSTED = "trusted"  # every needed rule is kept, and no other is broken


class Trust(StrEnum):
    """Which candidates a run deploys, of those that reach the recalls of the gate."""

    ENFORCE = "enforce"  # trusted ones
    FLAG = "flag"  # all, with their verdict


# `ingest`: its tables (see `components.data.example_tables`) and counts; the examples of the previous span.
EXAMPLES, EXCLUDED, SUMMARY = "examples.parquet", "excluded.parquet", "summary.json"
PREVIOUS = "previous.parquet"

# `validate`; see `components.data.validation.findings`, `components.data.shared_ground` and `.surroundings`.
ANOMALIES, COMPARISONS = "anomalies.json", "comparisons.json"
GROUND, SURROUNDINGS = "ground.json", "surroundings.json"
VALIDATION_PAGE = "validation.html"

# `write_records`: the list of shards, and who and what each image shows; see `components.data.relatives`.
RECORDS, IDENTITIES = "manifest.json", "identities.parquet"

# `find_lungs`: the segmenter, its card and its page.
SEGMENTER, SEGMENTER_CARD, LUNGS_PAGE = "lungs.keras", "lungs.json", "lungs.html"

# `pretrain`: a base, and how it was trained; its images are in `MADE_WITH`.
BASE_WEIGHTS, PRETRAINING = "base.weights.h5", "pretraining.json"

# `train`: the model's card, the model (see `training.export`), losses and accuracies by epoch, and a row for
# each image that it was trained or tuned with.
CARD, SAVED_MODEL, HISTORY = "model.json", "saved_model", "history.csv"
MADE_WITH = "images.parquet"

# `evaluate`: metrics (see `training.metrics.evaluate`), a row for each image (see
# `training.saved_model.predictions`), some images with heat maps, and answers that a server must repeat.
METRICS, PREDICTIONS, GALLERY = "metrics.json", "predictions.parquet", "gallery.json"
KNOWN_ANSWERS = "known_answers.json"
EVALUATION_PAGE = "evaluation.html"

# `champion`: the version that is served; its predictions are in `PREDICTIONS`.
CHAMPION = "champion.json"

# `audit`: what the model looks at; see `components.trust.audit`.
AUDIT, AUDIT_PAGE = "audit.json", "audit.html"

# `gate`: see `components.trust.gate.decide`.
DECISION = "decision.json"

# `report`; and `reproduce`: published figures beside ours.
REPORT = "report.html"
REPRODUCTION, REPRODUCTION_PAGE = "reproduction.json", "reproduction.html"

# `deploy`: a version's files with sizes and digests, the run that made it, and its model card.
VERSION, LINEAGE = "manifest.json", "lineage.json"
MODEL_CARD, MODEL_CARD_PAGE = "model_card.md", "model_card.html"
