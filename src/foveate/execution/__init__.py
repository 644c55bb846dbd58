"""Jobs run by local processes or by Ray, through one small interface."""
