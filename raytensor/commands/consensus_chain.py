"""A subnet's consensus state, read from a running chain at one block.

In: a netuid and endpoints. Out: a `Snapshot` for `raytensor consensus`: the inputs of all mechanisms, what is pending,
the schedule and the accounts. Waits for: the chain's answers. Items that the chain's metadata does not have get the
value that such a chain implies. Stake weights are those of the runtime API SubnetInfoRuntimeApi.get_subnet_state, in
whole rao.
"""

from collections.abc import Sequence

import numpy as np

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.scale_reader import ScaleReader
from raytensor.commands.consensus_accounts import ChainState, read_accounts, read_emission, read_next_epoch_block
from raytensor.consensus import NO_COMMIT, EpochInput, Rows, stake_weight
from raytensor.consensus.forecast import Subnet
from raytensor.consensus.snapshot import Snapshot
from raytensor.errors import ChainError

# fields of `EpochInput` with the same value -> storage item per subnet, and its value where the chain has no such item
_SCALARS = {
    "tempo": ("Tempo", None),
    "max_validators": ("MaxAllowedValidators", None),
    "kappa": ("Kappa", None),
    "bonds_penalty": ("BondsPenalty", 65535),
    "bonds_moving_average": ("BondsMovingAverage", None),
    "alpha_sigmoid_steepness": ("AlphaSigmoidSteepness", 1000),
    "yuma3": ("Yuma3On", False),
    "liquid_alpha": ("LiquidAlphaOn", False),
    "commit_reveal": ("CommitRevealWeightsEnabled", False),
    "last_mechanism_step_block": ("LastMechansimStepBlock", None),
    "last_yuma_step_block": ("LastYumaStepBlock", None),
}
MECHANISM_STRIDE = 4096  # storage index of a mechanism: mecid * 4096 + netuid (subnets/mechanism.rs)


def fetch_snapshot(netuid: int, endpoints: Sequence[str] | str, *, timeout_s: float = 20.0) -> Snapshot:
    """The state of a subnet at the best block.

    timeout_s: limit for each answer of the node. Raises ChainError if there is no such subnet, ChainUnavailable if no
    endpoint answers.
    """
    with ChainClient(endpoints, timeout_s) as client:
        head = client.head()
        name, argument = "SubnetInfoRuntimeApi_get_subnet_state", netuid.to_bytes(2, "little")
        state = _SubnetState(client.runtime_call(name, argument, head.hash))
        if not state.exists:
            raise ChainError(f"there is no subnet {netuid} at block {head.number} of {client.endpoint}")
        chain = ChainState(client, netuid, head.hash)
        shared = _shared_inputs(chain, state, head.number)
        count = chain.get("MechanismCountCurrent", [netuid], 1)
        mechanisms = tuple(_mechanism(chain, state, shared, mecid) for mecid in range(count))
        source = f"{client.endpoint} at block {head.number}"
        names = (tuple(state.hotkeys), tuple(state.coldkeys))
        accounts = read_accounts(chain, *names)
        split = chain.get("MechanismEmissionSplit", [netuid], None)
        emission = read_emission(chain)
        subnet = None
        if (due := read_next_epoch_block(chain, head.number)) is not None:
            subnet = Subnet(mechanisms, tuple(split) if split else None, due, emission, accounts)
        return Snapshot(netuid, 0, *names, mechanisms[0], source, subnet)


def _shared_inputs(chain: "ChainState", state: "_SubnetState", block: int) -> dict:
    """The fields of `EpochInput` that all mechanisms share."""
    netuid = chain.netuid
    fields = {name: chain.get(item, [netuid], default) for name, (item, default) in _SCALARS.items()}
    stake, stake_frac = stake_weight(state.alpha_stake, state.tao_stake, chain.get("TaoWeight", [], 0))
    factor, cutoff = chain.get("ActivityCutoffFactorMilli", [netuid], None), chain.get("ActivityCutoff", [netuid], 5000)
    low, high = chain.get("AlphaValues", [netuid], (45875, 58982))
    mode, kind = (chain.get(item, [netuid], None) for item in ("LiquidAlphaConsensusMode", "SubnetEpochConsensus"))
    owner = chain.get("SubnetOwnerHotkey", [netuid], None)
    pending = ("PendingServerEmission", "PendingValidatorEmission", "PendingRootAlphaDivs")
    return fields | {
        "block": block,
        "activity_cutoff": cutoff if factor is None else max(1, factor * fields["tempo"] // 1000),
        "block_at_registration": state.block_at_registration,
        "stake": stake,
        "stake_frac": stake_frac,
        "stake_threshold": chain.get("StakeThreshold", [], 0),
        "owner_uid": state.hotkeys.index(owner) if owner in state.hotkeys else None,
        "validator_permit": state.validator_permit,
        "emission": sum(chain.get(item, [netuid], 0) for item in pending),
        "alpha_low": low,
        "alpha_high": high,
        # a chain without the item compares with the current consensus
        "liquid_alpha_mode": "current" if mode is None else mode.lower(),
        "epoch_kind": "yuma" if kind is None else kind.lower(),
    }


def _mechanism(chain: "ChainState", state: "_SubnetState", shared: dict, mecid: int) -> EpochInput:
    """The input of one mechanism: its weights, bonds, commits and stored consensus."""
    n, index = len(state.hotkeys), mecid * MECHANISM_STRIDE + chain.netuid
    rows = []
    for item in ("Weights", "Bonds"):
        found = chain.map(item, [index])
        rows.append(Rows.from_lists([[p for p in found.get(uid, ()) if p[0] < n] for uid in range(n)]))
    commits = _commit_blocks(chain, index, state.hotkeys) if shared["commit_reveal"] else None
    updated = list(chain.get("LastUpdate", [index], ()))[:n]
    return EpochInput(
        **shared,
        last_update=np.array([*updated, *[0] * (n - len(updated))], np.uint64),
        weights=rows[0],
        bonds=rows[1],
        commit_block=commits,  # pyright: ignore[reportArgumentType]  # None becomes NO_COMMIT
        previous_consensus=np.array(chain.get("ConsensusByMechanism", [index], ()), np.uint16),
    )


def _commit_blocks(chain: "ChainState", index: int, hotkeys: Sequence[str]) -> np.ndarray:
    """Block of each uid's earliest weight commit that is live at the next epoch, hashed or timelocked. uint64 [n]."""
    period = chain.get("RevealPeriodEpochs", [chain.netuid], 1)
    epoch_index = chain.get("SubnetEpochIndex", [chain.netuid], 0) + 1  # it advances before consensus runs
    earliest: dict[str, int] = {}
    for account, commits in chain.map("WeightCommits", [index]).items():
        live = [block for _, epoch, block, _ in commits if epoch + period >= epoch_index]
        if live:
            earliest[account] = min(live)
    for commits in chain.map("TimelockedWeightCommits", [index]).values():
        for account, block, _, _ in commits:
            earliest[account] = min(block, earliest.get(account, block))
    return np.array([earliest.get(hotkey, NO_COMMIT) for hotkey in hotkeys], np.uint64)


class _SubnetState:
    """The fields of SCALE `Option<SubnetState>` that consensus reads (pallet subtensor, rpc_info/show_subnet.rs)."""

    def __init__(self, data: bytes) -> None:
        self.exists = data[:1] == b"\x01"
        if not self.exists:
            return
        reader = ScaleReader(data, 1)
        reader.compact()  # netuid
        self.hotkeys, self.coldkeys = reader.accounts(), reader.accounts()
        reader.flags()  # active: computed from last_update
        self.validator_permit = reader.flags()
        reader.compacts()  # pruning_score
        self.last_update = reader.compacts()
        for _ in ("emission", "dividends", "incentives", "consensus", "trust", "rank"):
            reader.compacts()
        self.block_at_registration = reader.compacts()
        self.alpha_stake, self.tao_stake = reader.compacts(), reader.compacts()
