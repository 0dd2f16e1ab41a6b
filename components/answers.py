"""The files in which models' answers on the test split are kept, for steps of whatever image."""

# A row an image; see `training.export.predictions`.
PREDICTIONS = "predictions.parquet"
# Which version gave them, where it is the one that is served; see `components.champion`.
CHAMPION = "champion.json"
