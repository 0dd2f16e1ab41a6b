"""What `ingest` leaves for the steps after it: its files. What is in them: `components.example_tables`."""

EXAMPLES, EXCLUDED, SUMMARY = "examples.parquet", "excluded.parquet", "summary.json"
# The examples of the span before, where there is one.
PREVIOUS = "previous.parquet"
