"""Secrets stay out of everything that is written or printed."""

from __future__ import annotations

import re


def redacted(text: str) -> str:
    """A text with the passwords of its URLs replaced by ``***``."""
    return re.sub(r"(://[^/\s:@]*):\S*@", r"\1:***@", text)
