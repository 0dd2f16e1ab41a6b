"""Publishes and serves the winner, and shows the run on one page."""
