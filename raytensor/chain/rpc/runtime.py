"""One version of a chain's runtime, described by its metadata: storage, calls, events, errors, signing.

In: decoded metadata V14 (by substrate-interface) with the spec and transaction versions. Out: storage keys and values,
encoded calls, signed extrinsics and error names. Everything is looked up by name, so that it works on any
runtime that has these names. Knows nothing of connections.
Formats: FRAME metadata V14, extrinsic format 4, `sp_runtime::generic::Era`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from substrateinterface.utils.hasher import blake2_128, blake2_128_concat, blake2_256, identity, two_x64_concat, xxh128

from raytensor.chain.calls import Call
from raytensor.chain.rpc.codec import Codec, decode_compact, encode_compact
from raytensor.chain.wallet import Signer
from raytensor.errors import ChainError

_HASHERS = {
    "Identity": identity,
    "Twox64Concat": two_x64_concat,
    "Blake2_128Concat": blake2_128_concat,
    "Blake2_128": blake2_128,
    "Blake2_256": blake2_256,
    "Twox128": xxh128,
}
_KEY_OFFSET = {"Identity": 0, "Twox64Concat": 8, "Blake2_128Concat": 16}  # bytes of hash before the key itself


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage item; a plain value has no keys. `default`: the encoded value of an absent key, None if it has none."""

    pallet: str
    name: str
    prefix: bytes
    keys: tuple[int, ...]
    hashers: tuple[str, ...]
    value: int
    default: bytes | None


@dataclass(frozen=True, slots=True)
class Era:
    """The blocks n in which an extrinsic is valid: birth < n <= death; without end if `death` is None."""

    birth: int = 0
    death: int | None = None

    @classmethod
    def mortal(cls, birth: int, period: int) -> Era:
        """An era of `period` blocks (rounded up to a power of two, 4 to 4096) after block `birth`."""
        period = 1 << max(2, min(12, (period - 1).bit_length()))
        return cls(birth, birth + period - 1)

    def encode(self) -> bytes:
        if self.death is None:
            return b"\0"
        period = self.death - self.birth + 1
        phase = self.birth % period
        return (min(15, max(1, period.bit_length() - 2)) | phase << 4).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Signed:
    """A signed extrinsic: its length-prefixed bytes, and their blake2-256 hash ("0x...")."""

    data: bytes
    hash: str


def extrinsic_hash(data: bytes) -> str:
    return "0x" + hashlib.blake2b(data, digest_size=32).hexdigest()


def signer_of(data: bytes) -> bytes | None:
    """The 32 bytes of the account that signed an extrinsic (format 4, MultiAddress::Id); None for any other."""
    _, at = decode_compact(data, 0)
    return data[at + 2 : at + 34] if data[at : at + 2] == b"\x84\0" else None


class Runtime:
    """One runtime version. metadata: the value of substrate-interface's decoded `MetadataVersioned`."""

    def __init__(self, metadata: Sequence, spec_version: int, transaction_version: int) -> None:
        versioned = metadata[1]
        if "V14" not in versioned:
            raise ChainError(f"metadata {', '.join(versioned)}: only V14 is supported")
        body = versioned["V14"]
        self.spec_version = spec_version
        self.transaction_version = transaction_version
        self.codec = Codec({t["id"]: t["type"] for t in body["types"]["types"]})
        self._pallets = {pallet["name"]: pallet for pallet in body["pallets"]}
        self._by_index = {pallet["index"]: pallet for pallet in body["pallets"]}
        self._storage: dict[tuple[str, str], Storage] = {}
        extrinsic = body["extrinsic"]
        if extrinsic["version"] != 4:
            raise ChainError(f"extrinsic format {extrinsic['version']}: only 4 is supported")
        self._extensions = extrinsic["signed_extensions"]
        self._call_type = next(t["id"] for t in body["types"]["types"] if t["type"]["path"][-1:] == ["RuntimeCall"])

    def storage(self, pallet: str, name: str) -> Storage:
        """The storage item. Raises ChainError if this runtime has none of that name."""
        if (pallet, name) not in self._storage:
            self._storage[pallet, name] = self._find_storage(pallet, name)
        return self._storage[pallet, name]

    def has_storage(self, pallet: str, name: str) -> bool:
        entry = self._pallets.get(pallet, {}).get("storage")
        return bool(entry) and any(e["name"] == name for e in entry["entries"])

    def has_call(self, module: str, function: str) -> bool:
        calls = self._pallets.get(module, {}).get("calls")
        return bool(calls) and any(v["name"] == function for v in self.codec.variants(calls["ty"]).values())

    def call_names(self, module: str) -> list[str]:
        """The names of a pallet's calls, by index."""
        calls = self._pallet(module)["calls"]
        return [variant["name"] for variant in self.codec.variants(calls["ty"]).values()] if calls else []

    def call_types(self, module: str, function: str) -> dict[str, int]:
        """The type ids of a call's arguments by name, in order. Raises ChainError if the runtime has no such call."""
        calls = self._pallet(module)["calls"]
        for variant in self.codec.variants(calls["ty"]).values() if calls else ():
            if variant["name"] == function:
                return {field["name"]: field["type"] for field in variant["fields"]}
        raise ChainError(f"runtime {self.spec_version} has no call {module}.{function}")

    def storage_names(self, pallet: str) -> list[str]:
        """The names of a pallet's storage items."""
        storage = self._pallet(pallet)["storage"]
        return [entry["name"] for entry in storage["entries"]] if storage else []

    def call_fields(self, module: str, function: str) -> list[str]:
        """The names of a call's arguments, in order. Raises ChainError if the runtime has no such call."""
        return list(self.call_types(module, function))

    def constant(self, pallet: str, name: str) -> Any:
        """The value of a runtime constant. Raises ChainError if there is none of that name."""
        for constant in self._pallet(pallet)["constants"]:
            if constant["name"] == name:
                return self.codec.decode(constant["type"], _raw(constant["value"]))
        raise ChainError(f"runtime {self.spec_version} has no constant {pallet}.{name}")

    def module_error(self, pallet_index: int, error_index: int) -> str:
        """The name of a module error; "Module<p>Error<e>" if the metadata has none."""
        error = self._by_index.get(pallet_index, {}).get("error")
        variant = self.codec.variants(error["ty"]).get(error_index) if error else None
        return variant["name"] if variant else f"Module{pallet_index}Error{error_index}"

    @property
    def pallets(self) -> tuple[str, ...]:
        return tuple(self._pallets)

    def error_names(self, pallet: str) -> list[str]:
        """The names of a pallet's errors, by index."""
        error = self._pallet(pallet)["error"]
        return [variant["name"] for variant in self.codec.variants(error["ty"]).values()] if error else []

    def key(self, item: Storage, params: Sequence[Any] = ()) -> bytes:
        """The storage key. With fewer parameters than the item has keys: the common prefix of those keys."""
        parts = [item.prefix]
        for value, type_id, hasher in zip(params, item.keys, item.hashers):
            parts.append(bytes(_HASHERS[hasher](self.codec.encode(type_id, value))))
        return b"".join(parts)

    def key_params(self, item: Storage, key: bytes, known: int = 0) -> tuple[Any, ...]:
        """The parameters after the first `known` ones, decoded from a storage key; ChainError for opaque hashers."""
        at, found = len(item.prefix), []
        for index, (type_id, hasher) in enumerate(zip(item.keys, item.hashers)):
            if hasher not in _KEY_OFFSET:
                raise ChainError(f"{item.pallet}.{item.name}: keys hashed by {hasher} can't be read back")
            value, at = self.codec.decode_at(type_id, key, at + _KEY_OFFSET[hasher])
            if index >= known:
                found.append(value)
        return tuple(found)

    def value(self, item: Storage, raw: bytes | None) -> Any:
        """The decoded value; the item's default if it is absent. Raises ChainError for bytes of another layout."""
        raw = item.default if raw is None else raw
        try:
            return None if raw is None else self.codec.decode(item.value, raw)
        except ValueError as error:
            raise self._unreadable(item, error) from error

    def array(self, item: Storage, raw: bytes | None) -> np.ndarray:
        """The value of a Vec of numbers or bool, as an array. Raises ChainError for bytes of another layout."""
        raw = item.default if raw is None else raw
        try:
            return self.codec.array(item.value, b"\0" if raw is None else raw)
        except (ValueError, IndexError, KeyError) as error:
            raise self._unreadable(item, error) from error

    def _unreadable(self, item: Storage, error: Exception) -> ChainError:
        return ChainError(f"{item.pallet}.{item.name} can't be decoded by runtime {self.spec_version}: {error}")

    def encode_call(self, call: Call) -> bytes:
        """The encoded call. Raises ChainError if the runtime lacks the call or its arguments do not fit."""
        try:
            return self.codec.encode(self._call_type, call)
        except ValueError as error:
            raise ChainError(f"{call.name} does not fit runtime {self.spec_version}: {error}") from error

    def call_of(self, data: bytes) -> Call | None:
        """The call of a signed extrinsic (format 4), calls among its arguments included; None if it can't be read
        by this runtime. Accounts stay as they are decoded, as {"Id": "5..."} where the chain takes a MultiAddress."""
        try:
            _, at = decode_compact(data, 0)
            at += 2 + 32  # format and kind of address; account
            at += 1 + (65 if data[at] == 2 else 64)  # kind of signature; signature (ecdsa has 65 bytes)
            for extension in self._extensions:
                at = self.codec.decode_at(extension["ty"], data, at)[1]
            value, end = self.codec.decode_at(self._call_type, data, at)
            return self._call(value) if end == len(data) else None
        except (ValueError, KeyError, IndexError, TypeError, ChainError, RecursionError):  # calls may be nested at will
            return None

    def _call(self, value: dict[str, Any]) -> Call:
        ((module, inner),) = value.items()
        if isinstance(inner, str):
            return Call(module, inner)
        ((function, args),) = inner.items()
        types = self.call_types(module, function)
        return Call(module, function, {name: self._argument(types[name], arg) for name, arg in args.items()})

    def _argument(self, type_id: int, value: Any) -> Any:
        if type_id == self._call_type:
            return self._call(value)
        kind = self.codec.definition(type_id)["def"]
        if kind.get("sequence", {}).get("type") == self._call_type:
            return [self._call(one) for one in value]
        return value

    def sign(
        self, call: bytes, signer: Signer, *, nonce: int, era: Era, genesis: str, birth_hash: str, tip: int = 0
    ) -> Signed:
        """A signed extrinsic. genesis, birth_hash: "0x" hashes of block 0 and of the era's first block."""
        extra, additional = self._extensions_of(nonce, era, genesis, birth_hash, tip)
        payload = call + extra + additional
        if len(payload) > 256:
            payload = hashlib.blake2b(payload, digest_size=32).digest()
        return self._signed(call, signer.public_key, signer.crypto_type, signer.sign(payload), extra)

    def unsigned_like(self, call: bytes, public_key: bytes, nonce: int = 0) -> Signed:
        """A mortal extrinsic with a signature of zeros, for fees: of the length of the one that is sent."""
        extra, _ = self._extensions_of(nonce, Era.mortal(0, 64), "0x" + "00" * 32, "0x" + "00" * 32, 0)
        return self._signed(call, public_key, 1, bytes(64), extra)

    def _signed(self, call: bytes, public_key: bytes, crypto_type: int, signature: bytes, extra: bytes) -> Signed:
        # 0x84: format 4, signed; then MultiAddress::Id and MultiSignature.
        body = b"\x84\0" + public_key + bytes((crypto_type,)) + signature + extra + call
        data = encode_compact(len(body)) + body
        return Signed(data, extrinsic_hash(data))

    def _extensions_of(self, nonce: int, era: Era, genesis: str, birth_hash: str, tip: int) -> tuple[bytes, bytes]:
        """Bytes that the signed extensions add to the extrinsic, and those that are only signed."""
        extra, additional = [], []
        for extension in self._extensions:
            name = extension["identifier"]
            if name in ("CheckMortality", "CheckEra"):
                extra.append(era.encode())
                additional.append(_raw(birth_hash))
            elif name == "CheckNonce":
                extra.append(encode_compact(nonce))
            elif name == "ChargeTransactionPayment":
                extra.append(encode_compact(tip))
            elif name == "CheckMetadataHash":
                extra.append(b"\0")
                additional.append(b"\0")
            elif name == "CheckSpecVersion":
                additional.append(self.spec_version.to_bytes(4, "little"))
            elif name == "CheckTxVersion":
                additional.append(self.transaction_version.to_bytes(4, "little"))
            elif name == "CheckGenesis":
                additional.append(_raw(genesis))
            elif not self._empty(extension["ty"]) or not self._empty(extension["additional_signed"]):
                raise ChainError(f"runtime {self.spec_version} needs the unknown signed extension {name}")
        return b"".join(extra), b"".join(additional)

    def _empty(self, type_id: int) -> bool:
        try:
            return self.codec.decode_at(type_id, b"", 0)[1] == 0
        except ValueError:
            return False

    def _pallet(self, name: str) -> dict:
        if name not in self._pallets:
            raise ChainError(f"runtime {self.spec_version} has no pallet {name}: it has {', '.join(self._pallets)}")
        return self._pallets[name]

    def _find_storage(self, pallet: str, name: str) -> Storage:
        storage = self._pallet(pallet)["storage"]
        entry = next((e for e in storage["entries"] if e["name"] == name), None) if storage else None
        if entry is None:
            raise ChainError(f"runtime {self.spec_version} has no storage {pallet}.{name}")
        ((kind, detail),) = entry["type"].items()
        keys, hashers, value = (), (), detail
        if kind == "Map":
            hashers, value = tuple(detail["hashers"]), detail["value"]
            keys = (detail["key"],) if len(hashers) == 1 else self.codec.parts(detail["key"])
        prefix = bytes(xxh128(storage["prefix"].encode()) + xxh128(name.encode()))
        default = _raw(entry["default"]) if entry["modifier"] == "Default" else None
        return Storage(pallet, name, prefix, keys, hashers, value, default)


def _raw(value: str | bytes) -> bytes:
    """Undo scalecodec's rendering of bytes: text if they are valid UTF-8, else "0x..."."""
    if isinstance(value, bytes):
        return value
    return bytes.fromhex(value[2:]) if value.startswith("0x") else value.encode()
