"""The runtime APIs of a chain, from its metadata V15; V14, which everything else reads, does not describe them.

In: the bytes of `Metadata_metadata_at_version(15)`. Out: methods with the types of their inputs and outputs, and the
codec of these types. Knows nothing of connections. Format: frame-metadata 15, scale-info 2.
"""

from dataclasses import dataclass
from typing import Any

from raytensor.chain.rpc.codec import Codec
from raytensor.chain.rpc.scale_reader import ScaleReader
from raytensor.errors import ChainError

_PRIMITIVES = (
    "bool",
    "char",
    "str",
    "u8",
    "u16",
    "u32",
    "u64",
    "u128",
    "u256",
    "i8",
    "i16",
    "i32",
    "i64",
    "i128",
    "i256",
)
VERSION = 15


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a runtime API. inputs: type ids by name, in order. docs: lines of documentation."""

    inputs: dict[str, int]
    output: int
    docs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Apis:
    """The methods by name of each API, and the codec of their types."""

    codec: Codec
    methods: dict[str, dict[str, Method]]


def read_apis(answer: bytes) -> Apis:
    """The APIs from the answer to `Metadata_metadata_at_version(15)`. Raises ChainError where the chain has no V15."""
    try:
        reader = ScaleReader(answer)
        if reader.byte() != 1:
            raise ChainError(f"this chain offers no metadata V{VERSION}, which describes its runtime APIs")
        reader.compact()  # length
        if reader.take(4) != b"meta" or reader.byte() != VERSION:
            raise ChainError(f"this chain's metadata V{VERSION} is of another format")
        types = {entry["id"]: entry for entry in _many(reader, _type)}
        _many(reader, _pallet)
        _extrinsic(reader)
        reader.compact()  # type of the runtime
        return Apis(Codec(types), dict(_many(reader, _api)))
    except (ValueError, IndexError) as error:
        raise ChainError(f"this chain's metadata V{VERSION} can't be read: {error}") from error


def _many(reader: ScaleReader, one: Any) -> list:
    return [one(reader) for _ in range(reader.compact())]


def _maybe(reader: ScaleReader, one: Any) -> Any:
    return one(reader) if reader.byte() else None


def _text(reader: ScaleReader) -> str:
    return reader.take(reader.compact()).decode()


def _id(reader: ScaleReader) -> int:
    return reader.compact()


def _bytes(reader: ScaleReader) -> bytes:
    return reader.take(reader.compact())


def _type(reader: ScaleReader) -> dict:
    number, path = reader.compact(), _many(reader, _text)
    _many(reader, lambda r: (_text(r), _maybe(r, _id)))  # type parameters
    definition = _definition(reader)
    _many(reader, _text)
    return {"id": number, "path": path, "def": definition}


def _definition(reader: ScaleReader) -> dict:
    kind = reader.byte()
    if kind == 0:
        return {"composite": {"fields": _many(reader, _field)}}
    if kind == 1:
        return {"variant": {"variants": _many(reader, _variant)}}
    if kind == 2:
        return {"sequence": {"type": reader.compact()}}
    if kind == 3:
        return {"array": {"len": reader.number(4), "type": reader.compact()}}
    if kind == 4:
        return {"tuple": _many(reader, _id)}
    if kind == 5:
        return {"primitive": _PRIMITIVES[reader.byte()]}
    if kind == 6:
        return {"compact": {"type": reader.compact()}}
    return {"bitsequence": {"store": reader.compact(), "order": reader.compact()}}


def _field(reader: ScaleReader) -> dict:
    field = {"name": _maybe(reader, _text), "type": reader.compact()}
    _maybe(reader, _text)  # name of the type
    _many(reader, _text)
    return field


def _variant(reader: ScaleReader) -> dict:
    variant = {"name": _text(reader), "fields": _many(reader, _field), "index": reader.byte()}
    _many(reader, _text)
    return variant


def _pallet(reader: ScaleReader) -> None:
    _text(reader)
    _maybe(reader, lambda r: (_text(r), _many(r, _storage_entry)))
    for _ in ("calls", "event"):
        _maybe(reader, _id)
    _many(reader, lambda r: (_text(r), r.compact(), _bytes(r), _many(r, _text)))  # constants
    _maybe(reader, _id)  # error
    reader.byte()  # index
    _many(reader, _text)


def _storage_entry(reader: ScaleReader) -> None:
    _text(reader)
    reader.byte()  # modifier
    if reader.byte() == 0:
        reader.compact()
    else:
        _many(reader, ScaleReader.byte)  # hashers
        reader.compact()
        reader.compact()
    _bytes(reader)
    _many(reader, _text)


def _extrinsic(reader: ScaleReader) -> None:
    reader.byte()  # version
    for _ in ("address", "call", "signature", "extra"):
        reader.compact()
    _many(reader, lambda r: (_text(r), r.compact(), r.compact()))


def _api(reader: ScaleReader) -> tuple[str, dict[str, Method]]:
    name, methods = _text(reader), dict(_many(reader, _method))
    _many(reader, _text)
    return name, methods


def _method(reader: ScaleReader) -> tuple[str, Method]:
    name, inputs = _text(reader), dict(_many(reader, lambda r: (_text(r), r.compact())))
    return name, Method(inputs, reader.compact(), tuple(_many(reader, _text)))
