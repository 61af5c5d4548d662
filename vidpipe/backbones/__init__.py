"""Frozen image models: the table of them, their weights, and the engines that run them on frames."""
