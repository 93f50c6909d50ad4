"""Redacts what looks like a secret before text is written to a file, shown, or sent to a tracker.

In: text, or the plain containers of a configuration. Out: the same with secrets replaced by `[redacted]`. A second line
of defence: settings name files and environment variables, never secrets. A redacted copy is never an input: what reads
settings back asks `redacted_keys` first. Imports the standard library only.
"""

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
    # Private keys and seeds; a part of a path (a file that is named by its hash) is none.
    re.compile(r"(?<![\w/])(0x)?([0-9a-fA-F]{128}|[0-9a-fA-F]{64})(?![\w/])"),
    re.compile(
        r"\b(hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|"
        r"xox[abprs]-[\w-]{10,}|AKIA[0-9A-Z]{16}|AIza[\w-]{35}|wandb_v\d_\w{20,})\b"
    ),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}"),  # a signed web token
    re.compile(r"^(?:[a-z]{3,8} ){11}(?:(?:[a-z]{3,8} ){3}){0,4}[a-z]{3,8}$"),  # 12, 15, 18, 21 or 24 words
)
# 40 hex digits are a key of wandb, or the hash of a commit: a key only where the words before say so.
_NAMED_KEY = re.compile(r"((?:key|token|secret|password)\W{1,3})[0-9a-f]{40}\b", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(\w+://)[^/\s]+@")
_VALUE = r"(?!\[redacted\])[^&\s,;'\"<>)\]}]+"
_NAME = r"[^=&\s]*(?:key|token|secret|password|auth)[^=&\s]*="  # or any name, of a long value
_URL_QUERY = re.compile(rf"([?&](?:{_NAME}|[^=&\s]+=(?=[\w-]{{20}}))){_VALUE}", re.IGNORECASE)
# Keys of node providers, as part of an endpoint's path: long, or letters and digits mixed.
_KEY_LIKE = r"(?:[\w-]{24,}|(?=[a-z_-]*\d)(?=[\d_-]*[a-z])[\w-]{16,})"
_NODE_KEY = re.compile(rf"(wss?://[^\s?,]*?/){_KEY_LIKE}(?![\w-])", re.IGNORECASE)
# In other addresses: 128 bits as hexadecimal digits or UUID, and the paths of well-known webhooks.
_UUID = r"[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}"
_HTTP_KEY = re.compile(rf"(https?://[^\s?,]*?/)(?:{_UUID}|[\da-f]{{32}})(?![\w-])", re.IGNORECASE)
_WEBHOOK = re.compile(
    r"(https?://(?:hooks\.slack\.com/(?:services|workflows|triggers)|(?:\w+\.)?discord(?:app)?\.com/api/webhooks|"
    rf"api\.telegram\.org|[\w.-]+\.webhook\.office\.com/webhookb2)/){_VALUE}",
    re.IGNORECASE,
)
_ADDRESSES = (_URL_QUERY, _NODE_KEY, _NODE_KEY, _HTTP_KEY, _WEBHOOK)  # a path may hold two keys


def redact_text(text: str) -> str:
    """A text without the logins and keys of URLs, and without parts that have the form of a key or a mnemonic."""
    text = _NAMED_KEY.sub(rf"\1{REDACTED}", redact_addresses(text))
    for pattern in _SECRET_VALUES:
        text = pattern.sub(REDACTED, text)
    return text


def redact_addresses(text: str) -> str:
    """A text without the logins and keys of URLs; everything else, such as hashes, stays."""
    if "://" not in text:
        return text
    text = _URL_LOGIN.sub(rf"\1{REDACTED}@", text)
    for pattern in _ADDRESSES:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text


def redact(value: Any, name: str = "") -> Any:
    """Plain containers (dict, list, scalars), by the names of their keys and the form of their texts."""
    if isinstance(value, dict):
        return {key: redact(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact(item, name) for item in value]
    if isinstance(value, str):
        return REDACTED if value and _SECRET_NAME.search(name) else redact_text(value)
    return value


def redacted_keys(value: Any, key: str = "") -> list[str]:
    """Dotted keys of the texts in plain containers that were redacted: they can't be read back as settings."""
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in redacted_keys(item, f"{key}.{name}".lstrip("."))]
    if isinstance(value, (list, tuple)):
        return [found for place, item in enumerate(value) for found in redacted_keys(item, f"{key}[{place}]")]
    return [key] if isinstance(value, str) and REDACTED in value else []
