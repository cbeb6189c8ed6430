"""Checks files of test vectors: ``python -m tests.vectors FILE``."""
