"""SS58 addresses: text <-> the 32 bytes of a public key. The only place outside the devnet that reads or writes them.

Format: base58(prefix | 32 bytes of key | first 2 bytes of blake2b-512("SS58PRE" | prefix | key)), from the registry of
Substrate addresses. Bittensor's prefix is 42; other prefixes, lengths and hexadecimal keys are refused.
Knows nothing of signature schemes: sr25519 and ed25519 keys look alike.
"""

import hashlib
from functools import lru_cache

PREFIX = 42
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE = {letter: value for value, letter in enumerate(_ALPHABET)}
_SIZE = 35  # one byte of prefix, 32 of key, two of checksum


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(b"SS58PRE" + payload, digest_size=64).digest()[:2]


@lru_cache(maxsize=1 << 16)  # neurons stay the same from block to block
def encode(public_key: bytes) -> str:
    """The address of a public key of 32 bytes. Raises ValueError for another length."""
    if len(public_key) != 32:
        raise ValueError(f"a public key has 32 bytes, not {len(public_key)}")
    payload = bytes([PREFIX]) + public_key
    number = int.from_bytes(payload + _checksum(payload), "big")
    letters = []
    while number:
        number, rest = divmod(number, 58)
        letters.append(_ALPHABET[rest])
    return "".join(reversed(letters))


@lru_cache(maxsize=1 << 16)
def decode(address: str) -> bytes:
    """The public key (32 bytes) of an address of prefix 42. Raises ValueError, which says why, for anything else."""
    if address.startswith("0x"):
        raise ValueError("a public key in hexadecimal is no address: give the ss58 address, as 5F3sa2TJ...")
    if not 46 <= len(address) <= 48:
        raise ValueError(f"an ss58 address of Bittensor has 46 to 48 letters, this has {len(address)}")
    number = 0
    for letter in address:
        if letter not in _VALUE:
            raise ValueError(f"an ss58 address holds only base58 letters, not {letter!r}")
        number = number * 58 + _VALUE[letter]
    if number >> (8 * _SIZE):
        raise ValueError("an ss58 address of Bittensor holds 35 bytes")
    raw = number.to_bytes(_SIZE, "big")
    if raw[0] != PREFIX:
        raise ValueError(f"an ss58 address of Bittensor has the prefix {PREFIX}, not {raw[0]}: is it of another chain?")
    if _checksum(raw[:33]) != raw[33:]:
        raise ValueError("the checksum of the ss58 address is wrong: is a letter mistyped?")
    return raw[1:33]
