"""Scripts that make files which the package ships. `python -m tools.NAME --help` describes each."""
