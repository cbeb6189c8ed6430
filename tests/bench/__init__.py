"""Ratios against a baseline of the same run: ``python -m tests.bench [NAME...]``. Asserts no times."""
