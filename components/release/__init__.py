"""The winner published and served, and the run on one page."""
