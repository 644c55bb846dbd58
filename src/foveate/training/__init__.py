"""Training: optimizer, loop, state, run folder."""
