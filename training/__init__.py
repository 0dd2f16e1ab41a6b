"""What is trained and how, from TFRecords to an exported model."""

# The environment of each of several machines that train together: host:port of all of them, with commas.
HOSTS = "CXRFLOW_HOSTS"
