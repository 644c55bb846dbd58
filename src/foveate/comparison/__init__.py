"""Paired arms and their controls to a verdict; the statistics apart from the runs."""
