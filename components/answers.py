"""What steps of whatever image tell each other: verdicts, and files about models."""

# The pipeline reads them in its conditions; see `components.check_for_new_data`, `choose_to_train`, `gate`.
NEW, NOTHING = "new", "nothing"
TRAIN, WAIT = "train", "wait"
DEPLOY, KEEP = "deploy", "keep"

# A model: where it comes from, itself (see `training.export`), and its losses and accuracies by epoch.
CARD, SAVED_MODEL, HISTORY = "model.json", "saved_model", "history.csv"
# How good they are; see `training.metrics.evaluate`.
METRICS = "metrics.json"
# A row an image; see `training.export.predictions`.
PREDICTIONS = "predictions.parquet"
# Some of the images, with their heat maps; see `components.evaluate`.
GALLERY = "gallery.json"
# Which version gave them, where it is the one that is served; see `components.champion`.
CHAMPION = "champion.json"
# What a model's answers rest on; see `components.audit`.
AUDIT, AUDIT_PAGE = "audit.json", "audit.html"
