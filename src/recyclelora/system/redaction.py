"""Secrets stay out of everything that is written or printed."""

from __future__ import annotations

import os
import re

_SECRET_NAME = re.compile(r"TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|API_?KEY|ACCESS_KEY|PRIVATE_KEY", re.IGNORECASE)
_SHORTEST = 6
"""Characters; hiding a shorter value would blot out ordinary words."""


def is_secret(variable: str) -> bool:
    """Whether an environment variable is secret by its name: it speaks of a token, password, credential or key."""
    return _SECRET_NAME.search(variable) is not None


def redacted(text: str) -> str:
    """A text with the secrets of its URLs, and what secret environment variables hold, replaced by ``***``.

    A URL's secrets are its password, the user name of ``http(s)``, where tokens stand, and what its query calls a
    token, password, secret or key. A variable is secret by its name, see :func:`is_secret`.
    """
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and is_secret(name):
            text = text.replace(value, "***")
    text = re.sub(r"(://[^/\s:@]*):\S*@", r"\1:***@", text)
    text = re.sub(r"(\bhttps?://)[^/\s@]+@", r"\1***@", text, flags=re.IGNORECASE)
    return re.sub(r"([?&][^=&\s]*(?:token|passw|secret|key|sig)[^=&\s]*=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)
