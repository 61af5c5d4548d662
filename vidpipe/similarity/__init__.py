"""Feature sequences compared with each other: shortlists, alignment in time, duplicates."""
