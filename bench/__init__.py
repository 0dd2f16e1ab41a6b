"""How fast commands and steps are: in seconds, or as ratios to a stated baseline measured in the same run."""
