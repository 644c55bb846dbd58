"""Hyperband: the plan, the space it searches, one trial, and the study that puts them together."""
