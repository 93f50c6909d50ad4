"""What a subnet has to pay at its next epoch: the emission that is pending, and that of the blocks until then.

In: `Emission`, the chain's storage after a block. Out: the same after later blocks. Arithmetic:
coinbase/run_coinbase.rs, 32 fractional bits, truncated to rao. Knows nothing of who is paid.

Injected alpha moves root's share of the emission by a few rao an epoch. While the injection is at its cap (root's
proportion of the block's alpha) the forecast of it is exact; below the cap it depends on the prices of all subnets, and
the amount of the last block is used for the blocks to come.
"""

from dataclasses import dataclass, replace

_ONE32, _U16, _U64 = 1 << 32, 65535, 2**64 - 1
TOTAL_SUPPLY_RAO = 21_000_000 * 10**9
FULL_EMISSION_RAO = 10**9  # a block, before the first halving


def block_emission_rao(issuance_rao: int) -> int:
    """Alpha of one block at this issuance: 10^9 rao, halved each time half of the remaining supply is issued.

    Source: `get_block_emission_for_issuance` (coinbase/block_emission.rs).
    """
    left = _ONE32 - (issuance_rao << 32) // TOTAL_SUPPLY_RAO
    if issuance_rao >= TOTAL_SUPPLY_RAO or left <= 0:
        return 0
    return FULL_EMISSION_RAO >> (((_ONE32 * _ONE32) // left).bit_length() - 33)


@dataclass(frozen=True, slots=True)
class Pots:
    """A subnet's pending emission, rao of alpha: for miners, validators' alpha, validators' root stake, the owner."""

    server_rao: int = 0
    validator_rao: int = 0
    root_rao: int = 0
    owner_rao: int = 0

    @property
    def consensus_rao(self) -> int:
        """The part that consensus divides among neurons: all but the owner's cut."""
        return self.server_rao + self.validator_rao + self.root_rao

    def scaled_to(self, consensus_rao: int) -> "Pots":
        """The same proportions for another amount; validators' alpha takes the rest of the division."""
        total = max(self.consensus_rao, 1)
        server = self.server_rao * consensus_rao // total if self.consensus_rao else consensus_rao // 2
        root = self.root_rao * consensus_rao // total
        return replace(self, server_rao=server, root_rao=root, validator_rao=consensus_rao - server - root)


@dataclass(frozen=True, slots=True)
class Emission:
    """A subnet's emission after a block. All amounts in rao.

    issuance_rao      alpha in the pool, outside it and in the balancer's reservoir.
    root_tao_rao      TAO staked on root; tao_weight: u64 of 2^64 - 1.
    owner_cut         u16 of 65535; 0 where the cut is disabled.
    injected_rao      alpha that the last block added to the pool.
    emits             whether the subnet has started; root_sells: whether root's part is paid, not recycled.
    """

    pots: Pots
    issuance_rao: int
    root_tao_rao: int
    tao_weight: int
    owner_cut: int
    injected_rao: int
    emits: bool
    root_sells: bool

    def after(self, num_blocks: int) -> "Emission":
        """The emission `num_blocks` later, if nobody trades or stakes."""
        state = self
        capped = self.injected_rao >= self._cap_rao() - 1
        for _ in range(num_blocks if self.emits else 0):
            state = state._next_block(capped)
        return state

    def _root_proportion32(self) -> int:
        root = self.root_tao_rao * ((self.tao_weight << 32) // _U64)
        total = root + (self.issuance_rao << 32)
        return (root << 32) // total if total else 0

    def _cap_rao(self) -> int:
        created32 = block_emission_rao(self.issuance_rao) << 32
        return (self._root_proportion32() * created32) >> 64

    def _next_block(self, capped: bool) -> "Emission":
        created = block_emission_rao(self.issuance_rao)
        injected = self._cap_rao() if capped else min(self.injected_rao, self._cap_rao())
        # root's proportion is read after the injection and the minting
        state = replace(self, issuance_rao=self.issuance_rao + injected + created, injected_rao=injected)
        rest32 = created << 32
        cut32 = (rest32 * ((self.owner_cut << 32) // _U16)) >> 32
        rest32 -= cut32
        root32 = ((state._root_proportion32() * rest32) >> 32) // 2
        server32 = rest32 // 2
        validator32 = rest32 - server32 - root32
        pots = Pots(
            self.pots.server_rao + (server32 >> 32),
            self.pots.validator_rao + (validator32 >> 32),
            self.pots.root_rao + (root32 >> 32 if self.root_sells else 0),
            self.pots.owner_rao + (cut32 >> 32),
        )
        recycled = 0 if self.root_sells else root32 >> 32
        return replace(state, pots=pots, issuance_rao=state.issuance_rao - recycled)
