"""What talks to a cluster: how a version gets its traffic on KServe."""
