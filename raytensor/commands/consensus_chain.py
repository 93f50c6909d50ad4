"""A subnet's consensus state, read from a running chain at one block.

In: a netuid and endpoints. Out: a `Snapshot` for `raytensor consensus`. Waits for: the chain's answers.
Stake weights are those of the runtime API SubnetInfoRuntimeApi.get_subnet_state, which returns whole rao: up to one rao
per neuron is lost. The emission is the amount pending since the last epoch, so the result is "if the epoch ran now".
"""

from collections.abc import Sequence

import numpy as np

from raytensor.chain.reads.metagraph import PALLET
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.scale_reader import ScaleReader
from raytensor.consensus import NO_COMMIT, EpochInput, Rows, stake_weight
from raytensor.consensus.snapshot import Snapshot
from raytensor.errors import ChainError

# key here -> storage item per subnet
_PER_SUBNET = {
    "tempo": "Tempo",
    "factor_milli": "ActivityCutoffFactorMilli",
    "max_validators": "MaxAllowedValidators",
    "kappa": "Kappa",
    "bonds_penalty": "BondsPenalty",
    "bonds_moving_average": "BondsMovingAverage",
    "alpha_values": "AlphaValues",
    "alpha_sigmoid_steepness": "AlphaSigmoidSteepness",
    "yuma3": "Yuma3On",
    "liquid_alpha": "LiquidAlphaOn",
    "commit_reveal": "CommitRevealWeightsEnabled",
    "last_mechanism_step_block": "LastMechansimStepBlock",
    "owner_hotkey": "SubnetOwnerHotkey",
    "epoch_index": "SubnetEpochIndex",
    "reveal_period": "RevealPeriodEpochs",
    "pending_server": "PendingServerEmission",
    "pending_validator": "PendingValidatorEmission",
    "pending_root": "PendingRootAlphaDivs",
}
# keys that are fields of `EpochInput` with the same value
_SAME_NAME = ("kappa", "bonds_penalty", "bonds_moving_average", "alpha_sigmoid_steepness")
_SAME_NAME += ("yuma3", "liquid_alpha", "commit_reveal", "last_mechanism_step_block")


def fetch_snapshot(netuid: int, endpoints: Sequence[str] | str, *, timeout_s: float = 20.0) -> Snapshot:
    """The state of a subnet's first mechanism at the best block.

    timeout_s: limit for each answer of the node. Raises ChainError if there is no such subnet, ChainUnavailable if no
    endpoint answers.
    """
    with ChainClient(endpoints, timeout_s) as client:
        head = client.head()
        name, argument = "SubnetInfoRuntimeApi_get_subnet_state", netuid.to_bytes(2, "little")
        state = _SubnetState(client.runtime_call(name, argument, head.hash))
        if not state.exists:
            raise ChainError(f"there is no subnet {netuid} at block {head.number} of {client.endpoint}")
        values = client.query_many([(PALLET, name, [netuid]) for name in _PER_SUBNET.values()], head.hash)
        subnet = dict(zip(_PER_SUBNET, values))
        reads = [(PALLET, "StakeThreshold", []), (PALLET, "TaoWeight", [])]
        threshold, tao_weight = client.query_many(reads, head.hash)
        n = len(state.hotkeys)
        stake, stake_frac = stake_weight(state.alpha_stake, state.tao_stake, tao_weight)
        matrices = []
        for name in ("Weights", "Bonds"):
            found = client.query_map(PALLET, name, [netuid], head.hash)
            matrices.append(Rows.from_lists([[p for p in found.get(uid, ()) if p[0] < n] for uid in range(n)]))
        commits = np.full(n, NO_COMMIT, np.uint64)
        if subnet["commit_reveal"]:
            commits = _commit_blocks(client, netuid, subnet, state.hotkeys, head.hash)
        owner = subnet["owner_hotkey"]
        inputs = EpochInput(
            block=head.number,
            tempo=subnet["tempo"],
            activity_cutoff=max(1, subnet["factor_milli"] * subnet["tempo"] // 1000),
            last_update=state.last_update,
            block_at_registration=state.block_at_registration,
            stake=stake,
            stake_frac=stake_frac,
            stake_threshold=threshold,
            owner_uid=state.hotkeys.index(owner) if owner in state.hotkeys else None,
            validator_permit=state.validator_permit,
            weights=matrices[0],
            bonds=matrices[1],
            max_validators=subnet["max_validators"],
            emission=subnet["pending_server"] + subnet["pending_validator"] + subnet["pending_root"],
            alpha_low=subnet["alpha_values"][0],
            alpha_high=subnet["alpha_values"][1],
            commit_block=commits,
            **{key: subnet[key] for key in _SAME_NAME},
        )
        source = f"{client.endpoint} at block {head.number}"
        return Snapshot(netuid, 0, tuple(state.hotkeys), tuple(state.coldkeys), inputs, source)


def _commit_blocks(client: ChainClient, netuid: int, subnet: dict, hotkeys: Sequence[str], at: str) -> np.ndarray:
    """Block of each uid's earliest live weight commit: unexpired hash commits and timelocked ones. uint64 [n]."""
    earliest: dict[str, int] = {}
    for account, commits in client.query_map(PALLET, "WeightCommits", [netuid], at).items():
        live = [block for _, epoch, block, _ in commits if epoch + subnet["reveal_period"] >= subnet["epoch_index"]]
        if live:
            earliest[account] = min(live)
    for commits in client.query_map(PALLET, "TimelockedWeightCommits", [netuid], at).values():
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
