"""How fast the steps are, as ratios to a stated baseline measured in the same run."""
