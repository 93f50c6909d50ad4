"""Calls that create, start, name and dissolve subnets, and the owner's schedule calls.

In: a coldkey's extrinsic. Out: a subnet with its pool, owner, symbol and schedule, or one of the pallet's errors
(subnets/subnet.rs, do_register_network; coinbase/tempo_control.rs).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor import issuance
from raytensor.devnet.subtensor.clock import blocks_until_auto
from raytensor.devnet.subtensor.costs import charged, ref_time
from raytensor.devnet.subtensor.pools import ROOT
from raytensor.devnet.subtensor.storage import ZERO_ACCOUNT
from raytensor.devnet.subtensor.symbols import SYMBOLS

MIN_TEMPO, MAX_TEMPO = 360, 50_400
MIN_CUTOFF_MILLI, MAX_CUTOFF_MILLI = 1_000, 50_000
REGISTER = charged(1_713_009)
_SUBNET_ACCOUNT = b"modlsubtensr"  # PalletId sub-accounts


def subnet_account(netuid: int) -> bytes:
    """The account of a subnet."""
    return (_SUBNET_ACCOUNT + netuid.to_bytes(2, "little")).ljust(32, b"\0")


def is_subnet_account(account: bytes) -> bool:
    return account == subnet_account(int.from_bytes(account[12:14], "little"))


class SubnetCalls:
    @call(59, weight=REGISTER)
    def register_network(self, origin: Origin, hotkey: "AccountId32"):
        self.do_register_network(origin.ensure_signed(), hotkey, None)

    @call(79, weight=REGISTER)
    def register_network_with_identity(
        self, origin: Origin, hotkey: "AccountId32", identity: "Option<SubnetIdentityV3>"
    ):
        self.do_register_network(origin.ensure_signed(), hotkey, identity)

    @call(92, weight=charged(128_589))
    def start_call(self, origin: Origin, netuid: "u16"):
        """Start the emission in the next block and enable staking."""
        self.require_subnet(netuid)
        self.ensure_owner(origin, netuid)
        if self.FirstEmissionBlockNumber[netuid] is not None:
            raise self.error("FirstEmissionBlockNumberAlreadySet")
        block = self.runtime.block_number
        if block < self.NetworkRegisteredAt[netuid] + self.StartCallDelay.get():
            raise self.error("NeedWaitingMoreBlocksToStarCall")
        self.FirstEmissionBlockNumber[netuid] = block + 1
        self.SubtokenEnabled[netuid] = True
        self.emit("FirstEmissionBlockNumberSet", netuid, block + 1)

    @call(112, weight=ref_time(29_000_000, 4, 1))
    def update_symbol(self, origin: Origin, netuid: "u16", symbol: "Vec<u8>"):
        self.ensure_owner_or_root(origin, netuid)
        if symbol not in SYMBOLS:
            raise self.error("SymbolDoesNotExist")
        if any(taken == symbol for _, taken in self.TokenSymbol.items()):
            raise self.error("SymbolAlreadyInUse")
        self.TokenSymbol[netuid] = symbol
        self.emit("SymbolUpdated", netuid, symbol)

    @call(139, weight=ref_time(40_000_000, 6, 5))
    def set_tempo(self, origin: Origin, netuid: "u16", tempo: "u16"):
        """Set the tempo as the owner; the cycle restarts at this block."""
        owner = self.ensure_owner(origin, netuid)
        if not MIN_TEMPO <= tempo <= MAX_TEMPO:
            raise self.error("TempoOutOfBounds")
        self.ensure_admin_window_open(netuid)
        self.pass_rate_limit("TempoUpdate", owner, netuid)
        self.apply_tempo(netuid, tempo)

    @call(140, weight=ref_time(30_000_000, 5, 2))
    def set_activity_cutoff_factor(self, origin: Origin, netuid: "u16", factor_milli: "u32"):
        owner = self.ensure_owner_or_root(origin, netuid)
        if not MIN_CUTOFF_MILLI <= factor_milli <= MAX_CUTOFF_MILLI:
            raise self.error("ActivityCutoffFactorMilliOutOfBounds")
        if owner is not None:
            self.ensure_admin_window_open(netuid)
            self.pass_hyperparameter_limit("ActivityCutoffFactorMilli", netuid)
        self.ActivityCutoffFactorMilli[netuid] = factor_milli
        self.emit("ActivityCutoffFactorMilliSet", netuid, factor_milli)

    @call(141, weight=ref_time(40_000_000, 7, 2))
    def trigger_epoch(self, origin: Origin, netuid: "u16"):
        """Schedule an extra epoch in AdminFreezeWindow blocks."""
        owner = self.ensure_owner(origin, netuid)
        if self.CommitRevealWeightsEnabled[netuid]:
            raise self.error("DynamicTempoBlockedByCommitReveal")
        if self.PendingEpochAt[netuid]:
            raise self.error("EpochTriggerAlreadyPending")
        block, window = self.runtime.block_number, self.AdminFreezeWindow.get()
        if blocks_until_auto(self.Tempo[netuid], block, self.LastEpochBlock[netuid]) < window:
            raise self.error("AutoEpochAlreadyImminent")
        self.pass_hyperparameter_limit("TriggerEpoch", netuid)
        # PendingEpochAt 0 means "none pending"; block + window is never 0.
        self.PendingEpochAt[netuid] = block + window
        self.emit("EpochTriggered", netuid, owner, block + window)

    @call(61, weight=ref_time(119_000_000, 6, 31))
    def dissolve_network(self, origin: Origin, coldkey: "AccountId32", netuid: "u16"):
        origin.ensure_root()
        self.do_dissolve_network(netuid)

    @call(120, weight=ref_time(119_000_000, 6, 31))
    def root_dissolve_network(self, origin: Origin, netuid: "u16"):
        origin.ensure_root()
        self.do_dissolve_network(netuid)

    def lock_cost_rao(self) -> int:
        """Cost of a new subnet in this block, in rao of TAO."""
        last_block = self.LastRateLimitedBlock["NetworkLastRegistered"]
        cost, minimum = self.NetworkLastLockCost.get(), self.NetworkMinLockCost.get()
        blocks, interval = self.runtime.block_number - last_block, self.NetworkLockReductionInterval.get()
        return issuance.lock_cost_rao(cost, minimum, blocks, interval, 2 if last_block else 1)

    def network_rate_limit_passes(self) -> bool:
        last = self.LastRateLimitedBlock["NetworkLastRegistered"]
        return not last or self.runtime.block_number - last >= self.NetworkRateLimit.get()

    def do_register_network(self, coldkey: bytes, hotkey: bytes, identity) -> int:
        block = self.runtime.block_number
        if self.hotkey_exists(hotkey) and not self.owns(coldkey, hotkey):
            raise self.error("NonAssociatedColdKey")
        if ZERO_ACCOUNT in (coldkey, hotkey) or is_subnet_account(hotkey):
            raise self.error("CannotUseSystemAccount")
        if block < self.NetworkRegistrationStartBlock.get():
            raise self.error("SubNetRegistrationDisabled")
        if not self.network_rate_limit_passes():
            raise self.error("NetworkTxRateLimitExceeded")
        if identity is not None:
            self.check_subnet_identity(identity)
        evicted = None
        if len(self.netuids()) - 1 >= self.SubnetLimit.get():
            evicted = self.subnet_to_prune()
            if evicted is None:
                raise self.error("SubnetLimitReached")
        lock = self.lock_cost_rao()
        if lock > self.spendable(coldkey):
            raise self.error("CannotAffordLockCost")
        if evicted is not None:
            self.do_dissolve_network(evicted)

        self.take_balance(coldkey, lock, "CannotAffordLockCost")
        self.NetworkLastLockCost.set(lock)
        self.LastRateLimitedBlock["NetworkLastRegistered"] = block
        taken = set(self.netuids())
        netuid = next(n for n in range(1, len(taken) + 1) if n not in taken)
        self.init_subnet(netuid, coldkey, hotkey, lock)
        if identity is not None:
            self.SubnetIdentitiesV3[netuid] = identity
            self.emit("SubnetIdentitySet", netuid)
        self.delegate_from_root(netuid)
        self.emit("NetworkAdded", netuid, 1)
        return netuid

    def init_subnet(self, netuid: int, owner: bytes, owner_hotkey: bytes, lock_rao: int) -> None:
        """Create a dynamic subnet. Its pool starts with NetworkMinLockCost at price 1; the rest is burned."""
        block = self.runtime.block_number
        self.create_network(netuid, tempo=360)
        self.NetworkRegisteredAt[netuid] = block
        self.RegisteredSubnetCounter[netuid] = self.RegisteredSubnetCounter[netuid] + 1
        self.SubnetMechanism[netuid] = 1
        self.SubnetOwner[netuid] = owner
        self.SubnetOwnerHotkey[netuid] = owner_hotkey
        self.own_hotkey(owner, owner_hotkey)
        self.append_neuron(netuid, owner_hotkey)
        self.TokenSymbol[netuid] = self._free_symbol(netuid)
        pool = min(self.NetworkMinLockCost.get(), lock_rao)
        self.add_tao(netuid, pool)
        self.SubnetAlphaIn[netuid] = pool
        self.SubnetLocked[netuid] = pool
        self.LargestLocked[netuid] = pool
        self.RAORecycledForRegistration[netuid] = lock_rao - pool
        self.book_burn(lock_rao - pool)
        self.MinAllowedWeights[netuid] = 1
        self.MaxAllowedValidators[netuid] = 64
        self.ImmunityPeriod[netuid] = 5_000
        self.Yuma3On[netuid] = True
        self.Burn[netuid] = 10**9
        self.SubnetEmissionEnabled[netuid] = False
        self.LastEpochBlock[netuid] = max(0, block - netuid % 360)

    def create_network(self, netuid: int, tempo: int) -> None:
        self.NetworksAdded[netuid] = True
        self.TotalNetworks.set(self.TotalNetworks.get() + 1)
        self.SubnetworkN[netuid] = 0
        self.Tempo[netuid] = tempo
        self.MaxAllowedUids[netuid] = 256
        self.NetworkRegistrationAllowed[netuid] = True

    def _free_symbol(self, netuid: int) -> bytes:
        taken = {symbol for _, symbol in self.TokenSymbol.items()}
        wanted = SYMBOLS[netuid] if netuid < len(SYMBOLS) else None
        if wanted and wanted not in taken:
            return wanted
        return next((symbol for symbol in SYMBOLS[1:] if symbol not in taken), SYMBOLS[0])

    def subnet_to_prune(self) -> int | None:
        """The subnet that a new one replaces: not immune, lowest moving price, then oldest."""
        block, immunity = self.runtime.block_number, self.NetworkImmunityPeriod.get()
        mortal = [
            (self.SubnetMovingPrice[netuid], self.NetworkRegisteredAt[netuid], netuid)
            for netuid in self.netuids()
            if netuid != ROOT and block >= self.NetworkRegisteredAt[netuid] + immunity
        ]
        return min(mortal)[2] if mortal else None

    def apply_tempo(self, netuid: int, tempo: int) -> None:
        """Set the tempo and restart the cycle at this block."""
        self.Tempo[netuid] = tempo
        self.LastEpochBlock[netuid] = self.runtime.block_number
        self.PendingEpochAt[netuid] = 0
        self.emit("TempoSet", netuid, tempo)
