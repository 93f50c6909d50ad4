"""SS58 addresses: text <-> the 32 bytes of a public key. The only place outside the devnet that reads or writes them.

Format: base58(prefix | 32 bytes of key | first 2 bytes of blake2b-512("SS58PRE" | prefix | key)), from the registry of
Substrate addresses. Bittensor's prefix is 42; other lengths and hexadecimal keys are refused, and other prefixes unless
the caller asks for one.
Knows nothing of signature schemes: sr25519 and ed25519 keys look alike.
"""

import hashlib
from functools import lru_cache

PREFIX = 42
_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VALUE = {letter: value for value, letter in enumerate(_ALPHABET)}
MAX_PREFIX = 16383  # two bytes from 64 on


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
def decode(address: str, prefix: int = PREFIX) -> bytes:
    """The public key (32 bytes) of an address of this prefix. Raises ValueError, which says why, for anything else."""
    lead = _lead(prefix)
    size = len(lead) + 34  # 32 bytes of key, two of checksum
    if address.startswith("0x"):
        raise ValueError("a public key in hexadecimal is no address: give the ss58 address, as 5F3sa2TJ...")
    longest = 47 + len(lead)
    if not longest - 2 <= len(address) <= longest:
        raise ValueError(f"an ss58 address of Bittensor has 46 to 48 letters, this has {len(address)}")
    number = 0
    for letter in address:
        if letter not in _VALUE:
            raise ValueError(f"an ss58 address holds only base58 letters, not {letter!r}")
        number = number * 58 + _VALUE[letter]
    if number >> (8 * size):
        raise ValueError(f"an ss58 address of Bittensor holds {size} bytes")
    raw = number.to_bytes(size, "big")
    if not raw.startswith(lead):
        raise ValueError(f"an ss58 address of Bittensor has the prefix {prefix}, not {raw[0]}: is it of another chain?")
    if _checksum(raw[:-2]) != raw[-2:]:
        raise ValueError("the checksum of the ss58 address is wrong: is a letter mistyped?")
    return raw[len(lead) : -2]


def _lead(prefix: int) -> bytes:
    """The bytes of a prefix: one below 64; else two, of 14 bits in the order of the registry's reference."""
    if prefix < 64:
        return bytes([prefix])
    return bytes([(prefix & 0b1111_1100) >> 2 | 0b0100_0000, prefix >> 8 | (prefix & 0b11) << 6])
