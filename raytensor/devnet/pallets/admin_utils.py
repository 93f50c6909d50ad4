"""AdminUtils (19): hyper-parameters of one subnet, set by root or by its owner. Global ones: admin_globals.py.

In: setter calls. Out: SubtensorModule's storage and event, or an error of either pallet.
`self._subnet(...)` checks the origin: an owner is refused in the freeze window before an epoch and may change a
parameter once in OwnerHyperparamRateLimit tempos; root has no limit. Each call then checks its parameter's bounds.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, Pallet, call
from raytensor.devnet.pallets.admin_globals import GlobalAdmin
from raytensor.devnet.pallets.admin_null import NullAdmin
from raytensor.devnet.pallets.admin_structure import StructureAdmin

SET = 30_000_000
MAX_BONDS_MOVING_AVERAGE = 975_000  # for owners
MIN_ALPHA = 1_638  # 2.5 % of 65535
MAX_REVEAL_PERIOD = 100


class SubnetAdmin:
    def _subnet(self, origin: Origin, netuid: int, owners_name: str | None) -> None:
        """Check the origin: root, or the owner if `owners_name` (a Hyperparameter) is given; and the subnet."""
        module = self.module
        if owners_name is None:
            origin.ensure_root()
        owner = module.ensure_owner_or_root(origin, netuid)
        if not module.NetworksAdded[netuid]:
            raise self.error("SubnetDoesNotExist")
        if owner is not None:
            module.ensure_admin_window_open(netuid)
            module.pass_hyperparameter_limit(owners_name, netuid)

    def _set(self, origin: Origin, netuid: int, item: str, value, event: str | None, owners_name: str | None = None):
        self._subnet(origin, netuid, owners_name)
        self._put(netuid, item, value, event)

    def _put(self, netuid: int, item: str, value, event: str | None) -> None:
        getattr(self.module, item)[netuid] = value
        if event:
            self.module.emit(event, netuid, value)

    @call(4, weight=SET)
    def sudo_set_min_difficulty(self, origin: Origin, netuid: "u16", min_difficulty: "u64"):
        self._set(origin, netuid, "MinDifficulty", min_difficulty, "MinDifficultySet")

    @call(7, weight=SET)
    def sudo_set_weights_set_rate_limit(self, origin: Origin, netuid: "u16", weights_set_rate_limit: "u64"):
        self._set(origin, netuid, "WeightsSetRateLimit", weights_set_rate_limit, "WeightsSetRateLimitSet")

    @call(8, weight=SET)
    def sudo_set_adjustment_interval(self, origin: Origin, netuid: "u16", adjustment_interval: "u16"):
        self._set(origin, netuid, "AdjustmentInterval", adjustment_interval, "AdjustmentIntervalSet")

    @call(19, weight=SET)
    def sudo_set_network_registration_allowed(self, origin: Origin, netuid: "u16", registration_allowed: "bool"):
        self._set(origin, netuid, "NetworkRegistrationAllowed", registration_allowed, "RegistrationAllowed")

    @call(21, weight=SET)
    def sudo_set_target_registrations_per_interval(
        self, origin: Origin, netuid: "u16", target_registrations_per_interval: "u16"
    ):
        value = target_registrations_per_interval
        self._set(origin, netuid, "TargetRegistrationsPerInterval", value, "RegistrationPerIntervalSet")

    @call(24, weight=SET)
    def sudo_set_difficulty(self, origin: Origin, netuid: "u16", difficulty: "u64"):
        self._set(origin, netuid, "Difficulty", difficulty, "DifficultySet")

    @call(25, weight=SET)
    def sudo_set_max_allowed_validators(self, origin: Origin, netuid: "u16", max_allowed_validators: "u16"):
        self._subnet(origin, netuid, None)
        if max_allowed_validators > self.module.MaxAllowedUids[netuid]:
            raise self.error("MaxValidatorsLargerThanMaxUIds")
        self._put(netuid, "MaxAllowedValidators", max_allowed_validators, "MaxAllowedValidatorsSet")

    @call(27, weight=SET)
    def sudo_set_max_registrations_per_block(self, origin: Origin, netuid: "u16", max_registrations_per_block: "u16"):
        value = max_registrations_per_block
        self._set(origin, netuid, "MaxRegistrationsPerBlock", value, "MaxRegistrationsPerBlockSet")

    @call(30, weight=SET)
    def sudo_set_tempo(self, origin: Origin, netuid: "u16", tempo: "u16"):
        """Set any tempo (0 stops the epochs) and restart the cycle at this block."""
        self._subnet(origin, netuid, None)
        self.module.apply_tempo(netuid, tempo)

    @call(39, weight=SET)
    def sudo_set_rao_recycled(self, origin: Origin, netuid: "u16", rao_recycled: "u64"):
        self._set(origin, netuid, "RAORecycledForRegistration", rao_recycled, "RAORecycledForRegistrationSet")

    @call(65, weight=SET)
    def sudo_set_ema_price_halving_period(self, origin: Origin, netuid: "u16", ema_halving: "u64"):
        self._set(origin, netuid, "EMAPriceHalvingBlocks", ema_halving, None)

    @call(66, weight=SET)
    def sudo_set_subtoken_enabled(self, origin: Origin, netuid: "u16", subtoken_enabled: "bool"):
        self._set(origin, netuid, "SubtokenEnabled", subtoken_enabled, None)

    @call(94, weight=SET)
    def sudo_set_subnet_emission_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "SubnetEmissionEnabled", enabled, None)

    @call(3, weight=SET)
    def sudo_set_serving_rate_limit(self, origin: Origin, netuid: "u16", serving_rate_limit: "u64"):
        self._set(origin, netuid, "ServingRateLimit", serving_rate_limit, "ServingRateLimitSet", "ServingRateLimit")

    @call(5, weight=SET)
    def sudo_set_max_difficulty(self, origin: Origin, netuid: "u16", max_difficulty: "u64"):
        self._set(origin, netuid, "MaxDifficulty", max_difficulty, "MaxDifficultySet", "MaxDifficulty")

    @call(6, weight=SET)
    def sudo_set_weights_version_key(self, origin: Origin, netuid: "u16", weights_version_key: "u64"):
        self._set(origin, netuid, "WeightsVersionKey", weights_version_key, "WeightsVersionKeySet", "WeightsVersionKey")

    @call(9, weight=SET)
    def sudo_set_adjustment_alpha(self, origin: Origin, netuid: "u16", adjustment_alpha: "u64"):
        self._set(origin, netuid, "AdjustmentAlpha", adjustment_alpha, "AdjustmentAlphaSet", "AdjustmentAlpha")

    @call(13, weight=SET)
    def sudo_set_immunity_period(self, origin: Origin, netuid: "u16", immunity_period: "u16"):
        self._set(origin, netuid, "ImmunityPeriod", immunity_period, "ImmunityPeriodSet", "ImmunityPeriod")

    @call(14, weight=SET)
    def sudo_set_min_allowed_weights(self, origin: Origin, netuid: "u16", min_allowed_weights: "u16"):
        self._set(origin, netuid, "MinAllowedWeights", min_allowed_weights, "MinAllowedWeightSet", "MinAllowedWeights")

    @call(16, weight=SET)
    def sudo_set_kappa(self, origin: Origin, netuid: "u16", kappa: "u16"):
        self._set(origin, netuid, "Kappa", kappa, "KappaSet", "Kappa")

    @call(17, weight=SET)
    def sudo_set_rho(self, origin: Origin, netuid: "u16", rho: "u16"):
        self._set(origin, netuid, "Rho", rho, "RhoSet", "Rho")

    @call(18, weight=SET)
    def sudo_set_activity_cutoff(self, origin: Origin, netuid: "u16", activity_cutoff: "u16"):
        self._subnet(origin, netuid, "ActivityCutoff")
        if activity_cutoff < self.module.MinActivityCutoff.get():
            raise self.module.error("ActivityCutoffTooLow")
        self._put(netuid, "ActivityCutoff", activity_cutoff, "ActivityCutoffSet")

    @call(20, weight=SET)
    def sudo_set_network_pow_registration_allowed(self, origin: Origin, netuid: "u16", registration_allowed: "bool"):
        self._set(
            origin,
            netuid,
            "NetworkPowRegistrationAllowed",
            registration_allowed,
            "PowRegistrationAllowed",
            "PowRegistrationAllowed",
        )

    @call(22, weight=SET)
    def sudo_set_min_burn(self, origin: Origin, netuid: "u16", min_burn: "u64"):
        self._subnet(origin, netuid, "MinBurn")
        if min_burn >= self.module.MaxBurn[netuid]:
            raise self.error("ValueNotInBounds")
        self._put(netuid, "MinBurn", min_burn, "MinBurnSet")

    @call(23, weight=SET)
    def sudo_set_max_burn(self, origin: Origin, netuid: "u16", max_burn: "u64"):
        self._subnet(origin, netuid, "MaxBurn")
        if max_burn <= self.module.MinBurn[netuid]:
            raise self.error("ValueNotInBounds")
        self._put(netuid, "MaxBurn", max_burn, "MaxBurnSet")

    @call(26, weight=SET)
    def sudo_set_bonds_moving_average(self, origin: Origin, netuid: "u16", bonds_moving_average: "u64"):
        self._subnet(origin, netuid, "BondsMovingAverage")
        if not origin.is_root and bonds_moving_average > MAX_BONDS_MOVING_AVERAGE:
            raise self.error("BondsMovingAverageMaxReached")
        self._put(netuid, "BondsMovingAverage", bonds_moving_average, "BondsMovingAverageSet")

    @call(49, weight=SET)
    def sudo_set_commit_reveal_weights_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "CommitRevealWeightsEnabled", enabled, "CommitRevealEnabled", "CommitRevealEnabled")

    @call(50, weight=SET)
    def sudo_set_liquid_alpha_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "LiquidAlphaOn", enabled, None, "LiquidAlphaEnabled")

    @call(104, weight=SET, operational=True)
    def sudo_set_liquid_alpha_consensus_mode(self, origin: Origin, netuid: "u16", mode: "ConsensusMode"):
        """Whose consensus liquid alpha compares weights with: this epoch's, the previous one's, or by BondsPenalty."""
        item, event = "LiquidAlphaConsensusMode", "LiquidAlphaConsensusModeSet"
        self._set(origin, netuid, item, mode, event, "LiquidAlphaEnabled")

    @call(51, weight=SET)
    def sudo_set_alpha_values(self, origin: Origin, netuid: "u16", alpha_low: "u16", alpha_high: "u16"):
        module = self.module
        self._subnet(origin, netuid, "AlphaValues")
        if not module.LiquidAlphaOn[netuid]:
            raise module.error("LiquidAlphaDisabled")
        if alpha_high < MIN_ALPHA:
            raise module.error("AlphaHighTooLow")
        if not MIN_ALPHA <= alpha_low <= alpha_high:
            raise module.error("AlphaLowOutOfRange")
        module.AlphaValues[netuid] = (alpha_low, alpha_high)

    @call(57, weight=SET)
    def sudo_set_commit_reveal_weights_interval(self, origin: Origin, netuid: "u16", interval: "u64"):
        self._subnet(origin, netuid, "WeightCommitInterval")
        if interval > MAX_REVEAL_PERIOD:
            raise self.module.error("RevealPeriodTooLarge")
        if interval < 1:
            raise self.module.error("RevealPeriodTooSmall")
        self._put(netuid, "RevealPeriodEpochs", interval, "CommitRevealPeriodsSet")

    @call(60, weight=SET)
    def sudo_set_bonds_penalty(self, origin: Origin, netuid: "u16", bonds_penalty: "u16"):
        self._set(origin, netuid, "BondsPenalty", bonds_penalty, "BondsPenaltySet", "BondsPenalty")

    @call(61, weight=SET)
    def sudo_set_toggle_transfer(self, origin: Origin, netuid: "u16", toggle: "bool"):
        self._set(origin, netuid, "TransferToggle", toggle, "TransferToggle", "TransferEnabled")

    @call(68, weight=SET)
    def sudo_set_alpha_sigmoid_steepness(self, origin: Origin, netuid: "u16", steepness: "i16"):
        self._subnet(origin, netuid, "AlphaSigmoidSteepness")
        if steepness < 0 and not origin.is_root:
            raise self.error("NegativeSigmoidSteepness")
        self._put(netuid, "AlphaSigmoidSteepness", steepness, "AlphaSigmoidSteepnessSet")

    @call(69, weight=SET)
    def sudo_set_yuma3_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "Yuma3On", enabled, None, "Yuma3Enabled")

    @call(70, weight=SET)
    def sudo_set_bonds_reset_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "BondsResetOn", enabled, "BondsResetOnSet", "BondsResetEnabled")

    @call(80, weight=SET)
    def sudo_set_recycle_or_burn(self, origin: Origin, netuid: "u16", recycle_or_burn: "RecycleOrBurnEnum"):
        self._set(origin, netuid, "RecycleOrBurn", recycle_or_burn, None, "RecycleOrBurn")

    @call(89, weight=SET, operational=True)
    def sudo_set_burn_half_life(self, origin: Origin, netuid: "u16", burn_half_life: "u16"):
        self._subnet(origin, netuid, "BurnHalfLife")
        if burn_half_life == 0:
            raise self.error("InvalidValue")
        self._put(netuid, "BurnHalfLife", burn_half_life, "BurnHalfLifeSet")

    @call(90, weight=SET, operational=True)
    def sudo_set_burn_increase_mult(self, origin: Origin, netuid: "u16", burn_increase_mult: "U64F64"):
        self._subnet(origin, netuid, "BurnIncreaseMult")
        if burn_increase_mult < 1 << 64:
            raise self.error("InvalidValue")
        self._put(netuid, "BurnIncreaseMult", burn_increase_mult, "BurnIncreaseMultSet")

    @call(92, weight=SET, operational=True)
    def sudo_set_owner_cut_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "OwnerCutEnabled", enabled, None, "OwnerCutEnabled")

    @call(95, weight=SET, operational=True)
    def sudo_set_owner_cut_auto_lock_enabled(self, origin: Origin, netuid: "u16", enabled: "bool"):
        self._set(origin, netuid, "OwnerCutAutoLockEnabled", enabled, None)


class AdminUtils(SubnetAdmin, StructureAdmin, NullAdmin, GlobalAdmin, Pallet):
    name, index = "AdminUtils", 19
    events = {
        "PrecompileUpdated": (0, {"precompile_id": "u8", "enabled": "bool"}),
        "Yuma3EnableToggled": (1, {"netuid": "u16", "enabled": "bool"}),
        "BondsResetToggled": (2, {"netuid": "u16", "enabled": "bool"}),
    }
    errors = """SubnetDoesNotExist MaxValidatorsLargerThanMaxUIds MaxAllowedUIdsLessThanCurrentUIds
        BondsMovingAverageMaxReached NegativeSigmoidSteepness ValueNotInBounds
        MinAllowedUidsGreaterThanCurrentUids MinAllowedUidsGreaterThanMaxAllowedUids
        MaxAllowedUidsLessThanMinAllowedUids MaxAllowedUidsGreaterThanDefaultMaxAllowedUids InvalidValue
        NotPermittedOnRootSubnet POWRegistrationDisabled Deprecated CollateralLockShareTooHigh
        CollateralDrainRatioOutOfBounds GrandpaChangeDelayMustBeZero""".split()

    @property
    def module(self):
        return self.runtime.SubtensorModule
