"""The block step: decays burn prices, mints TAO and alpha, runs due epochs, updates moving prices, applies children.

In: a block number (the hook on_initialize). Out: pools, pending emission, schedules, and payments (distribution.py).
Order and arithmetic: coinbase/block_step.rs and run_coinbase.rs; amounts inside a block have 32 fractional bits
(U96F32) and are truncated to rao. The block's extrinsics run afterwards.

Order of an injection: the TAO that is over the cap buys first, then liquidity enters at the price before. The pool
has equal weights and takes everything, so the reservoirs of the chain's weighted pool stay empty.
"""

from __future__ import annotations

from typing import NamedTuple

from raytensor.devnet.subtensor import clock, emission_gate, issuance
from raytensor.devnet.subtensor.amm import SwapRefused
from raytensor.devnet.subtensor.pools import ROOT

ONE32, ONE64 = 1 << 32, 1 << 64
U16_MAX, U64_MAX = 2**16 - 1, 2**64 - 1


class Pending(NamedTuple):
    """A subnet's emission since its last epoch, in rao of alpha."""

    server: int
    validator: int
    root: int
    owner: int


class Coinbase:
    def on_initialize(self, block: int) -> None:
        netuids = self.netuids()
        self.drop_old_swap_records(netuids, block)
        self.reset_registration_counters(netuids, block)
        self.decay_burn_prices(netuids)
        self.decay_difficulties(netuids)
        emission = issuance.block_emission_rao(self.TotalIssuance.get())
        self.BlockEmission.set(emission)
        self.book_mint(emission)
        self.reveal_timelocked(netuids)
        subnets = [netuid for netuid in netuids if netuid != ROOT]
        self.run_coinbase(subnets, emission)
        for netuid in subnets:
            self.update_moving_price(netuid)
            self.RootProp[netuid] = self.root_proportion32(netuid)
        for netuid in netuids:
            if self.LastEpochBlock[netuid] == block:
                self.apply_pending_children(netuid)

    def run_coinbase(self, subnets: list[int], emission: int) -> None:
        emitting = [netuid for netuid in subnets if self.emits(netuid)]
        left = emission
        root_sells = sum(self.SubnetMovingPrice[netuid] for netuid in emitting) > ONE32
        tao = self.tao_emissions32(emitting, emission)
        for netuid in emitting:
            left -= self._inject(netuid, tao[netuid])
        # TAO that no pool received (no subnet emits, or a purchase was refused) is recycled.
        self.book_burn(left)
        for netuid in emitting:
            self._emit_alpha(netuid, root_sells)
        due = self._drain(subnets)
        for netuid, pending in due.items():
            self.distribute(netuid, pending)
            self.LastMechansimStepBlock[netuid] = self.runtime.block_number
            if not self.is_null(netuid):
                self.LastYumaStepBlock[netuid] = self.runtime.block_number

    def emits(self, netuid: int) -> bool:
        started = self.FirstEmissionBlockNumber[netuid] is not None
        return started and self.SubtokenEnabled[netuid] and self.NetworkRegistrationAllowed[netuid]

    def tao_emissions32(self, emitting: list[int], emission: int) -> dict[int, int]:
        """The block's TAO by subnet, 32 fractional bits: by demand, cut by the gate, nothing for disabled subnets."""
        prices = {netuid: self.SubnetMovingPrice[netuid] for netuid in emitting}
        demand = emission_gate.demand_shares(prices, {netuid: self.MinerBurned[netuid] for netuid in emitting})
        bar = self.EmissionGateBar.get()
        if not bar or self.runtime.block_number % emission_gate.BAR_INTERVAL_BLOCKS == 0:
            found = emission_gate.gate_bar(demand, self.EmissionBarRank.get(), self.EmissionBarQuantile.get())
            if found:
                bar = found
                self.EmissionGateBar.set(bar)
        passed = emission_gate.gated(demand, bar, self.EmissionGateExponent.get())
        disabled = {netuid for netuid in emitting if not self.SubnetEmissionEnabled[netuid]}
        shares = emission_gate.without(passed, disabled)
        return {netuid: (emission * share) >> 32 for netuid, share in shares.items()}

    def root_proportion32(self, netuid: int) -> int:
        """Root's weighted TAO / (root's weighted TAO + the subnet's alpha issuance), 32 fractional bits."""
        root = self.SubnetTAO[ROOT] * ((self.TaoWeight.get() << 32) // U64_MAX)
        total = root + (self.alpha_issuance(netuid) << 32)
        return (root << 32) // total if total else 0

    def _inject(self, netuid: int, tao32: int) -> int:
        """Buy alpha with the TAO that is over the cap, then inject liquidity at the price before the purchase.

        Injected alpha is at most root's proportion of the alpha emission. Returns the rao of TAO used.
        """
        alpha_emission32 = issuance.block_emission_rao(self.alpha_issuance(netuid)) << 32
        price32 = self.alpha_price32(netuid)
        tao_in32 = tao32
        alpha_in32 = (tao32 << 32) // price32 if price32 else 0
        cap32 = (self.root_proportion32(netuid) * alpha_emission32) >> 32
        if alpha_in32 > cap32:
            alpha_in32 = cap32
            tao_in32 = (cap32 * price32) >> 32
        tao_in, alpha_in = min(tao_in32, tao32) >> 32, alpha_in32 >> 32
        excess = max(0, tao32 - tao_in32) >> 32
        self.SubnetAlphaOutEmission[netuid] = alpha_emission32 >> 32
        self.SubnetTaoInEmission[netuid] = tao_in
        self.SubnetAlphaInEmission[netuid] = alpha_in
        bought = self._protocol_buy(netuid, excess)
        self.SubnetExcessTao[netuid] = bought
        if tao_in or alpha_in:
            self.add_tao(netuid, tao_in)
            self.SubnetAlphaIn[netuid] = self.SubnetAlphaIn[netuid] + alpha_in
        return tao_in + bought

    def _protocol_buy(self, netuid: int, tao: int) -> int:
        if not tao:
            return 0
        try:
            swap = self.buy_alpha(netuid, tao, fees=False)
        except SwapRefused:
            return 0
        self.SubnetProtocolAlpha[netuid] = self.SubnetProtocolAlpha[netuid] + swap.out
        return swap.paid_in

    def _emit_alpha(self, netuid: int, root_sells: bool) -> None:
        """Mint the block's alpha: the owner's cut, then half to miners, half to validators and root."""
        created = self.SubnetAlphaOutEmission[netuid]
        self.SubnetAlphaOut[netuid] = self.SubnetAlphaOut[netuid] + created
        rest32 = created << 32
        if self.OwnerCutEnabled[netuid]:
            cut32 = (rest32 * ((self.SubnetOwnerCut.get() << 32) // U16_MAX)) >> 32
            rest32 -= cut32
            self._add_pending(self.PendingOwnerCut, netuid, cut32)
        root32 = ((self.root_proportion32(netuid) * rest32) >> 32) // 2
        server32 = rest32 // 2
        validator32 = rest32 - server32 - root32
        self._add_pending(self.PendingServerEmission, netuid, server32)
        self._add_pending(self.PendingValidatorEmission, netuid, validator32)
        if root_sells:
            self._add_pending(self.PendingRootAlphaDivs, netuid, root32)
        else:
            self.recycle_alpha_out(netuid, root32 >> 32)

    @staticmethod
    def _add_pending(item, netuid: int, amount32: int) -> None:
        item[netuid] = item[netuid] + (amount32 >> 32)

    def epoch_is_due(self, netuid: int, block: int) -> bool:
        tempo, last, pending = self.Tempo[netuid], self.LastEpochBlock[netuid], self.PendingEpochAt[netuid]
        since = self.BlocksSinceLastStep[netuid]
        return clock.is_due(tempo=tempo, block=block, last_epoch=last, pending_at=pending, blocks_since_step=since)

    def next_epoch_start(self, netuid: int) -> int | None:
        return clock.next_start(self.Tempo[netuid], self.LastEpochBlock[netuid], self.PendingEpochAt[netuid])

    def _drain(self, subnets: list[int]) -> dict[int, Pending]:
        """Pending emission of the subnets whose epoch runs in this block, at most MaxEpochsPerBlock; others wait.

        In a block in which a Null subnet is due at most one epoch runs.
        """
        block, cap = self.runtime.block_number, self.MaxEpochsPerBlock.get()
        if any(self.is_null(netuid) and self.epoch_is_due(netuid, block) for netuid in subnets):
            cap = 1
        due: dict[int, Pending] = {}
        for netuid in subnets:
            self.BlocksSinceLastStep[netuid] = self.BlocksSinceLastStep[netuid] + 1
            if not self.epoch_is_due(netuid, block):
                continue
            if len(due) >= cap:
                self.PendingEpochAt[netuid] = block + 1
                self.emit("EpochDeferred", netuid, block, block + 1)
                continue
            if self.is_epoch_input_consistent(netuid):
                self.BlocksSinceLastStep[netuid] = 0
                due[netuid] = self._take_pending(netuid)
            else:
                self.emit("EpochSkipped", netuid, block)
            self.LastEpochBlock[netuid] = block
            self.PendingEpochAt[netuid] = 0
            self.SubnetEpochIndex[netuid] = self.SubnetEpochIndex[netuid] + 1
        return due

    def _take_pending(self, netuid: int) -> Pending:
        server, validator = self.PendingServerEmission, self.PendingValidatorEmission
        items = (server, validator, self.PendingRootAlphaDivs, self.PendingOwnerCut)
        pending = Pending(*(item[netuid] for item in items))
        for item in items:
            item[netuid] = 0
        return pending

    def update_moving_price(self, netuid: int) -> None:
        """ema += a * (min(price, 1) - ema), a = SubnetMovingAlpha * b / (b + halving); b: blocks since the start."""
        first = self.FirstEmissionBlockNumber[netuid] or 0
        blocks = max(0, self.runtime.block_number - first)
        halving = self.EMAPriceHalvingBlocks[netuid]
        share32 = (blocks << 32) // (blocks + halving) if blocks + halving else 0
        alpha32 = (self.SubnetMovingAlpha.get() * share32) >> 32
        price32 = min(self.alpha_price32(netuid), ONE32)
        moved = (alpha32 * price32) >> 32
        kept = ((ONE32 - alpha32) * self.SubnetMovingPrice[netuid]) >> 32
        self.SubnetMovingPrice[netuid] = moved + kept
