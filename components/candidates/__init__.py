"""Trains and evaluates candidates."""
