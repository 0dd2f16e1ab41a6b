"""What is trained and how, from TFRecords to an exported model."""

# Environment variable of machines that train together: host:port of each, separated by commas.
HOSTS = "CXRFLOW_HOSTS"
