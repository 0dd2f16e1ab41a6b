"""From two public datasets to TFRecords: the steps about data."""
