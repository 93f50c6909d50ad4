"""Reads SCALE bytes field by field: for results of runtime APIs, which metadata V14 does not describe.

In: bytes. Out: the next value, or a column of values as a numpy array. Raises ValueError or IndexError where the bytes
end too early. Knows nothing of any layout: the caller names one field after the other.
"""

import numpy as np

from raytensor.chain import ss58
from raytensor.chain.rpc.codec import decode_compact


class ScaleReader:
    """data: the bytes. at: position of the next value."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    @property
    def left(self) -> int:
        """Number of bytes that were not read yet."""
        return len(self.data) - self.at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > self.left:
            raise ValueError(f"{size} bytes at {self.at} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def byte(self) -> int:
        """u8, the number of an Option or of a variant."""
        return self.take(1)[0]

    def number(self, size: int) -> int:
        """An unsigned little-endian integer of `size` bytes."""
        return int.from_bytes(self.take(size), "little")

    def compact(self) -> int:
        """Compact<u*>."""
        value, self.at = decode_compact(self.data, self.at)
        return value

    def account(self) -> str:
        """AccountId32, as ss58."""
        return ss58.encode(self.take(32))

    def accounts(self) -> tuple[str, ...]:
        """Vec<AccountId32>, as ss58."""
        return tuple(self.account() for _ in range(self._count(32)))

    def array(self, dtype: np.dtype) -> np.ndarray:
        """Vec of structs of fixed size."""
        count = self._count(dtype.itemsize)
        return np.frombuffer(self.take(count * dtype.itemsize), dtype, count)

    def flags(self) -> np.ndarray:
        """Vec<bool>."""
        return self.array(np.dtype(np.uint8)).astype(bool)

    def compacts(self) -> np.ndarray:
        """Vec<Compact<u*>> as u64. Most elements take one or two bytes, which are decoded here without a call each."""
        count, data = self._count(1), self.data
        at, values = self.at, []
        for _ in range(count):
            first = data[at]
            mode = first & 3
            if mode == 0:
                values.append(first >> 2)
                at += 1
            elif mode == 1:
                values.append((first | data[at + 1] << 8) >> 2)
                at += 2
            else:
                value, at = decode_compact(data, at)
                values.append(value)
        self.at = at
        return np.array(values, np.uint64)

    def _count(self, smallest: int) -> int:
        count = self.compact()
        if count * smallest > self.left:
            raise ValueError(f"{count} elements in {self.left} bytes")
        return count
