"""The shared neural modules: frozen image models, their weights, and the heads that read feature sequences."""
