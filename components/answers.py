"""The files in which what is found about models is kept, for steps of whatever image."""

# How good they are; see `training.metrics.evaluate`.
METRICS = "metrics.json"
# A row an image; see `training.export.predictions`.
PREDICTIONS = "predictions.parquet"
# Which version gave them, where it is the one that is served; see `components.champion`.
CHAMPION = "champion.json"
# What a model's answers rest on; see `components.audit`.
AUDIT, AUDIT_PAGE = "audit.json", "audit.html"
