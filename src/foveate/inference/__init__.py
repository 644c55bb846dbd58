"""Asking a trained network: from images to logits, probabilities and what they are worth."""
