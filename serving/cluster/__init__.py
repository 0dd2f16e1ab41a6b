"""Rolls versions out on KServe."""
