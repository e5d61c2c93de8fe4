"""Every message that docs/faq.md quotes is one that the code can print."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import recyclelora
from recyclelora.config.compose import home

HEADINGS = re.findall(r"^### (.*)$", (home() / "docs/faq.md").read_text(), re.M)
MESSAGES = [message for heading in HEADINGS for message in re.findall(r"`([^`]+)`", heading) if " " in message]
VARIES = "<...>"
CONTROL = "\0"
"""Stands for a value within an f-string."""


def texts() -> list[str]:
    """Every string of the package; adjacent literals joined, values of f-strings as one mark."""
    found = []
    for path in Path(recyclelora.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(str(p.value) if isinstance(p, ast.Constant) else CONTROL for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


TEXTS = texts()


def is_in_the_code(message: str) -> bool:
    pattern = re.compile(".*".join(map(re.escape, message.split(VARIES))), re.S)
    return any(pattern.search(text) for text in TEXTS)


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_in_the_code(message: str):
    assert is_in_the_code(message)


def test_enough_is_quoted_and_what_is_not_in_the_code_is_noticed():
    assert len(MESSAGES) > 15
    assert not is_in_the_code("the moon is not at <...>")
    assert not is_in_the_code("<...>: in use by the moon")
