"""SS58 addresses of 32-byte accounts with a one-byte prefix: Substrate's base58 with a blake2b checksum."""

from hashlib import blake2b

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)}


def _checksum(data: bytes) -> bytes:
    return blake2b(b"SS58PRE" + data, digest_size=64).digest()[:2]


def decode_account(address: str) -> bytes:
    """The 32-byte public key of an address. Raises ValueError with the reason for an invalid one."""
    number = 0
    for letter in address[:64]:
        if letter not in _VALUES:
            raise ValueError(f"{address!r:.80} is no SS58 address: {letter!r} is not base58")
        number = number * 58 + _VALUES[letter]
    if number >> (35 * 8):
        raise ValueError(f"{address!r:.80} is no SS58 address of a 32-byte account")
    data = number.to_bytes(35, "big")
    if _checksum(data[:33]) != data[33:] or len(address) > 64:
        raise ValueError(f"{address!r:.80} is no SS58 address: wrong checksum")
    return data[1:33]
