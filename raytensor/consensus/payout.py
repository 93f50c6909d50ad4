"""Who is paid after an epoch: the owner, miners, validators with their nominators, root stakers.

In: `Accounts` (keys and stakes of a subnet), the pending `Pots` and what consensus gave to each neuron. Out: `Payout`,
rao of alpha by hotkey. Arithmetic: coinbase/run_coinbase.rs (calculate_dividend_and_incentive_distribution and
distribute_dividends_and_incentives), 32 fractional bits, truncated to rao. Miner collateral is not deducted. Knows
nothing of blocks and of how consensus is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from raytensor.consensus.emission import Pots

_ONE32, _U16, _U64 = 1 << 32, 65535, 2**64 - 1
Family = Mapping[str, Sequence[tuple[int, str]]]  # hotkey -> (proportion of 2^64 - 1, parent or child)
Rao = dict[str, int]


@dataclass(frozen=True, slots=True)
class Accounts:
    """The keys of a subnet's neurons, of their parents and of its owner. Hotkeys and coldkeys are ss58.

    hotkeys          by uid. owner_of: coldkey by hotkey.
    alpha_rao        stake on the subnet by hotkey; root_rao: stake on root. Own stake, without parents and children.
    parents, children   by hotkey, on this subnet.
    takes            u16 by hotkey: the validator's cut of dividends; child_takes: a child's of its parents' dividends.
    tao_weight, child_burn   u64 of 2^64 - 1.
    owner, owner_hotkey      of the subnet; None where there is none. withheld: hotkeys that get no incentive.
    auto_stake       hotkey that receives the incentive, by coldkey.
    root_hotkeys     hotkeys with a uid on root, if only these earn root's dividends (since spec 475), else None.
    """

    hotkeys: tuple[str, ...]
    owner_of: dict[str, str]
    alpha_rao: Rao
    root_rao: Rao
    parents: Family = field(default_factory=dict)
    children: Family = field(default_factory=dict)
    takes: dict[str, int] = field(default_factory=dict)
    child_takes: dict[str, int] = field(default_factory=dict)
    tao_weight: int = 0
    child_burn: int = 0
    owner: str | None = None
    owner_hotkey: str | None = None
    withheld: tuple[str, ...] = ()
    recycles: bool = False
    auto_stake: dict[str, str] = field(default_factory=dict)
    root_hotkeys: tuple[str, ...] | None = None

    def inherited_rao(self, hotkey: str) -> int:
        """Alpha that consensus counts (get_inherited_for_hotkey_on_subnet): less children's, plus parents' parts."""
        own = self.alpha_rao.get(hotkey, 0)
        total = own << 32
        for proportion, _ in self.children.get(hotkey, ()):
            total -= own * ((proportion << 32) // _U64)
        for proportion, parent in self.parents.get(hotkey, ()):
            total += self.alpha_rao.get(parent, 0) * ((proportion << 32) // _U64)
        return min(max(total, 0) >> 32, _U64)


@dataclass(frozen=True, slots=True)
class Payout:
    """Rao of alpha by hotkey: `incentive`, `dividends` (take and nominators), `root` (take and claims) and `owner_cut`.

    root_take: the part of `root` that becomes stake at once. withheld_rao: incentive of the owner's miners, which is
    burned or recycled. recycled_rao: what left the issuance.
    """

    incentive: Rao
    dividends: Rao
    root: Rao
    owner_cut: Rao
    root_take: Rao
    withheld_rao: int
    recycled_rao: int

    def total(self, hotkey: str) -> int:
        return sum(paid.get(hotkey, 0) for paid in (self.incentive, self.dividends, self.root, self.owner_cut))

    def hotkeys(self) -> set[str]:
        return {*self.incentive, *self.dividends, *self.root, *self.owner_cut}

    def stake_after(self, alpha_rao: Rao) -> Rao:
        """The stake by hotkey after these payments."""
        grown = dict(alpha_rao)
        for paid in (self.incentive, self.dividends, self.root_take, self.owner_cut):
            for hotkey, amount in paid.items():
                grown[hotkey] = grown.get(hotkey, 0) + amount
        return grown


def pay(accounts: Accounts, pots: Pots, incentive: Sequence[int], dividends: Sequence[int]) -> Payout:
    """Distribute the pots. incentive, dividends: rao that consensus gave to each uid, over all mechanisms."""
    recycled = 0
    validator_pot = pots.validator_rao + (0 if any(incentive) else pots.server_rao)
    shares: Rao = {}
    for hotkey, amount in zip(accounts.hotkeys, dividends, strict=True):
        if amount:
            parts, burned = _split_with_parents(accounts, hotkey, amount)
            recycled += burned
            for receiver, part in parts:
                shares[receiver] = shares.get(receiver, 0) + part
    local32, root32 = _local_and_root(accounts, dict(sorted(shares.items())))
    local = _shared_out(local32, validator_pot)
    root = _shared_out(root32, pots.root_rao)

    owner_cut: Rao = {}
    if accounts.owner is None or accounts.owner_hotkey is None:
        recycled += pots.owner_rao
    elif pots.owner_rao:
        owner_cut[accounts.owner_hotkey] = pots.owner_rao
    paid_miners: Rao = {}
    withheld = 0
    for hotkey, amount in zip(accounts.hotkeys, incentive, strict=True):
        if hotkey in accounts.withheld:
            withheld += amount
        elif amount:
            receiver = accounts.auto_stake.get(accounts.owner_of.get(hotkey, ""), hotkey)
            paid_miners[receiver] = paid_miners.get(receiver, 0) + amount
    recycled += withheld if accounts.recycles else 0

    paid_local, _ = _with_take(accounts, local)
    paid_root, root_take = _with_take(accounts, root)
    if not any(amount >> 32 for amount in root.values()):
        recycled += pots.root_rao
    return Payout(paid_miners, paid_local, paid_root, owner_cut, root_take, withheld, recycled)


def _with_take(accounts: Accounts, amounts32: Rao) -> tuple[Rao, Rao]:
    """(take and rest, take) by hotkey, each truncated to rao on its own."""
    paid, takes = {}, {}
    for hotkey, amount32 in amounts32.items():
        take32 = (((accounts.takes.get(hotkey, 0) << 32) // _U16) * amount32) >> 32
        total = (take32 >> 32) + ((amount32 - take32) >> 32)
        if total:
            paid[hotkey], takes[hotkey] = total, take32 >> 32
    return paid, takes


def _local_and_root(accounts: Accounts, dividends: Rao) -> tuple[Rao, Rao]:
    """Each dividend in the ratio of the hotkey's alpha to its weighted root stake, 32 fractional bits."""
    weight32 = (accounts.tao_weight << 32) // _U64
    local32, root32 = {}, {}
    for hotkey, dividend in dividends.items():
        alpha32 = accounts.alpha_rao.get(hotkey, 0) << 32
        tao32 = accounts.root_rao.get(hotkey, 0) * weight32
        total = alpha32 + tao32
        if accounts.root_hotkeys is None:
            root32[hotkey] = dividend * ((tao32 << 32) // total if total else 0)
            local32[hotkey] = (dividend << 32) - root32[hotkey]
        else:
            # since spec 475 the alpha part comes first, and the rest needs a uid on root
            local32[hotkey] = dividend * ((alpha32 << 32) // total if total else _ONE32)
            root32[hotkey] = (dividend << 32) - local32[hotkey] if hotkey in accounts.root_hotkeys else 0
    return local32, root32


def _shared_out(parts: Rao, pot: int) -> Rao:
    """A pot of rao in proportion to `parts`: 32 fractional bits, each share truncated."""
    total = sum(parts.values())
    return {hotkey: pot * ((part << 32) // total) if total else 0 for hotkey, part in parts.items()}


def _split_with_parents(accounts: Accounts, hotkey: str, dividends: int) -> tuple[list[tuple[str, int]], int]:
    """((hotkey, rao) of the parents and of itself, burned rao): get_parent_child_dividends_distribution.

    A parent's part is proportional to its stake; a parent of another coldkey pays the child's take and the burned part.
    """
    parents = accounts.parents.get(hotkey)
    if not parents:
        return [(hotkey, dividends)], 0
    burn = (accounts.child_burn << 32) // _U64
    take = (accounts.child_takes.get(hotkey, 0) << 32) // _U16
    own_part = _ONE32 - sum((p << 32) // _U64 for p, _ in accounts.children.get(hotkey, ()))
    own = _contribution(accounts, hotkey, max(own_part, 0)) >> 32 << 32
    given = [(parent, _contribution(accounts, parent, (p << 32) // _U64)) for p, parent in parents]
    total = own + sum(contribution for _, contribution in given)
    result, remaining, kept_takes, all_burned = [], dividends << 32, 0, 0
    for parent, contribution in given:
        emission = dividends * ((contribution << 32) // total if total else 0)
        remaining = max(0, remaining - emission)
        if accounts.owner_of.get(parent) != accounts.owner_of.get(hotkey):
            burned, kept = (burn * emission) >> 32, (take * emission) >> 32
            emission = max(0, emission - burned - kept)
            kept_takes += kept
            all_burned += burned >> 32
        result.append((parent, emission >> 32))
    return [*result, (hotkey, (remaining + kept_takes) >> 32)], all_burned


def _contribution(accounts: Accounts, hotkey: str, part: int) -> int:
    """`part` of a hotkey's alpha and weighted root stake, 32 fractional bits."""
    weight = (accounts.tao_weight << 32) // _U64
    root = (accounts.root_rao.get(hotkey, 0) * part * weight) >> 32
    return accounts.alpha_rao.get(hotkey, 0) * part + root
