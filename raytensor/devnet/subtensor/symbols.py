"""Token symbols of subnets, by netuid: tau for root, then alphabets. UTF-8 bytes.

Greek symbols have the chain's order (subnets/symbols.rs), the other alphabets Unicode's.
"""

from __future__ import annotations

_GREEK = "αβγδεζηθικλμνξοπρσtυφχψω"
_RANGES = (
    (0x05D0, 0x05EA),  # Hebrew
    (0x0627, 0x063A),  # Arabic
    (0x16A0, 0x16D6),  # runes
    (0x1681, 0x169A),  # Ogham
    (0x10D0, 0x10F0),  # Georgian
    (0x0561, 0x0586),  # Armenian
    (0x0430, 0x044F),  # Cyrillic
    (0x2C80, 0x2CE3),  # Coptic
)
SYMBOLS: tuple[bytes, ...] = tuple(
    symbol.encode()
    for symbol in ("\U0001d70f", *_GREEK, *(chr(c) for first, last in _RANGES for c in range(first, last + 1)))
)
assert len(set(SYMBOLS)) == len(SYMBOLS)
