"""Classifiers over a feature sequence, and what they see of it."""
