"""Data: where images come from, how they are decoded, split, augmented and batched."""
