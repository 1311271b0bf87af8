"""What the parser of configs says, in one line: the key, what it takes, and what came."""

from __future__ import annotations

import re

# Lines of jsonargparse that tell of how it looked, not of what is wrong.
_OF_THE_SEARCH = re.compile(
    r"-?\s*(Does not validate against any of the Union subtypes|Subtypes: .*|Errors:"
    r"|Given value type: .*|Given value: (NestedArg|Namespace)\(.*|Expected a <class 'NoneType'>"
    r"|Expected a path but .* either not accessible or invalid)"
)
_CHANGES = (
    (re.compile(r"^(?:Parser key|Key) \"([\w.]+)\":\s*"), r"\1: "),
    (re.compile(r"Problem with given class_path '([\w.]+)':\s*"), r"\1: "),
    (re.compile(r"Expected a <class '([\w.]+)'>\. Got value: (.*)"), r"expected \1 (got \2)"),
    (re.compile(r"Expected a <class '([\w.]+)'>"), r"expected \1"),
    (re.compile(r"^Given value: (.*)"), r"(got \1)"),
    (re.compile(r"Expected an? "), "expected "),
)


def reason_of(message: str) -> str:
    """The message of an ``ArgumentError``, without how the parser came to it."""
    parts: list[str] = []
    for line in message.splitlines():
        text = line.strip()
        if not text or _OF_THE_SEARCH.fullmatch(text):
            continue
        text = text.removeprefix("- ")
        for pattern, by in _CHANGES:
            text = pattern.sub(by, text)
        if text in parts:
            continue
        if parts and parts[-1].startswith(("expected ", "or ")) and text.startswith("expected "):
            text = f"or {text.removeprefix('expected ')}"  # One or the other.
        parts.append(text)
    return " ".join((" ".join(parts) or message).split())
