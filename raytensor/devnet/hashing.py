"""Substrate's hash functions and storage key hashers. In: bytes. Out: bytes. Knows nothing of storage."""

from hashlib import blake2b

import xxhash


def blake2_256(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def blake2_64(data: bytes) -> bytes:
    return blake2b(data, digest_size=8).digest()


def blake2_128(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def twox_64(data: bytes) -> bytes:
    """XxHash64 with seed 0, little endian (sp_core::hashing::twox_64)."""
    return xxhash.xxh64_intdigest(data).to_bytes(8, "little")


def twox_128(data: bytes) -> bytes:
    """XxHash64 with seeds 0 and 1, little endian (sp_core::hashing::twox_128)."""
    return twox_64(data) + xxhash.xxh64_intdigest(data, 1).to_bytes(8, "little")


# Hasher name -> (size of the hash in bytes, the hash). The key itself follows the hash.
HASHERS = {"Identity": (0, lambda data: b""), "Twox64Concat": (8, twox_64), "Blake2_128Concat": (16, blake2_128)}
