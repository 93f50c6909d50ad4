"""Checks of the transaction extension: in the pool for an extrinsic's own call, and before every dispatch.

In: an origin and a call. Out: nothing, or a DispatchError whose name has a pool code in errors.CUSTOM_CODES.
The order is the chain's: coldkey swap, commitment, weights, rate limits, takes, serving (guards/*.rs), with the checks
of spec 475. Unsigned and root calls pass; so do calls of other pallets, unless the signer's coldkey swap is announced.
"""

from __future__ import annotations

from raytensor.devnet.pallet import Call, Origin
from raytensor.devnet.subtensor.neurons import storage_index

# Calls that stay open to a coldkey with an announced swap.
SWAP_CALLS = {
    ("SubtensorModule", "announce_coldkey_swap"),
    ("SubtensorModule", "swap_coldkey_announced"),
    ("SubtensorModule", "dispute_coldkey_swap"),
    ("SubtensorModule", "clear_coldkey_swap_announcement"),
    ("MevShield", "submit_encrypted"),
}
ONE_SUBNET = set(
    """set_weights set_mechanism_weights commit_weights commit_mechanism_weights reveal_weights reveal_mechanism_weights
    batch_reveal_weights commit_timelocked_weights commit_timelocked_mechanism_weights
    commit_crv3_mechanism_weights""".split()
)
MANY_SUBNETS = {"batch_set_weights", "batch_commit_weights"}
TIMELOCKED = {name for name in ONE_SUBNET if "timelocked" in name or "crv3" in name}
SETS = ("set_weights", "set_mechanism_weights")
COMMITS = ("commit_weights", "commit_mechanism_weights", *sorted(TIMELOCKED))
RATE_LIMITED = dict.fromkeys(SETS, "SettingWeightsTooFast") | dict.fromkeys(COMMITS, "CommittingWeightsTooFast")
BATCHED = {"batch_set_weights": "netuids", "batch_commit_weights": "netuids", "batch_reveal_weights": "uids_list"}


def _arguments(call: Call) -> dict:
    return dict(zip(call.spec.args, call.args))


class Checks:
    def precheck(self, origin: Origin, call: Call) -> None:
        who = origin.signer
        if who is None:
            return
        self._check_coldkey_swap(who, call)
        if (call.pallet, call.name) == ("Commitments", "set_commitment"):
            self._check_commitment(who, call["netuid"])
        if call.pallet != self.name:
            return
        name = call.name
        if name in ONE_SUBNET or name in MANY_SUBNETS:
            args = _arguments(call)
            self._check_weights(who, name, args)
            self._check_rate_limit(who, name, args)
        elif name == "pow_register":
            self.check_pow(who, *call.args)
        elif name == "register_network":
            if not self.network_rate_limit_passes():
                raise self.error("NetworkTxRateLimitExceeded")
        elif name in ("increase_take", "decrease_take"):
            args = _arguments(call)
            self.check_take(who, args["hotkey"], args["take"], name)
        elif name in ("serve_axon", "serve_axon_tls", "serve_prometheus"):
            endpoint = [call[argument] for argument in ("netuid", "ip", "port", "ip_type")]
            is_axon = name != "serve_prometheus"
            self.check_serving(who, *endpoint, self.Axons if is_axon else self.Prometheus, zero_ip=is_axon)

    def pool_tag(self, who: bytes, call: Call) -> bytes | None:
        """The pool holds one extrinsic of each tag: one commit of a hotkey and mechanism, where weights are limited."""
        if call.pallet != self.name or call.name not in (*COMMITS, "pow_register"):
            return None
        if call.name == "pow_register":
            return b"pow-register" + call["hotkey"] + call["work_block"].to_bytes(8, "little")
        args = _arguments(call)
        if not self.WeightsSetRateLimit[args["netuid"]]:
            return None
        index = storage_index(args["netuid"], args.get("mecid", 0))
        return b"weight-commit" + who + index.to_bytes(2, "little")

    def _check_commitment(self, who: bytes, netuid: int) -> None:
        if not self.NetworksAdded[netuid]:
            raise self.error("SubnetNotExists")
        if self.Uids[netuid, who] is None:
            raise self.error("HotKeyNotRegisteredInSubNet")

    def _check_coldkey_swap(self, who: bytes, call: Call) -> None:
        if who not in self.ColdkeySwapAnnouncements:
            return
        if who in self.ColdkeySwapDisputes:
            raise self.error("ColdkeySwapDisputed")
        if (call.pallet, call.name) not in SWAP_CALLS:
            raise self.error("ColdkeySwapAnnounced")

    def _check_weights(self, who: bytes, name: str, args: dict) -> None:
        if name in BATCHED:
            if len({len(value) for key, value in args.items() if key != "netuid"}) > 1:
                raise self.error("InputLengthsUnequal")
            if not 1 <= len(args[BATCHED[name]]) <= self.TotalNetworks.get():
                raise self.error("InvalidBatchLength")
        for netuid in args["netuids"] if name in MANY_SUBNETS else (args["netuid"],):
            if not self.meets_stake_threshold(who, netuid):
                raise self.error("NotEnoughStakeToSetWeights")
            uid = self.Uids[netuid, who]
            if self.is_null(netuid) and uid is not None and not self.ValidatorPermit[netuid][uid]:
                raise self.error("NeuronNoValidatorPermit")
        if name in SETS and self.CommitRevealWeightsEnabled[args["netuid"]]:
            raise self.error("CommitRevealEnabled")
        if name in TIMELOCKED and args["reveal_round"] < self.runtime.Drand.LastStoredRound.get():
            raise self.error("InvalidRevealRound")
        if name in ("reveal_weights", "reveal_mechanism_weights"):
            reveals = [(args["uids"], args["values"], args["salt"], args["version_key"])]
        elif name == "batch_reveal_weights":
            reveals = zip(args["uids_list"], args["values_list"], args["salts_list"], args["version_keys"])
        else:
            return
        netuid = args["netuid"]
        index = storage_index(netuid, args.get("mecid", 0))
        epochs = {}
        for digest, epoch, _, _ in self.WeightCommits[index, who] or ():
            epochs.setdefault(digest, epoch)
        for reveal in reveals:
            epoch = epochs.get(self.commit_digest(who, index, *reveal))
            if epoch is None:
                raise self.error("NoWeightsCommitFound")
            if not self.in_reveal_range(netuid, epoch):
                raise self.error("RevealTooEarly")

    def _check_rate_limit(self, who: bytes, name: str, args: dict) -> None:
        error = RATE_LIMITED.get(name)
        if error is None:
            return
        netuid = args["netuid"]
        uid = self.Uids[netuid, who]
        if uid is None:
            raise self.error("HotKeyNotRegisteredInSubNet")
        index = storage_index(netuid, args.get("mecid", 0))
        if uid >= len(self.LastUpdate[index]):
            return
        if not self.weights_rate_limit_passes(netuid, index, uid):
            raise self.error(error)
