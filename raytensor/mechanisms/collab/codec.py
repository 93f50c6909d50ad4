"""Pseudo-gradients on the wire: top-k of each chunk, two bits a value, error feedback.

In: a flat float32 vector. Out: a payload of bytes, and the vector that a payload encodes. Pure numpy.

The vector is cut into chunks of 4,096. Of each chunk the k largest magnitudes are sent: their places (12 bits each) and
a code of two bits (the sign, and which of the chunk's two levels). What was not sent stays in the sender's residual and
is sent later: SparseLoCo (arXiv 2508.15706) as Templar runs it, with the codes packed, four to a byte.

Payloads come from strangers: any but safetensors of known names, types and sizes is refused with the reason.
"""

import json
import struct
from dataclasses import dataclass

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

CHUNK = 4096  # places fit 12 bits
_PLACE_BITS = np.arange(11, -1, -1)
_HEADER_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Sparse:
    """The decoded payload: `values` float32 at the `places` (int64, ascending, distinct) of a vector of `size`."""

    size: int
    places: np.ndarray
    values: np.ndarray

    def dense(self) -> np.ndarray:
        """float32 [size], zero at the other places."""
        out = np.zeros(self.size, np.float32)
        out[self.places] = self.values
        return out


@dataclass(frozen=True, slots=True)
class Codec:
    """k: values sent of each chunk of 4,096 (of a shorter last chunk its share); 0 sends all as float32."""

    k: int = 512

    def __post_init__(self) -> None:
        if not 0 <= self.k <= CHUNK:
            allowed = f"of which 1 to {CHUNK} can be sent; 0 sends all, uncompressed"
            raise ValueError(f"k={self.k}: a chunk has {CHUNK} values, {allowed}")

    def counts(self, size: int) -> np.ndarray:
        """int64: values that each chunk of a vector of `size` sends."""
        lengths = np.full(-(-size // CHUNK), CHUNK)
        lengths[-1] = size - CHUNK * (len(lengths) - 1)
        return np.maximum(1, lengths * self.k // CHUNK)

    def max_bytes(self, size: int) -> int:
        """Bytes of the largest valid payload."""
        if self.k == 0:
            return 4 * size + _HEADER_BYTES
        total = int(self.counts(size).sum())
        return -(-total * 12 // 8) + -(-total * 2 // 8) + 4 * len(self.counts(size)) + _HEADER_BYTES

    def encode(self, vector: np.ndarray) -> bytes:
        """The payload of float32 [size]. Raises ValueError for a vector that is not finite."""
        if not np.isfinite(vector).all():
            raise ValueError("the update is not finite: it can't be sent")
        if self.k == 0:
            return save({"dense": np.ascontiguousarray(vector, np.float32)})
        places, high, levels = [], [], []
        for start, count in zip(range(0, len(vector), CHUNK), self.counts(len(vector))):
            chunk = vector[start : start + CHUNK]
            magnitude = np.abs(chunk)
            # Stable sort: equal vectors give equal payloads on every machine.
            top = np.sort(np.argsort(-magnitude, kind="stable")[:count])
            above, pair = _two_levels(magnitude[top])
            places.append(top)
            high.append(above)
            levels.append(pair)
        at = np.concatenate(places)
        starts = np.repeat(np.arange(len(levels)) * CHUNK, [len(found) for found in places])
        bits = ((at[:, None] >> _PLACE_BITS) & 1).astype(np.uint8)
        codes = np.stack([vector[starts + at] < 0, np.concatenate(high)], axis=1).astype(np.uint8)
        return save({"p": np.packbits(bits), "c": np.packbits(codes), "l": np.array(levels, np.float16)})

    def decode(self, payload: bytes, size: int) -> Sparse:
        """Decodes the payload of a vector of `size`. Raises ValueError with the reason for any other bytes."""
        if len(payload) > self.max_bytes(size):
            raise ValueError(f"{len(payload)} bytes are more than the {self.max_bytes(size)} that an update can have")
        wanted = self._shapes(size)
        _check_header(payload, wanted)
        try:
            found = load(payload)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"not safetensors: {error}") from error
        if self.k == 0:
            values = found["dense"]
            places = np.arange(size)
        else:
            places, values = self._unpack(found, size)
        if not np.isfinite(values).all():
            raise ValueError("a value is not finite")
        return Sparse(size, places, values)

    def _shapes(self, size: int) -> dict[str, tuple[str, list[int]]]:
        if self.k == 0:
            return {"dense": ("F32", [size])}
        total, chunks = int(self.counts(size).sum()), len(self.counts(size))
        return {"p": ("U8", [-(-total * 12 // 8)]), "c": ("U8", [-(-total * 2 // 8)]), "l": ("F16", [chunks, 2])}

    def _unpack(self, found: dict[str, np.ndarray], size: int) -> tuple[np.ndarray, np.ndarray]:
        counts = self.counts(size)
        total = int(counts.sum())
        bits = np.unpackbits(found["p"])[: total * 12].reshape(total, 12)
        at = bits.astype(np.int64) @ (1 << _PLACE_BITS)
        owner = np.repeat(np.arange(len(counts)), counts)
        places = owner * CHUNK + at
        if (np.diff(places) <= 0).any() or places[-1] >= size:
            raise ValueError("the places are not ascending, or lie outside the vector")
        codes = np.unpackbits(found["c"])[: total * 2].reshape(total, 2)
        levels = found["l"].astype(np.float32)
        if (levels < 0).any():
            raise ValueError("a level is negative: the sign is in the code")
        values = levels[owner, codes[:, 1]]
        return places, np.where(codes[:, 0] == 1, -values, values)


class Feedback:
    """Error feedback of a sender: the part of its updates that payloads did not carry. decay: 0.95 in Templar.

    The sum of what was sent and the residual is the decayed sum of all updates, up to float32 rounding.
    """

    def __init__(self, codec: Codec, size: int, decay: float = 0.95) -> None:
        self.codec = codec
        self.decay = decay
        self.residual = np.zeros(size, np.float32)

    def send(self, update: np.ndarray) -> bytes:
        """The payload of this update plus the residual."""
        total = self.decay * self.residual + update
        payload = self.codec.encode(total)
        sent = self.codec.decode(payload, len(total))
        total[sent.places] -= sent.values
        self.residual = total
        return payload


def _two_levels(magnitudes: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Which magnitudes belong to the upper of two levels, and both levels: Lloyd's iteration from the mean."""
    cut = low = high = magnitudes.mean()
    for _ in range(8):
        above = magnitudes > cut
        low = magnitudes[~above].mean() if not above.all() else cut
        high = magnitudes[above].mean() if above.any() else low
        if (low + high) / 2 == cut:
            break
        cut = (low + high) / 2
    above = magnitudes > cut
    return above, (float(low), float(high))


def _check_header(payload: bytes, wanted: dict[str, tuple[str, list[int]]]) -> None:
    """Refuses anything but the tensors `wanted` {name: (dtype, shape)} before a byte of them is read."""
    if len(payload) < 8 or struct.unpack("<Q", payload[:8])[0] > min(_HEADER_BYTES, len(payload) - 8):
        raise ValueError("not safetensors: the header does not fit")
    try:
        header = json.loads(payload[8 : 8 + struct.unpack("<Q", payload[:8])[0]])
        there = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"not safetensors: the header can't be read ({type(error).__name__})") from error
    if there != wanted:
        raise ValueError(f"the tensors are {there}, not {wanted}")
