"""Plain data to one self-contained HTML page, and its plots as PNG."""
