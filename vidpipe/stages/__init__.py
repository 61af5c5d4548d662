"""The four stages of the pipeline, each read from top to bottom: extract, train, evaluate, predict."""
