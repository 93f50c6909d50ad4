"""Drand (26): pulses of the randomness beacon, which decrypt timelocked commits.

In: pulses, the beacon's configuration. Out: storage (`Pulses`, `LastStoredRound`, `BeaconConfig`), and plaintexts for
other pallets. Knows nothing of weights or commitments.

At genesis `BeaconConfig` is the development beacon (beacon.py). With it, every block stores the pulses published up to
one block time before the block's time, at most MAX_PULSES; on the real chain an off-chain worker fetches pulses after
a block and the next block stores them. After `set_beacon_config` with another key only `write_pulse` adds pulses.
Source: pallets/drand of Subtensor.
"""

from __future__ import annotations

from raytensor.devnet.beacon import DevelopmentPulse, development_beacon, unseal, verify
from raytensor.devnet.extrinsic import verify_signature
from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call, Origin, Pallet, StorageMap, StorageValue, Unsigned, call
from raytensor.devnet.typedefs import declare_enum, declare_struct

MAX_PULSES = 50  # per block
KEPT_PULSES, MAX_REMOVED = 216_000, 100
PRIORITY = 10_000
LONGEVITY_BLOCKS = 3

SCHEMES = ("Ed25519", "Sr25519", "Ecdsa")  # in the order of MultiSignature
declare_enum(
    "MultiSigner",
    {"Ed25519": (0, "[u8; 32]"), "Sr25519": (1, "[u8; 32]"), "Ecdsa": (2, "[u8; 33]")},
    "sp_runtime::MultiSigner",
)
Pulse = declare_struct(
    "Pulse",
    {"round": "u64", "randomness": "BoundedVec<u8, 32>", "signature": "BoundedVec<u8, 144>"},
    path="pallet_drand::types::Pulse",
)
BeaconMetadata = declare_struct(
    "BeaconMetadata", {"beacon_id": "BoundedVec<u8, 32>"}, path="pallet_drand::types::Metadata"
)
BeaconConfiguration = declare_struct(
    "BeaconConfiguration",
    {
        "public_key": "BoundedVec<u8, 96>",
        "period": "u32",
        "genesis_time": "u32",
        "hash": "BoundedVec<u8, 32>",
        "group_hash": "BoundedVec<u8, 32>",
        "scheme_id": "BoundedVec<u8, 32>",
        "metadata": "BeaconMetadata",
    },
    path="pallet_drand::types::BeaconConfiguration",
)
declare_struct(
    "PulsesPayload",
    {"block_number": "u32", "pulses": "Vec<Pulse>", "public": "MultiSigner"},
    path="pallet_drand::types::PulsesPayload",
    params=(("Public", "MultiSigner"), ("BlockNumber", "u32")),
)
declare_struct(
    "BeaconConfigurationPayload",
    {"block_number": "u32", "config": "BeaconConfiguration", "public": "MultiSigner"},
    path="pallet_drand::types::BeaconConfigurationPayload",
    params=(("Public", "MultiSigner"), ("BlockNumber", "u32")),
)


def _development_config() -> BeaconConfiguration:
    beacon = development_beacon()
    digest = blake2_256(beacon.public_key)  # identifies the beacon; not used in a computation
    key, period, start = beacon.public_key, beacon.period_s, beacon.genesis_s
    scheme, metadata = b"bls-unchained-g1-rfc9380", BeaconMetadata(b"raytensor-devnet")
    return BeaconConfiguration(key, period, start, digest, digest, scheme, metadata)


class PulseMissing(Exception):
    """The chain does not have the round's pulse yet."""


class Drand(Pallet):
    name, index = "Drand", 26
    BeaconConfig = StorageValue("BeaconConfiguration")
    Pulses = StorageMap([("Blake2_128Concat", "u64")], "Pulse", optional=True)
    LastStoredRound = StorageValue("u64", default=0)
    OldestStoredRound = StorageValue("u64", default=0)
    NextUnsignedAt = StorageValue("u32", default=0)
    constants = {"UnsignedPriority": ("u64", PRIORITY), "HttpFetchTimeout": ("u64", 1_000)}
    events = {
        "BeaconConfigChanged": (0, ()),
        "NewPulse": (1, {"rounds": "Vec<u64>"}),
        "SetOldestStoredRound": (2, ("u64",)),
    }
    errors = """NoneValue StorageOverflow DrandConnectionFailure UnverifiedPulse InvalidRoundNumber
        PulseVerificationError""".split()

    def genesis(self, config: dict) -> None:
        self.BeaconConfig.set(_development_config())

    def on_initialize(self, block: int) -> None:
        beacon = development_beacon()
        if self.BeaconConfig.get().public_key != beacon.public_key:
            return
        newest = beacon.round_at((self.runtime.timestamp_ms - self.runtime.block_time_ms) / 1000)
        last = self.LastStoredRound.get() or newest - 1
        rounds = range(last + 1, min(newest, last + MAX_PULSES) + 1)
        if rounds and rounds[0] > 0:
            self._store([DevelopmentPulse(number) for number in rounds])

    def _store(self, pulses: list) -> None:
        first = not self.LastStoredRound.get() and not self.OldestStoredRound.get()
        for pulse in pulses:
            self.Pulses[pulse.round] = pulse
        self.LastStoredRound.set(pulses[-1].round)
        if first:
            self.OldestStoredRound.set(pulses[0].round)
        self._prune(pulses[-1].round)
        self.NextUnsignedAt.set(self.runtime.block_number)
        self.emit("NewPulse", tuple(pulse.round for pulse in pulses))

    def _prune(self, last: int) -> None:
        oldest = self.OldestStoredRound.get()
        if not oldest or last - oldest + 1 <= KEPT_PULSES:
            return
        kept_from = min(last - KEPT_PULSES + 1, oldest + MAX_REMOVED)
        for number in range(oldest, kept_from):
            del self.Pulses[number]
        self.OldestStoredRound.set(kept_from)

    @call(0, weight=4_294_000_000)
    def write_pulse(self, origin: Origin, pulses_payload: "PulsesPayload", signature: "Option<MultiSignature>"):
        origin.ensure_none()
        key, last, verified = self.BeaconConfig.get().public_key, self.LastStoredRound.get(), []
        for pulse in pulses_payload.pulses:
            try:
                genuine = verify(key, pulse.round, pulse.signature)
            except ValueError:
                raise self.error("PulseVerificationError") from None
            if genuine:
                if pulse.round <= last:
                    raise self.error("InvalidRoundNumber")
                last = pulse.round
                verified.append(pulse)
        if verified:
            self._store(verified)
        self.NextUnsignedAt.set(self.runtime.block_number)

    @call(1, weight=8_766_000, operational=True)
    def set_beacon_config(
        self, origin: Origin, config_payload: "BeaconConfigurationPayload", signature: "Option<MultiSignature>"
    ):
        origin.ensure_root()
        self.BeaconConfig.set(config_payload.config)
        self.NextUnsignedAt.set(self.runtime.block_number + 1)
        self.emit("BeaconConfigChanged")

    @call(2, weight=5_370_000, operational=True)
    def set_oldest_stored_round(self, origin: Origin, oldest_round: "u64"):
        origin.ensure_root()
        self.OldestStoredRound.set(oldest_round)
        self.emit("SetOldestStoredRound", oldest_round)

    def validate_unsigned(self, call: Call) -> Unsigned:
        """Accept a signed payload with one pulse that is newer than the last stored one, or with a configuration."""
        if call.name == "set_beacon_config":
            payload, rounds = call["config_payload"], None
        elif call.name == "write_pulse":
            payload, rounds = call["pulses_payload"], [pulse.round for pulse in call["pulses_payload"].pulses]
        else:
            return Unsigned(refusal="Call")
        if call["signature"] is None:
            return Unsigned(refusal="BadSigner")
        if not self._signed(call, payload):
            return Unsigned(refusal="BadProof")
        block = self.runtime.block_number
        if payload.block_number > block:
            return Unsigned(refusal="Future")
        if rounds is None:
            if self.NextUnsignedAt.get() > payload.block_number:
                return Unsigned(refusal="Stale")
            tag = self.runtime.codecs("(u32, MultiSigner)").encode((self.NextUnsignedAt.get(), payload.public))
            return Unsigned(PRIORITY, blake2_256(tag), 1)
        if len(rounds) != 1:
            return Unsigned(refusal="Call")
        if self.NextUnsignedAt.get() > block or rounds[0] <= self.LastStoredRound.get():
            return Unsigned(refusal="Stale")
        priority = min(PRIORITY + 2**64 - 1 - rounds[0], 2**64 - 1)
        return Unsigned(priority, blake2_256(b"drand" + rounds[0].to_bytes(8, "little")), LONGEVITY_BLOCKS)

    def _signed(self, call: Call, payload) -> bool:
        scheme, signature = call["signature"]
        signer_scheme, key = payload.public
        message = self.runtime.codecs(list(call.spec.args.values())[0]).encode(payload)
        return scheme == signer_scheme and verify_signature(SCHEMES.index(scheme), signature, message, key)

    def open_timelocked(self, ciphertext: bytes, reveal_round: int) -> bytes | None:
        """The plaintext; None if it cannot be decrypted. Raises PulseMissing while the round has no pulse."""
        pulse = self.Pulses[reveal_round]
        if pulse is None:
            raise PulseMissing(reveal_round)
        return unseal(ciphertext, pulse.signature)
