"""Global parameters of AdminUtils: rate limits, takes, costs. Root only. Part of admin_utils.AdminUtils."""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call

SET = 6_000_000


class GlobalAdmin:
    def _set_global(self, origin: Origin, item: str, value, event: str | None) -> None:
        origin.ensure_root()
        getattr(self.module, item).set(value)
        if event:
            self.module.emit(event, value)

    @call(1, weight=SET)
    def sudo_set_default_take(self, origin: Origin, default_take: "u16"):
        self._set_global(origin, "MaxDelegateTake", default_take, "MaxDelegateTakeSet")

    @call(2, weight=SET)
    def sudo_set_tx_rate_limit(self, origin: Origin, tx_rate_limit: "u64"):
        self._set_global(origin, "TxRateLimit", tx_rate_limit, "TxRateLimitSet")

    @call(28, weight=SET)
    def sudo_set_subnet_owner_cut(self, origin: Origin, subnet_owner_cut: "u16"):
        self._set_global(origin, "SubnetOwnerCut", subnet_owner_cut, "SubnetOwnerCutSet")

    @call(29, weight=SET)
    def sudo_set_network_rate_limit(self, origin: Origin, rate_limit: "u64"):
        self._set_global(origin, "NetworkRateLimit", rate_limit, "NetworkRateLimitSet")

    @call(33, weight=SET)
    def sudo_set_total_issuance(self, origin: Origin, total_issuance: "u64"):
        """Refused: on this chain the issuance is the sum of all balances and pools."""
        origin.ensure_root()
        raise self.error("Deprecated")

    @call(35, weight=SET)
    def sudo_set_network_immunity_period(self, origin: Origin, immunity_period: "u64"):
        self._set_global(origin, "NetworkImmunityPeriod", immunity_period, "NetworkImmunityPeriodSet")

    @call(36, weight=SET)
    def sudo_set_network_min_lock_cost(self, origin: Origin, lock_cost: "u64"):
        self._set_global(origin, "NetworkMinLockCost", lock_cost, "NetworkMinLockCostSet")

    @call(37, weight=SET)
    def sudo_set_subnet_limit(self, origin: Origin, max_subnets: "u16"):
        self._set_global(origin, "SubnetLimit", max_subnets, "SubnetLimitSet")

    @call(38, weight=SET)
    def sudo_set_lock_reduction_interval(self, origin: Origin, interval: "u64"):
        self._set_global(origin, "NetworkLockReductionInterval", interval, "NetworkLockCostReductionIntervalSet")

    @call(42, weight=SET)
    def sudo_set_stake_threshold(self, origin: Origin, min_stake: "u64"):
        self._set_global(origin, "StakeThreshold", min_stake, "StakeThresholdSet")

    @call(45, weight=SET)
    def sudo_set_tx_delegate_take_rate_limit(self, origin: Origin, tx_rate_limit: "u64"):
        self._set_global(origin, "TxDelegateTakeRateLimit", tx_rate_limit, "TxDelegateTakeRateLimitSet")

    @call(46, weight=SET)
    def sudo_set_min_delegate_take(self, origin: Origin, take: "u16"):
        self._set_global(origin, "MinDelegateTake", take, "MinDelegateTakeSet")

    @call(86, weight=SET)
    def sudo_set_coldkey_swap_announcement_delay(self, origin: Origin, duration: "u32"):
        self._set_global(origin, "ColdkeySwapAnnouncementDelay", duration, "ColdkeySwapAnnouncementDelaySet")

    @call(87, weight=SET)
    def sudo_set_coldkey_swap_reannouncement_delay(self, origin: Origin, duration: "u32"):
        self._set_global(origin, "ColdkeySwapReannouncementDelay", duration, "ColdkeySwapReannouncementDelaySet")

    @call(43, weight=SET)
    def sudo_set_nominator_min_required_stake(self, origin: Origin, min_stake: "u64"):
        """Rao of alpha below which a nomination is unstaked when its owner next takes some of it away."""
        self._set_global(origin, "NominatorMinRequiredStake", min_stake, None)

    @call(100, weight=SET)
    def sudo_set_emission_bar_quantile(self, origin: Origin, quantile: "U64F64"):
        """The part of demand above the emission gate's bar, while no rank is set; at most 1."""
        self._set_gate(origin, "EmissionBarQuantile", quantile, quantile <= 1 << 64)

    @call(101, weight=SET)
    def sudo_set_emission_gate_exponent(self, origin: Origin, exponent: "U64F64"):
        """How steeply the gate falls below its bar, 1 to 8."""
        origin.ensure_root()
        if not 1 << 64 <= exponent <= 8 << 64:
            raise self.error("InvalidValue")
        self.module.EmissionGateExponent.set(exponent)

    @call(102, weight=SET)
    def sudo_set_emission_bar_rank(self, origin: Origin, rank: "u16"):
        """The bar is the share of this rank; 0 returns to the quantile."""
        self._set_gate(origin, "EmissionBarRank", rank, valid=True)

    def _set_gate(self, origin: Origin, item: str, value: int, valid: bool) -> None:
        """The next block computes the bar anew."""
        origin.ensure_root()
        if not valid:
            raise self.error("InvalidValue")
        getattr(self.module, item).set(value)
        self.module.EmissionGateBar.set(0)

    @call(63, weight=SET)
    def sudo_set_subnet_moving_alpha(self, origin: Origin, alpha: "I96F32"):
        self._set_global(origin, "SubnetMovingAlpha", alpha, None)

    @call(71, weight=SET)
    def sudo_set_commit_reveal_version(self, origin: Origin, version: "u16"):
        self._set_global(origin, "CommitRevealWeightsVersion", version, "CommitRevealVersionSet")

    @call(73, weight=SET)
    def sudo_set_ck_burn(self, origin: Origin, burn: "u64"):
        self._set_global(origin, "CKBurn", burn, None)

    @call(74, weight=SET)
    def sudo_set_admin_freeze_window(self, origin: Origin, window: "u16"):
        self._set_global(origin, "AdminFreezeWindow", window, "AdminFreezeWindowSet")

    @call(75, weight=SET)
    def sudo_set_owner_hparam_rate_limit(self, origin: Origin, epochs: "u16"):
        self._set_global(origin, "OwnerHyperparamRateLimit", epochs, "OwnerHyperparamRateLimitSet")

    @call(85, weight=SET)
    def sudo_set_start_call_delay(self, origin: Origin, delay: "u64"):
        self._set_global(origin, "StartCallDelay", delay, "StartCallDelaySet")

    @call(88, weight=SET)
    def sudo_set_max_mechanism_count(self, origin: Origin, max_mechanism_count: "u8"):
        origin.ensure_root()
        if max_mechanism_count == 0:
            raise self.module.error("InvalidValue")
        self._set_global(origin, "MaxMechanismCount", max_mechanism_count, None)

    @call(96, weight=SET)
    def sudo_set_max_epochs_per_block(self, origin: Origin, max_epochs_per_block: "u8"):
        origin.ensure_root()
        if max_epochs_per_block == 0:
            raise self.error("InvalidValue")
        self._set_global(origin, "MaxEpochsPerBlock", max_epochs_per_block, "MaxEpochsPerBlockSet")
