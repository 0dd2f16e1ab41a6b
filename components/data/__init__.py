"""The steps from the datasets to TFRecords."""
