"""Blots out what looks like a secret before it is written to a file or sent to a tracker.

In: text, or the plain containers of a configuration. Out: the same with secrets replaced by `[redacted]`.
A last line of defence: settings name files and environment variables, never secrets. Imports the standard library
only.
"""

from __future__ import annotations

import re
from typing import Any

REDACTED = "[redacted]"

# A setting with such a name holds a secret, unless its last word says that it holds the place of one.
_SECRET_NAME = re.compile(
    r"(^|_)(password|passwd|passphrase|secret|mnemonic|suri|credential|api_?key|access_?key|private_?key|secret_?key|"
    r"(auth_?|access_?)?token)s?$",
    re.IGNORECASE,
)
_SECRET_VALUES = (
    re.compile(
        r"\b(0x)?[0-9a-fA-F]{128}\b|\b(0x)?[0-9a-fA-F]{64}\b|\b[0-9a-f]{40}\b"
    ),  # private keys, seeds, wandb keys
    re.compile(r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16})\b"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),  # a signed web token
    re.compile(r"^(?:[a-z]{3,8} ){11}(?:(?:[a-z]{3,8} ){3}){0,4}[a-z]{3,8}$"),  # 12, 15, 18, 21 or 24 words
)
_URL_LOGIN = re.compile(r"(\w+://)[^/\s@]+@")
_URL_QUERY = re.compile(r"([?&][^=&\s]*(?:key|token|secret|password|auth)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def redact_text(text: str) -> str:
    """One string: logins and keys inside addresses, and whatever has the shape of a key or a phrase."""
    text = _URL_LOGIN.sub(rf"\1{REDACTED}@", text)
    text = _URL_QUERY.sub(rf"\1{REDACTED}", text)
    for pattern in _SECRET_VALUES:
        text = pattern.sub(REDACTED, text)
    return text


def redact(value: Any, name: str = "") -> Any:
    """Plain containers (dict, list, scalars), by the names of their keys and the shape of their strings."""
    if isinstance(value, dict):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, name) for item in value]
    if isinstance(value, str):
        return REDACTED if value and _SECRET_NAME.search(name) else redact_text(value)
    return value
