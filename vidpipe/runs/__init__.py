"""The run folder that training writes: its model, its tables, its metrics and its plots."""
