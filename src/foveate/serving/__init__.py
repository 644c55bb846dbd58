"""HTTP around a predictor: a page for people, JSON for programs, and the KServe v2 protocol."""
