"""Frozen image models: the table, their weights, the streams they make, and the engines that run them."""
