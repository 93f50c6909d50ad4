"""System (0): accounts, block numbers and hashes, events, remarks; and the runtime APIs Core, Metadata, AccountNonce.

In: calls, and the block's number, parent hash and digest from the runtime. Out: account records with nonces and
balances, `System.Events` of each block (encoded once, when the block is closed).
Knows nothing of the rules of balances (balances.py) or of validity (executive.py). Source of the types: frame_system.
"""

from __future__ import annotations

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Origin, Pallet, RuntimeApi, StorageMap, StorageValue, api, call
from raytensor.devnet.scale import Encoded, ScaleError, declare_enum, declare_newtype, declare_struct

NEW_LOGIC = 1 << 127  # AccountData flags of every account of a current pallet_balances
BLOCK_HASH_COUNT = 2400
MAX_BLOCK_LENGTH = 10 * 1024 * 1024
MAX_BLOCK_WEIGHT = 4 * 10**12  # picoseconds of ref_time
NORMAL_SHARE = 0.75
EXTRINSIC_BASE_WEIGHT = 108_157_000  # frame_support::weights::ExtrinsicBaseWeight
DB_READ, DB_WRITE = 25_000_000, 100_000_000  # RocksDbWeight
U64_MAX = (1 << 64) - 1

declare_newtype("ExtraFlags", "u128", "pallet_balances::types::ExtraFlags")
AccountData = declare_struct(
    "AccountData",
    {"free": "u64", "reserved": "u64", "frozen": "u64", "flags": "ExtraFlags"},
    "pallet_balances::types::AccountData",
    params=(("Balance", "u64"),),
)
AccountInfo = declare_struct(
    "AccountInfo",
    {"nonce": "u32", "consumers": "u32", "providers": "u32", "sufficients": "u32", "data": "AccountData"},
    "frame_system::AccountInfo",
    params=(("Nonce", "u32"), ("AccountData", "AccountData")),
)
Weight = declare_struct(
    "Weight", {"ref_time": "Compact<u64>", "proof_size": "Compact<u64>"}, "sp_weights::weight_v2::Weight"
)
declare_enum("DispatchClass", {"Normal": 0, "Operational": 1, "Mandatory": 2}, "frame_support::dispatch::DispatchClass")
declare_enum("Pays", {"Yes": 0, "No": 1}, "frame_support::dispatch::Pays")
DispatchEventInfo = declare_struct(
    "DispatchEventInfo",
    {"weight": "Weight", "class": "DispatchClass", "pays_fee": "Pays"},
    "frame_system::DispatchEventInfo",
)
ClassWeights = declare_struct(
    "WeightsPerClass",
    {"base_extrinsic": "Weight", **dict.fromkeys(("max_extrinsic", "max_total", "reserved"), "Option<Weight>")},
    "frame_system::limits::WeightsPerClass",
)
_PER_CLASS = "frame_support::dispatch::PerDispatchClass"


def _per_class(name: str, inner: str) -> type:
    fields = {"normal": inner, "operational": inner, "mandatory": inner}
    return declare_struct(name, fields, _PER_CLASS, params=(("T", inner),))


PerClassWeight = _per_class("PerClassWeight", "Weight")
PerClassLimits = _per_class("PerClassLimits", "WeightsPerClass")
PerClassLength = _per_class("PerClassLength", "u32")
BlockWeights = declare_struct(
    "BlockWeights",
    {"base_block": "Weight", "max_block": "Weight", "per_class": "PerClassLimits"},
    "frame_system::limits::BlockWeights",
)
BlockLength = declare_struct("BlockLength", {"max": "PerClassLength"}, "frame_system::limits::BlockLength")
DbWeight = declare_struct("RuntimeDbWeight", {"read": "u64", "write": "u64"}, "sp_weights::RuntimeDbWeight")
declare_enum(
    "DigestItem",
    {
        "PreRuntime": (6, ("[u8; 4]", "Vec<u8>")),
        "Consensus": (4, ("[u8; 4]", "Vec<u8>")),
        "Seal": (5, ("[u8; 4]", "Vec<u8>")),
        "Other": (0, "Vec<u8>"),
        "RuntimeEnvironmentUpdated": 8,
    },
    "sp_runtime::generic::digest::DigestItem",
)
Digest = declare_struct("Digest", {"logs": "Vec<DigestItem>"}, "sp_runtime::generic::digest::Digest")
RuntimeVersion = declare_struct(
    "RuntimeVersion",
    {
        "spec_name": "String",
        "impl_name": "String",
        "authoring_version": "u32",
        "spec_version": "u32",
        "impl_version": "u32",
        "apis": "Vec<([u8; 8], u32)>",
        "transaction_version": "u32",
        "system_version": "u8",
    },
    "sp_version::RuntimeVersion",
)
declare_newtype("OpaqueMetadata", "Vec<u8>", "sp_core::OpaqueMetadata")


def _limits() -> BlockWeights:
    def weight(ref_time: int) -> Weight:
        return Weight(ref_time, U64_MAX)

    base = Weight(EXTRINSIC_BASE_WEIGHT, 0)
    normal = int(MAX_BLOCK_WEIGHT * NORMAL_SHARE)
    block_base = 431_614_000  # BlockExecutionWeight
    reserve, block = Weight(MAX_BLOCK_WEIGHT - normal, 0), weight(MAX_BLOCK_WEIGHT)
    # An extrinsic may use the limit of its class, less 10 % of a block for the hooks and its own base weight.
    max_normal = weight(normal - MAX_BLOCK_WEIGHT // 10 - EXTRINSIC_BASE_WEIGHT)
    max_operational = weight(int(MAX_BLOCK_WEIGHT * 0.9) - EXTRINSIC_BASE_WEIGHT)
    normal_class = ClassWeights(base, max_normal, weight(normal), Weight(0, 0))
    operational_class = ClassWeights(base, max_operational, block, reserve)
    limits = PerClassLimits(normal_class, operational_class, ClassWeights(base, None, None, None))
    return BlockWeights(Weight(block_base, 0), block, limits)


class System(Pallet):
    name, index, crate = "System", 0, "frame_system"
    _no_account = AccountInfo(0, 0, 0, 0, AccountData(0, 0, 0, NEW_LOGIC))
    Account = StorageMap([("Blake2_128Concat", "AccountId32")], "AccountInfo", default=_no_account)
    BlockWeight = StorageValue("PerClassWeight")
    BlockHash = StorageMap([("Twox64Concat", "u32")], "H256")
    Number = StorageValue("u32")
    ParentHash = StorageValue("H256")
    Digest = StorageValue("Digest")
    Events = StorageValue("Vec<EventRecord>")
    EventCount = StorageValue("u32")

    constants = {
        "BlockWeights": ("BlockWeights", _limits()),
        "BlockLength": (
            "BlockLength",
            BlockLength(PerClassLength(int(MAX_BLOCK_LENGTH * NORMAL_SHARE), MAX_BLOCK_LENGTH, MAX_BLOCK_LENGTH)),
        ),
        "BlockHashCount": ("u32", BLOCK_HASH_COUNT),
        "DbWeight": ("RuntimeDbWeight", DbWeight(DB_READ, DB_WRITE)),
        "SS58Prefix": ("u16", 42),
    }
    events = {
        "ExtrinsicSuccess": (0, {"dispatch_info": "DispatchEventInfo"}),
        "ExtrinsicFailed": (1, {"dispatch_error": "DispatchError", "dispatch_info": "DispatchEventInfo"}),
        "CodeUpdated": (2, ()),
        "NewAccount": (3, {"account": "AccountId32"}),
        "KilledAccount": (4, {"account": "AccountId32"}),
        "Remarked": (5, {"sender": "AccountId32", "hash": "H256"}),
    }
    errors = """InvalidSpecName SpecVersionNeedsToIncrease FailedToExtractRuntimeVersion NonDefaultComposite
        NonZeroRefCount CallFiltered MultiBlockMigrationsOngoing NothingAuthorized Unauthorized""".split()

    def on_initialize(self, block: int) -> None:
        runtime = self.runtime
        self.Number.set(block)
        self.ParentHash.set(runtime.parent_hash)
        self.BlockHash[block - 1] = runtime.parent_hash
        del self.BlockHash[block - 1 - BLOCK_HASH_COUNT]
        self.Digest.set(Digest(runtime.digest_logs))

    def close_block(self) -> None:
        """The last writes of a block: its events and its weight. Runs after every other hook."""
        events = self.runtime.events
        self.Events.set(Encoded(self.Events.codec.encode(events)))
        self.EventCount.set(len(events))
        used = self.runtime.used_weight
        weights = [Weight(used[name], 0) for name in ("Normal", "Operational", "Mandatory")]
        self.BlockWeight.set(PerClassWeight(*weights))

    @call(0, weight=lambda pallet, args: 2_000_000 + 400 * len(args[0]))
    def remark(self, origin: Origin, remark: "Vec<u8>"):
        pass

    @call(4, weight=lambda pallet, args: DB_WRITE * max(len(args[0]), 1), operational=True)
    def set_storage(self, origin: Origin, items: "Vec<(Vec<u8>, Vec<u8>)>"):
        origin.ensure_root()
        for key, value in items:
            try:
                self.runtime.store.write_raw(key, value)
            except ScaleError:
                raise self.error("NonDefaultComposite") from None

    @call(7, weight=lambda pallet, args: 6_000_000 + 1_800 * len(args[0]))
    def remark_with_event(self, origin: Origin, remark: "Vec<u8>"):
        self.emit("Remarked", origin.ensure_signed(), blake2_256(remark))

    def inc_nonce(self, who: bytes) -> None:
        nonce, consumers, providers, sufficients, data = self.Account[who]
        self.Account[who] = AccountInfo(nonce + 1, consumers, providers, sufficients, data)


class Core(RuntimeApi):
    name, api_version = "Core", 5

    @api("RuntimeVersion")
    def version(self):
        return self.runtime.upgrades.version(self.runtime.block_number)


class Metadata(RuntimeApi):
    name, api_version = "Metadata", 2

    @api("OpaqueMetadata")
    def metadata(self):
        return self.runtime.upgrades.metadata(14, self.runtime.block_number)

    @api("Option<OpaqueMetadata>")
    def metadata_at_version(self, version: "u32"):
        if version not in (14, 15):
            return None
        return self.runtime.upgrades.metadata(version, self.runtime.block_number)

    @api("Vec<u32>")
    def metadata_versions(self):
        return (14, 15)


class AccountNonceApi(RuntimeApi):
    name = "AccountNonceApi"

    @api("u32")
    def account_nonce(self, account: "AccountId32"):
        return self.runtime.System.Account[account].nonce
