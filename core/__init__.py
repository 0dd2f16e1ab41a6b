"""What every package may use, and nothing else: it imports no other package of ours."""
