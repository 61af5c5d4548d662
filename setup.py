"""For tools that need a setup.py; pyproject.toml has the metadata."""

from setuptools import setup

setup()
