"""Cross-validation: networks that are trained on all folds but one, and asked about that one."""
