"""Evaluation: how often a backbone is right, and for whom, on photos whose people are known."""
