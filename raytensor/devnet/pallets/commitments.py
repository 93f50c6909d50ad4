"""Commitments (18): small data that a hotkey publishes on a subnet.

In: set_commitment by a registered hotkey. Out: `CommitmentOf` and the space used in the epoch; timelocked fields are
decrypted when their pulse is on the chain and stored in `RevealedCommitments`.
Knows nothing of the data's meaning. Space and errors: pallet commitments (deposits are 0).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, Pallet, StorageMap, StorageValue, call
from raytensor.devnet.pallets.drand import PulseMissing
from raytensor.devnet.typedefs import declare_enum, declare_struct

MAX_FIELDS = 3
MIN_SPACE = 100
KEPT_REVEALS = 10
ONE_SUBNET = [("Identity", "u16"), ("Twox64Concat", "AccountId32")]
_PATH = "pallet_commitments::types::"

declare_enum(
    "CommitmentData",
    {
        "None": 0,
        **{f"Raw{size}": (size + 1, f"[u8; {size}]") for size in range(129)},
        "BlakeTwo256": (130, "[u8; 32]"),
        "Sha256": (131, "[u8; 32]"),
        "Keccak256": (132, "[u8; 32]"),
        "ShaThree256": (133, "[u8; 32]"),
        "TimelockEncrypted": (134, {"encrypted": "BoundedVec<u8, 1024>", "reveal_round": "u64"}),
        "ResetBondsFlag": 135,
        "BigRaw": (136, "BoundedVec<u8, 512>"),
    },
    path=_PATH + "Data",
)
CommitmentInfo = declare_struct(
    "CommitmentInfo", {"fields": f"BoundedVec<CommitmentData, {MAX_FIELDS}>"}, path=_PATH + "CommitmentInfo"
)
Registration = declare_struct(
    "CommitmentRegistration", {"deposit": "u64", "block": "u32", "info": "CommitmentInfo"}, path=_PATH + "Registration"
)
UsageTracker = declare_struct("UsageTracker", {"last_epoch": "u64", "used_space": "u64"}, path=_PATH + "UsageTracker")


def _size(field) -> int:
    """Bytes of a field's content, without the tag, that count towards the space limit."""
    if isinstance(field, str):
        return 0
    kind, content = field
    return len(content.encrypted if kind == "TimelockEncrypted" else content)


class Commitments(Pallet):
    name, index = "Commitments", 18
    CommitmentOf = StorageMap(ONE_SUBNET, "CommitmentRegistration", optional=True)
    LastCommitment = StorageMap(ONE_SUBNET, "u32", optional=True)
    LastBondsReset = StorageMap(ONE_SUBNET, "u32", optional=True)
    RevealedCommitments = StorageMap(ONE_SUBNET, "Vec<(Vec<u8>, u64)>", optional=True)
    UsedSpaceOf = StorageMap(ONE_SUBNET, "UsageTracker", optional=True)
    TimelockedIndex = StorageValue("BTreeSet<(u16, AccountId32)>", default=())
    MaxSpace = StorageValue("u32", default=3_100)
    constants = {"MaxFields": ("u32", MAX_FIELDS), "InitialDeposit": ("u64", 0), "FieldDeposit": ("u64", 0)}
    events = {
        "Commitment": (0, {"netuid": "u16", "who": "AccountId32"}),
        "TimelockCommitment": (1, {"netuid": "u16", "who": "AccountId32", "reveal_round": "u64"}),
        "CommitmentRevealed": (2, {"netuid": "u16", "who": "AccountId32"}),
    }
    errors = """TooManyFieldsInCommitmentInfo AccountNotAllowedCommit SpaceLimitExceeded
        UnexpectedUnreserveLeftover TimelockRevealFailedNotAllowed""".split()

    @call(0, pays=False, weight=33_000_000 + 5 * 25_000_000 + 4 * 100_000_000)
    def set_commitment(self, origin: Origin, netuid: "u16", info: "CommitmentInfo"):
        who = origin.ensure_signed()
        module, block = self.runtime.SubtensorModule, self.runtime.block_number
        if module.Uids[netuid, who] is None:
            raise self.error("AccountNotAllowedCommit")
        if len(info.fields) > MAX_FIELDS:
            raise self.error("TooManyFieldsInCommitmentInfo")
        self._use_space(netuid, who, sum(map(_size, info.fields)))
        self.CommitmentOf[netuid, who] = Registration(0, block, info)
        self.LastCommitment[netuid, who] = block
        rounds = [field[1].reveal_round for field in info.fields if field[0] == "TimelockEncrypted"]
        if rounds:
            self._index((netuid, who), present=True)
            self.emit("TimelockCommitment", netuid, who, rounds[0])
        else:
            self._index((netuid, who), present=False)
            self.emit("Commitment", netuid, who)
        if "ResetBondsFlag" in info.fields:
            self.LastBondsReset[netuid, who] = block
            module.reset_bonds_toward(netuid, who)

    @call(2, weight=5_000_000)
    def set_max_space(self, origin: Origin, new_limit: "u32"):
        origin.ensure_root()
        self.MaxSpace.set(new_limit)

    def _use_space(self, netuid: int, who: bytes, size: int) -> None:
        """Count `size` (at least MIN_SPACE) bytes; SpaceLimitExceeded above MaxSpace per account and epoch."""
        epoch = self.runtime.SubtensorModule.SubnetEpochIndex[netuid]
        usage = self.UsedSpaceOf[netuid, who]
        used = usage.used_space if usage is not None and usage.last_epoch == epoch else 0
        used += max(MIN_SPACE, size)
        if used > self.MaxSpace.get():
            raise self.error("SpaceLimitExceeded")
        self.UsedSpaceOf[netuid, who] = UsageTracker(epoch, used)

    def _index(self, key: tuple[int, bytes], present: bool) -> None:
        known = set(self.TimelockedIndex.get())
        if (key in known) != present:
            self.TimelockedIndex.set(tuple(sorted(known | {key} if present else known - {key})))

    def purge(self, netuid: int) -> None:
        """Remove everything that was published on a subnet."""
        items = self.CommitmentOf, self.LastCommitment, self.LastBondsReset, self.RevealedCommitments, self.UsedSpaceOf
        for item in items:
            item.clear(netuid)
        self.TimelockedIndex.set(tuple(key for key in self.TimelockedIndex.get() if key[0] != netuid))

    def on_initialize(self, block: int) -> None:
        for netuid, who in self.TimelockedIndex.get():
            self._reveal(netuid, who, block)

    def _reveal(self, netuid: int, who: bytes, block: int) -> None:
        registration = self.CommitmentOf[netuid, who]
        if registration is None:
            self._index((netuid, who), present=False)
            return
        kept, opened, waits = [], [], False
        for field in registration.info.fields:
            if field[0] != "TimelockEncrypted":
                kept.append(field)
                continue
            try:
                plaintext = self.runtime.Drand.open_timelocked(field[1].encrypted, field[1].reveal_round)
            except PulseMissing:
                kept.append(field)
                waits = True
                continue
            if plaintext:
                opened.append((plaintext, block))
        if not kept:
            del self.CommitmentOf[netuid, who]
        elif len(kept) != len(registration.info.fields):
            self.CommitmentOf[netuid, who] = registration._replace(info=CommitmentInfo(tuple(kept)))
        if opened:
            known = self.RevealedCommitments[netuid, who] or ()
            self.RevealedCommitments[netuid, who] = (*known, *opened)[-KEPT_REVEALS:]
        for _ in opened:
            self.emit("CommitmentRevealed", netuid, who)
        if not waits:
            self._index((netuid, who), present=False)
