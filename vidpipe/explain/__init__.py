"""Explanations: which rows and places spoke for a label, and what a backbone sees."""
