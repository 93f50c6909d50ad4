"""Digests of files that the miners of a subnet have published as commitments (pallet Commitments).

In: a client, a netuid, a block. Out: `FileCommit` by hotkey: the digest and the block of the commitment. A commitment
is read if it begins with the 64 hex digits of a blake2b-256 digest (anything may follow, such as an address of the
file), or is a hash of the chain's kind BlakeTwo256. Others are ignored. Knows nothing of files.
"""

import re
from typing import Any

from raytensor.chain.rpc.client import ChainClient
from raytensor.types import FileCommit

PALLET = "Commitments"
_DIGEST = re.compile(r"(?:0x)?([0-9a-f]{64})(?![0-9a-f])")


def read_commits(client: ChainClient, netuid: int, block_hash: str) -> dict[str, FileCommit]:
    """Read the file commitments of a subnet at one block; two requests per thousand."""
    if not client.runtime.has_storage(PALLET, "CommitmentOf"):
        return {}
    found: dict[str, FileCommit] = {}
    for hotkey, registration in client.query_map(PALLET, "CommitmentOf", [netuid], block_hash).items():
        for field in registration["info"]["fields"]:
            digest = digest_of(field)
            if digest is not None:
                found[hotkey] = FileCommit(digest, int(registration["block"]))
                break
    return found


def digest_of(field: Any) -> str | None:
    """The digest in a decoded field ({kind: content}), None if it has none."""
    while isinstance(field, (list, tuple)) and len(field) == 1:
        (field,) = field
    if not isinstance(field, dict) or len(field) != 1:
        return None
    ((kind, content),) = field.items()
    raw = _raw(content)
    if raw is None:
        return None
    if kind == "BlakeTwo256":
        return raw.hex() if len(raw) == 32 else None
    if not kind.startswith(("Raw", "BigRaw")):
        return None
    words = _DIGEST.match(raw.decode("ascii", "replace"))
    return words[1] if words else None


def _raw(content: Any) -> bytes | None:
    """Bytes of a decoded value, which is hex, text or numbers."""
    if isinstance(content, str):
        if content.startswith("0x") and len(content) % 2 == 0:
            try:
                return bytes.fromhex(content[2:])
            except ValueError:
                return content.encode()
        return content.encode()
    while isinstance(content, (list, tuple)) and len(content) == 1 and not isinstance(content[0], int):
        (content,) = content
    try:
        return bytes(content)
    except (TypeError, ValueError):
        return None
