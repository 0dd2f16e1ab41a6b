"""Candidates, trained and measured."""
