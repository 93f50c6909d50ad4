"""What the chain would pay, asked of a running chain: a subnet's consensus state read from an endpoint.

In: a netuid and an endpoint. Out: a `Snapshot` that `raytensor consensus` computes with; the whole command, wired to the
chain and to Ray. Waits for: the chain's answers, 20 s each.
The stake weights are those of the chain's own runtime API (SubnetInfoRuntimeApi.get_subnet_state), which gives whole
rao: a fraction of a rao per neuron is lost. The emission is what has piled up since the last epoch, so the answer is
"if the epoch ran now".
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from raytensor.chain.reads.metagraph import PALLET
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.codec import account_address, decode_compact
from raytensor.commands import consensus as consensus_cli
from raytensor.config import Cluster
from raytensor.consensus import NO_COMMIT, EpochInput, EpochOutput, Rows, stake_weight
from raytensor.consensus.snapshot import Snapshot, write_snapshot
from raytensor.errors import ChainError

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


def fetch_snapshot(netuid: int, endpoint: str, *, timeout_s: float = 20.0) -> Snapshot:
    """The state of a subnet's first mechanism at the best block. Raises ChainError when there is no such subnet."""
    with ChainClient(endpoint, timeout_s) as client:
        head = client.head()
        state = _SubnetState(
            client.runtime_call("SubnetInfoRuntimeApi_get_subnet_state", netuid.to_bytes(2, "little"), head.hash)
        )
        if not state.exists:
            raise ChainError(f"there is no subnet {netuid} at block {head.number} of {client.endpoint}")
        values = client.query_many([(PALLET, name, [netuid]) for name in _PER_SUBNET.values()], head.hash)
        subnet = dict(zip(_PER_SUBNET, values))
        threshold, tao_weight = client.query_many(
            [(PALLET, "StakeThreshold", []), (PALLET, "TaoWeight", [])], head.hash
        )
        n = len(state.hotkeys)
        stake, stake_frac = stake_weight(state.alpha_stake, state.tao_stake, tao_weight)
        rows = [client.query_map(PALLET, name, [netuid], head.hash) for name in ("Weights", "Bonds")]
        weights, bonds = (
            Rows.from_lists([[pair for pair in found.get(uid, ()) if pair[0] < n] for uid in range(n)])
            for found in rows
        )
        inputs = EpochInput(
            block=head.number,
            tempo=subnet["tempo"],
            activity_cutoff=max(1, subnet["factor_milli"] * subnet["tempo"] // 1000),
            last_update=state.last_update,
            block_at_registration=state.block_at_registration,
            stake=stake,
            stake_frac=stake_frac,
            stake_threshold=threshold,
            owner_uid=state.hotkeys.index(subnet["owner_hotkey"]) if subnet["owner_hotkey"] in state.hotkeys else None,
            validator_permit=state.validator_permit,
            weights=weights,
            bonds=bonds,
            max_validators=subnet["max_validators"],
            emission=subnet["pending_server"] + subnet["pending_validator"] + subnet["pending_root"],
            alpha_low=subnet["alpha_values"][0],
            alpha_high=subnet["alpha_values"][1],
            commit_block=_commit_blocks(client, netuid, subnet, state.hotkeys, head.hash)
            if subnet["commit_reveal"]
            else None,
            **{
                key: subnet[key]
                for key in (
                    "kappa",
                    "bonds_penalty",
                    "bonds_moving_average",
                    "alpha_sigmoid_steepness",
                    "yuma3",
                    "liquid_alpha",
                    "commit_reveal",
                    "last_mechanism_step_block",
                )
            },
        )
        return Snapshot(
            netuid, 0, tuple(state.hotkeys), tuple(state.coldkeys), inputs, f"{client.endpoint} at block {head.number}"
        )


def main(argv: Sequence[str]) -> int:
    """`raytensor consensus ...` with a chain to read from and a cluster to compute on. Returns the exit status."""
    if argv[:1] == ["snapshot"]:
        return snapshot_main(argv[1:])
    return consensus_cli.main(argv, fetch=fetch_snapshot, on_cluster=_on_cluster)


def snapshot_main(argv: Sequence[str]) -> int:
    """`raytensor consensus snapshot`: a subnet's state in a file, for `--from`. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="raytensor consensus snapshot",
        description="Writes a subnet's consensus state as it is now to a Parquet file, for `raytensor consensus --from FILE`.",
        epilog="example: raytensor consensus snapshot --netuid 2 --endpoint ws://127.0.0.1:9944 subnet2.parquet",
    )
    parser.add_argument("--netuid", type=int, required=True, help="the subnet")
    parser.add_argument("--endpoint", metavar="URL", required=True, help="a chain to read from, ws://… or wss://…")
    parser.add_argument("file", metavar="FILE", help="the file to write; one that is there is replaced")
    args = parser.parse_args(argv)
    snapshot = fetch_snapshot(args.netuid, args.endpoint)
    write_snapshot(snapshot, args.file)
    print(f"{args.file}: subnet {args.netuid}, {snapshot.inputs.n} neurons, {snapshot.source}")
    return 0


def _on_cluster(inputs: EpochInput) -> EpochOutput:
    import ray

    from raytensor import cluster
    from raytensor.commands.consensus_cluster import epoch_on_cluster

    if not ray.is_initialized():
        cluster.connect(Cluster())
    return epoch_on_cluster(inputs)


def _commit_blocks(client: ChainClient, netuid: int, subnet: dict, hotkeys: list[str], block_hash: str) -> np.ndarray:
    """Earliest block of a live weight commit of each uid: hash commits that have not expired, and timelocked ones."""
    earliest: dict[str, int] = {}
    for account, commits in client.query_map(PALLET, "WeightCommits", [netuid], block_hash).items():
        live = [block for _, epoch, block, _ in commits if epoch + subnet["reveal_period"] >= subnet["epoch_index"]]
        if live:
            earliest[account] = min(live)
    for commits in client.query_map(PALLET, "TimelockedWeightCommits", [netuid], block_hash).values():
        for account, block, _, _ in commits:
            earliest[account] = min(block, earliest.get(account, block))
    return np.array([earliest.get(hotkey, NO_COMMIT) for hotkey in hotkeys], np.uint64)


class _SubnetState:
    """The fields of SCALE `Option<SubnetState>` that consensus reads (pallet subtensor, rpc_info/show_subnet.rs)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 1
        self.exists = data[:1] == b"\x01"
        if not self.exists:
            return
        self._compact()  # netuid
        self.hotkeys, self.coldkeys = self._accounts(), self._accounts()
        self._bools()  # active: follows from last_update
        self.validator_permit = self._bools()
        self._numbers()  # pruning_score
        self.last_update = self._numbers()
        for _ in ("emission", "dividends", "incentives", "consensus", "trust", "rank"):
            self._numbers()
        self.block_at_registration = self._numbers()
        self.alpha_stake, self.tao_stake = self._numbers(), self._numbers()

    def _compact(self) -> int:
        value, self._at = decode_compact(self._data, self._at)
        return value

    def _accounts(self) -> list[str]:
        count = self._compact()
        start, self._at = self._at, self._at + 32 * count
        return [account_address(self._data[at : at + 32]) for at in range(start, self._at, 32)]

    def _bools(self) -> np.ndarray:
        count = self._compact()
        start, self._at = self._at, self._at + count
        return np.frombuffer(self._data[start : self._at], np.uint8).astype(bool)

    def _numbers(self) -> np.ndarray:
        return np.array([self._compact() for _ in range(self._compact())], np.uint64)
