"""Files with a secret in them: one rule for keys, tokens and passwords."""

from __future__ import annotations

OTHERS = 0o077
"""Permission bits that such a file must not have: neither its group nor others may use it."""
