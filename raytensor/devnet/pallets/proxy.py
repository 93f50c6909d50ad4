"""Proxy (16): accounts that dispatch calls for other accounts, with types, delays and announcements.

In: calls of a delegate or of the real account. Out: the inner call, dispatched by the real account; deposits. The error
of an inner call is only in `ProxyExecuted`; the extrinsic itself succeeds.
Knows nothing of the calls that a type allows (proxy_types.py). Source: pallet_subtensor_proxy.
"""

from __future__ import annotations

from raytensor.devnet.hashing import blake2_256
from raytensor.devnet.pallet import Call, DispatchError, Origin, Pallet, StorageMap, call
from raytensor.devnet.pallets.proxy_types import admits, covers
from raytensor.devnet.scale import declare_enum, declare_struct

MAX_PROXIES, MAX_PENDING = 20, 75
DEPOSIT_BASE, DEPOSIT_FACTOR = 28_000_000, 33_000_000  # rao: one item of 8 bytes; 33 bytes per proxy
ANNOUNCEMENT_BASE, ANNOUNCEMENT_FACTOR = 28_000_000, 68_000_000

ProxyDefinition = declare_struct(
    "ProxyDefinition",
    {"delegate": "AccountId32", "proxy_type": "ProxyType", "delay": "u32"},
    "pallet_subtensor_proxy::ProxyDefinition",
    params=(("AccountId", "AccountId32"), ("ProxyType", "ProxyType"), ("BlockNumber", "u32")),
)
Announcement = declare_struct(
    "Announcement",
    {"real": "AccountId32", "call_hash": "H256", "height": "u32"},
    "pallet_subtensor_proxy::Announcement",
    params=(("AccountId", "AccountId32"), ("Hash", "H256"), ("BlockNumber", "u32")),
)
declare_enum("DepositKind", {"Proxies": 0, "Announcements": 1}, "pallet_subtensor_proxy::DepositKind")


def _proxy_weight(position: int):
    return lambda pallet, args: 50_000_000 + pallet.runtime.weight(args[position])


class Proxy(Pallet):
    name, index, crate = "Proxy", 16, "pallet_subtensor_proxy"
    Proxies = StorageMap([("Twox64Concat", "AccountId32")], f"(BoundedVec<ProxyDefinition, {MAX_PROXIES}>, u64)")
    Announcements = StorageMap([("Twox64Concat", "AccountId32")], f"(BoundedVec<Announcement, {MAX_PENDING}>, u64)")
    RealPaysFee = StorageMap([("Twox64Concat", "AccountId32"), ("Twox64Concat", "AccountId32")], "()", optional=True)

    constants = {
        "ProxyDepositBase": ("u64", DEPOSIT_BASE),
        "ProxyDepositFactor": ("u64", DEPOSIT_FACTOR),
        "MaxProxies": ("u32", MAX_PROXIES),
        "MaxPending": ("u32", MAX_PENDING),
        "AnnouncementDepositBase": ("u64", ANNOUNCEMENT_BASE),
        "AnnouncementDepositFactor": ("u64", ANNOUNCEMENT_FACTOR),
    }
    _pure_type = {"proxy_type": "ProxyType", "disambiguation_index": "u16"}
    _pair = {"delegator": "AccountId32", "delegatee": "AccountId32", "proxy_type": "ProxyType", "delay": "u32"}
    events = {
        "ProxyExecuted": (0, {"result": "Result<(), DispatchError>"}),
        "PureCreated": (1, {"pure": "AccountId32", "who": "AccountId32", **_pure_type}),
        "Announced": (2, {"real": "AccountId32", "proxy": "AccountId32", "call_hash": "H256"}),
        "ProxyAdded": (3, _pair),
        "ProxyRemoved": (4, _pair),
        "DepositPoked": (5, {"who": "AccountId32", "kind": "DepositKind", "old_deposit": "u64", "new_deposit": "u64"}),
        "RealPaysFeeSet": (6, {"real": "AccountId32", "delegate": "AccountId32", "pays_fee": "bool"}),
    }
    errors = """TooMany NotFound NotProxy Unproxyable Duplicate NoPermission Unannounced NoSelfProxy
        AnnouncementDepositInvariantViolated InvalidDerivedAccountId""".split()

    def fee_payer(self, signer: bytes, call: Call) -> bytes:
        """The payer of an extrinsic: its signer, or the real account of a proxy call if that account agreed to pay."""
        if call.pallet == "Proxy" and call.name in ("proxy", "proxy_announced"):
            address = call["real"]
            if address[0] == "Id" and (address[1], signer) in self.RealPaysFee:
                return address[1]
        return signer

    def find(self, real: bytes, delegate: bytes, force_type: str | None) -> ProxyDefinition:
        """The definition under which `delegate` may act for `real`. Raises NotProxy."""
        for definition in self.Proxies[real][0]:
            if definition.delegate == delegate and force_type in (None, definition.proxy_type):
                return definition
        raise self.error("NotProxy")

    def add(self, delegator: bytes, delegate: bytes, proxy_type: str, delay: int) -> None:
        if delegator == delegate:
            raise self.error("NoSelfProxy")
        proxies, deposit = self.Proxies[delegator]
        definition = ProxyDefinition(delegate, proxy_type, delay)
        if definition in proxies:
            raise self.error("Duplicate")
        if len(proxies) >= MAX_PROXIES:
            raise self.error("TooMany")
        self._put(delegator, tuple(sorted((*proxies, definition))), deposit)
        self.emit("ProxyAdded", delegator, delegate, proxy_type, delay)

    def _put(self, delegator: bytes, proxies: tuple, old_deposit: int) -> None:
        deposit = DEPOSIT_BASE + DEPOSIT_FACTOR * len(proxies) if proxies else 0
        self._adjust(delegator, old_deposit, deposit)
        if proxies:
            self.Proxies[delegator] = (proxies, deposit)
        else:
            del self.Proxies[delegator]

    def _adjust(self, who: bytes, old: int, new: int) -> None:
        if new > old:
            self.runtime.Balances.reserve(who, new - old)
        elif old > new:
            self.runtime.Balances.unreserve(who, old - new)

    def _execute(self, definition: ProxyDefinition, real: bytes, call: Call) -> None:
        kind = definition.proxy_type

        def allows(inner: Call) -> bool:
            if inner.pallet == "Proxy":
                if inner.name in ("add_proxy", "remove_proxy") and not covers(kind, inner["proxy_type"]):
                    return False
                if inner.name in ("remove_proxies", "kill_pure") and kind != "Any":
                    return False
            return admits(kind, inner)

        try:
            self.runtime.dispatch(Origin.signed(real, allows), call)
            self.emit("ProxyExecuted", ("Ok", ()))
        except DispatchError as error:
            self.emit("ProxyExecuted", ("Err", error.value))

    def _drop_announcements(self, delegate: bytes, keep) -> None:
        pending, deposit = self.Announcements[delegate]
        kept = tuple(item for item in pending if keep(item))
        if len(kept) == len(pending):
            raise self.error("NotFound")
        wanted = ANNOUNCEMENT_BASE + ANNOUNCEMENT_FACTOR * len(kept) if kept else 0
        self._adjust(delegate, deposit, wanted)
        if kept:
            self.Announcements[delegate] = (kept, wanted)
        else:
            del self.Announcements[delegate]

    @call(0, weight=_proxy_weight(2))
    def proxy(self, origin: Origin, real: "MultiAddress", force_proxy_type: "Option<ProxyType>", call: "RuntimeCall"):
        who, account = origin.ensure_signed(), self.runtime.lookup(real)
        definition = self.find(account, who, force_proxy_type)
        if definition.delay:
            raise self.error("Unannounced")
        self._execute(definition, account, call)

    @call(1, weight=150_000_000)
    def add_proxy(self, origin: Origin, delegate: "MultiAddress", proxy_type: "ProxyType", delay: "u32"):
        self.add(origin.ensure_signed(), self.runtime.lookup(delegate), proxy_type, delay)

    @call(2, weight=150_000_000)
    def remove_proxy(self, origin: Origin, delegate: "MultiAddress", proxy_type: "ProxyType", delay: "u32"):
        who, account = origin.ensure_signed(), self.runtime.lookup(delegate)
        proxies, deposit = self.Proxies[who]
        definition = ProxyDefinition(account, proxy_type, delay)
        if definition not in proxies:
            raise self.error("NotFound")
        self._put(who, tuple(item for item in proxies if item != definition), deposit)
        self.emit("ProxyRemoved", who, account, proxy_type, delay)

    @call(3, weight=150_000_000)
    def remove_proxies(self, origin: Origin):
        who = origin.ensure_signed()
        self._put(who, (), self.Proxies[who][1])

    @call(4, weight=150_000_000)
    def create_pure(self, origin: Origin, proxy_type: "ProxyType", delay: "u32", index: "u16"):
        who = origin.ensure_signed()
        pure = self._pure(who, proxy_type, index, self.runtime.block_number, self._ext_index())
        if pure in self.Proxies:
            raise self.error("Duplicate")
        deposit = DEPOSIT_BASE + DEPOSIT_FACTOR
        self.runtime.Balances.reserve(who, deposit)
        self.Proxies[pure] = ((ProxyDefinition(who, proxy_type, delay),), deposit)
        self.emit("PureCreated", pure, who, proxy_type, index)

    @call(5, weight=150_000_000)
    def kill_pure(
        self,
        origin: Origin,
        spawner: "MultiAddress",
        proxy_type: "ProxyType",
        index: "u16",
        height: "Compact<u32>",
        ext_index: "Compact<u32>",
    ):
        who, account = origin.ensure_signed(), self.runtime.lookup(spawner)
        if who != self._pure(account, proxy_type, index, height, ext_index):
            raise self.error("NoPermission")
        deposit = self.Proxies[who][1]
        del self.Proxies[who]
        self.runtime.Balances.unreserve(account, deposit)

    def _ext_index(self) -> int:
        phase = self.runtime.phase
        return phase[1] if isinstance(phase, tuple) else 0

    def _pure(self, who: bytes, proxy_type: str, index: int, height: int, ext_index: int) -> bytes:
        """Account of a pure proxy (pallet_proxy::pure_account)."""
        codec = self.runtime.codecs("([u8; 16], AccountId32, u32, u32, ProxyType, u16)")
        return blake2_256(codec.encode((b"modlpy/proxy____", who, height, ext_index, proxy_type, index)))

    @call(6, weight=100_000_000)
    def announce(self, origin: Origin, real: "MultiAddress", call_hash: "H256"):
        who, account = origin.ensure_signed(), self.runtime.lookup(real)
        self.find(account, who, None)
        pending, deposit = self.Announcements[who]
        if len(pending) >= MAX_PENDING:
            raise self.error("TooMany")
        pending = (*pending, Announcement(account, call_hash, self.runtime.block_number))
        wanted = ANNOUNCEMENT_BASE + ANNOUNCEMENT_FACTOR * len(pending)
        self._adjust(who, deposit, wanted)
        self.Announcements[who] = (pending, wanted)
        self.emit("Announced", account, who, call_hash)

    @call(7, weight=100_000_000)
    def remove_announcement(self, origin: Origin, real: "MultiAddress", call_hash: "H256"):
        who, account = origin.ensure_signed(), self.runtime.lookup(real)
        self._drop_announcements(who, lambda item: (item.real, item.call_hash) != (account, call_hash))

    @call(8, weight=100_000_000)
    def reject_announcement(self, origin: Origin, delegate: "MultiAddress", call_hash: "H256"):
        who, account = origin.ensure_signed(), self.runtime.lookup(delegate)
        self._drop_announcements(account, lambda item: (item.real, item.call_hash) != (who, call_hash))

    @call(9, weight=_proxy_weight(3))
    def proxy_announced(
        self,
        origin: Origin,
        delegate: "MultiAddress",
        real: "MultiAddress",
        force_proxy_type: "Option<ProxyType>",
        call: "RuntimeCall",
    ):
        origin.ensure_signed()
        account, proxied = self.runtime.lookup(delegate), self.runtime.lookup(real)
        definition = self.find(proxied, account, force_proxy_type)
        call_hash, now = blake2_256(self.runtime.codecs("RuntimeCall").encode(call)), self.runtime.block_number

        def ripe(item: Announcement) -> bool:
            return (item.real, item.call_hash) == (proxied, call_hash) and now - item.height >= definition.delay

        try:
            self._drop_announcements(account, lambda item: not ripe(item))
        except DispatchError:
            raise self.error("Unannounced") from None
        self._execute(definition, proxied, call)

    @call(10, weight=100_000_000)
    def poke_deposit(self, origin: Origin):
        who = origin.ensure_signed()
        proxies, deposit = self.Proxies[who]
        wanted = DEPOSIT_BASE + DEPOSIT_FACTOR * len(proxies) if proxies else 0
        if wanted != deposit:
            self._put(who, proxies, deposit)
            self.emit("DepositPoked", who, "Proxies", deposit, wanted)

    @call(11, weight=100_000_000)
    def set_real_pays_fee(self, origin: Origin, delegate: "MultiAddress", pays_fee: "bool"):
        who, account = origin.ensure_signed(), self.runtime.lookup(delegate)
        self.find(who, account, None)
        if pays_fee:
            self.RealPaysFee[who, account] = ()
        else:
            del self.RealPaysFee[who, account]
        self.emit("RealPaysFeeSet", who, account, pays_fee)
