"""Creates a subnet on a development chain with ordinary extrinsics.

In: a client, a `SubnetSpec`. Out: the netuid and the uid of every neuron. Sudo sets the hyperparameters, a development
account with funds registers the subnet and funds the coldkeys, the coldkeys register their hotkeys and stake, and the
validators' hotkeys add the delegate as their proxy, if there is one. Each step takes one block: calls of one account
share a batch, and accounts submit concurrently. Existing state is kept, so that a second run changes nothing.
For chains with a known sudo key; knows nothing of Ray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raytensor.chain.bulk_submitter import BulkSubmitter
from raytensor.chain.calls import Call
from raytensor.chain.reads.quotes import network_cost
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey, KeyRef, Signer
from raytensor.errors import ChainRefused, ConfigError

RAO = 10**9
PALLET = "SubtensorModule"
MAX_BURN_RAO = RAO  # limit of the registration price, which else grows by a factor of 1.26 per registration
DEFAULT_UIDS = 256  # neurons of a subnet, unless sudo allows more
FEES_RAO = 10 * RAO  # funds of an account for fees and deposits, in addition to what it stakes

DEFAULT_OWNER = (DevKey("//raytensor//owner//hot"), DevKey("//raytensor//owner//cold"))

# Hyperparameter call -> storage item with its current value.
_SHOWN_BY = {
    "sudo_set_network_rate_limit": "NetworkRateLimit",
    "sudo_set_stake_threshold": "StakeThreshold",
    "sudo_set_tempo": "Tempo",
    "sudo_set_weights_set_rate_limit": "WeightsSetRateLimit",
    "sudo_set_commit_reveal_weights_enabled": "CommitRevealWeightsEnabled",
    "sudo_set_subnet_emission_enabled": "SubnetEmissionEnabled",
    "sudo_set_min_burn": "MinBurn",
    "sudo_set_max_burn": "MaxBurn",
    "sudo_set_max_allowed_validators": "MaxAllowedValidators",
    "sudo_set_max_allowed_uids": "MaxAllowedUids",
    "sudo_set_min_allowed_weights": "MinAllowedWeights",
    "sudo_set_immunity_period": "ImmunityPeriod",
    "sudo_set_serving_rate_limit": "ServingRateLimit",
}


@dataclass(frozen=True, slots=True)
class Neuron:
    """A hotkey to be registered.

    role       owner (registers the subnet; at most one), validator or miner.
    stake_rao  stake that its coldkey adds, in rao of TAO.
    """

    name: str
    role: str
    hotkey: KeyRef
    coldkey: KeyRef
    stake_rao: int = 0


@dataclass(frozen=True)
class SubnetSpec:
    """The subnet to create.

    neurons          in the order in which they register. Without an owner among them, `DEFAULT_OWNER` is the owner.
    tempo            blocks between two epochs.
    rich, sudo       development accounts: one with funds, and the one that may set hyperparameters.
    delegate         proxy of the validators' hotkeys, so that one extrinsic can carry all their weights.
    hyperparameters  AdminUtils call -> value, over the defaults of `_hyperparameters`.
    """

    neurons: Sequence[Neuron]
    tempo: int = 20
    rich: KeyRef = DevKey("//Alice")
    sudo: KeyRef = DevKey("//Alice")
    delegate: KeyRef | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subnet:
    """The subnet that was created or found: uids by hotkey (ss58).

    costs_rao  what creating it took from the accounts, in rao of TAO: "fees", "subnet" and "registrations".
    """

    netuid: int
    uids: dict[str, int]
    block: int
    costs_rao: dict[str, int]


def make_subnet(
    client: ChainClient,
    spec: SubnetSpec,
    *,
    progress: Callable[[str], None] = lambda text: None,
    timeout_s: float = 60.0,
) -> Subnet:
    """Create the missing parts of the subnet, in at most five blocks. timeout_s: of each step.

    Raises ConfigError for an invalid spec, ChainRefused with the chain's reason.
    """
    plan = _Plan.of(spec)
    if missing := [name for name in spec.hyperparameters if not client.runtime.has_call("AdminUtils", name)]:
        raise ConfigError(
            f"runtime {client.spec_version} has no AdminUtils.{', AdminUtils.'.join(missing)}: leave it out"
        )
    rich, sudo = spec.rich.open(), spec.sudo.open()
    step = BulkSubmitter(client, timeout_s)

    netuid, opened_rao = find_subnet(client, plan.owner.hotkey.ss58), 0
    progress("funding the coldkeys" if netuid is None else f"found subnet {netuid}")
    step.add(sudo, _sudo(_settings(client, spec, None)))
    step.add(rich, *_transfers(client, plan, netuid is None))
    step.run()
    if netuid is None:
        progress("opening a subnet")
        step.add(plan.owner.coldkey, Call(PALLET, "register_network", {"hotkey": plan.owner.hotkey.ss58}))
        opened_rao = step.run()
        netuid = find_subnet(client, plan.owner.hotkey.ss58)
        assert netuid is not None, "the subnet was registered and is not there"

    if client.query(PALLET, "FirstEmissionBlockNumber", [netuid]) is None:
        step.add(plan.owner.coldkey, Call(PALLET, "start_call", {"netuid": netuid}))
    step.add(sudo, _sudo(_settings(client, spec, netuid)))
    step.run()

    registered = client.query_many([(PALLET, "Uids", [netuid, keys.hotkey.ss58]) for keys in plan.neurons])
    missing = [keys for keys, uid in zip(plan.neurons, registered) if uid is None]
    if missing:
        progress(f"registering {len(missing)} neurons on subnet {netuid}")
    for keys in missing:
        step.add(keys.coldkey, Call(PALLET, "burned_register", {"netuid": netuid, "hotkey": keys.hotkey.ss58}))
    registered_rao = step.run()

    staked = client.query_many([(PALLET, "TotalHotkeyAlpha", [keys.hotkey.ss58, netuid]) for keys in plan.neurons])
    for keys, alpha in zip(plan.neurons, staked):
        if keys.stake_rao > 0 and alpha == 0:
            args = {"hotkey": keys.hotkey.ss58, "netuid": netuid, "amount_staked": keys.stake_rao}
            step.add(keys.coldkey, Call(PALLET, "add_stake", args))
    for hotkey in _without_proxy(client, plan):
        assert plan.delegate is not None
        args = {"delegate": plan.delegate.ss58, "proxy_type": "NonTransfer", "delay": 0}
        step.add(hotkey, Call("Proxy", "add_proxy", args))
    if step.waiting:
        progress("staking for the validators")
    step.run()
    head = client.head()
    uids = client.query_many([(PALLET, "Uids", [netuid, keys.hotkey.ss58]) for keys in plan.neurons], head.hash)
    pruned = [keys.hotkey.ss58 for keys, uid in zip(plan.neurons, uids) if uid is None]
    if pruned:
        lost = f"{len(pruned)} of {len(uids)} neurons lost their place on subnet {netuid} to later ones"
        raise ChainRefused(f"{lost}; allow more with sudo_set_max_allowed_uids")
    costs = {"fees": step.fees_rao, "subnet": opened_rao, "registrations": registered_rao}
    return Subnet(netuid, {keys.hotkey.ss58: uid for keys, uid in zip(plan.neurons, uids)}, head.number, costs)


def find_subnet(client: ChainClient, owner_hotkey: str) -> int | None:
    """The netuid that this hotkey owns, None if it owns none."""
    for netuid, hotkey in client.query_map(PALLET, "SubnetOwnerHotkey").items():
        if hotkey == owner_hotkey and client.query(PALLET, "NetworksAdded", [netuid]):
            return netuid
    return None


@dataclass(frozen=True, slots=True)
class _Keys:
    """The signers of a neuron."""

    role: str
    hotkey: Signer
    coldkey: Signer
    stake_rao: int = 0


@dataclass(frozen=True, slots=True)
class _Plan:
    owner: _Keys
    neurons: tuple[_Keys, ...]
    delegate: Signer | None

    @classmethod
    def of(cls, spec: SubnetSpec) -> _Plan:
        """Open the keys. Raises ConfigError for neurons that can't form a subnet."""
        neurons = tuple(_Keys(n.role, n.hotkey.open(), n.coldkey.open(), n.stake_rao) for n in spec.neurons)
        if unknown := {keys.role for keys in neurons} - {"owner", "validator", "miner"}:
            raise ConfigError(f"role {', '.join(sorted(unknown))}: a neuron is an owner, a validator or a miner")
        if len({keys.hotkey.ss58 for keys in neurons}) != len(neurons):
            raise ConfigError("two neurons have the same hotkey: give each its own")
        owners = [keys for keys in neurons if keys.role == "owner"]
        if len(owners) > 1:
            raise ConfigError(f"{len(owners)} neurons own the subnet: one at most can")
        owner = owners[0] if owners else _Keys("owner", DEFAULT_OWNER[0].open(), DEFAULT_OWNER[1].open())
        if any(keys.coldkey.ss58 == owner.coldkey.ss58 for keys in neurons if keys is not owner):
            why = "the chain burns the incentive of an owner's hotkeys, so give the other neurons another coldkey"
            raise ConfigError(f"{owner.coldkey.ss58} owns the subnet and other neurons: {why}")
        return cls(owner, neurons, spec.delegate.open() if spec.delegate is not None else None)


def _hyperparameters(spec: SubnetSpec, netuid: int | None) -> dict[str, Any]:
    """Hyperparameters of the chain (netuid None) or of the subnet."""
    if netuid is None:
        own = {"sudo_set_network_rate_limit": 0, "sudo_set_stake_threshold": 0}
        return {name: spec.hyperparameters.get(name, value) for name, value in own.items()}
    own = {
        "sudo_set_tempo": spec.tempo,
        "sudo_set_weights_set_rate_limit": 0,
        "sudo_set_commit_reveal_weights_enabled": False,
        "sudo_set_subnet_emission_enabled": True,
        "sudo_set_max_burn": MAX_BURN_RAO,
    }
    num_uids = len(spec.neurons) + 1  # an owner that is not among them has one too
    if num_uids > DEFAULT_UIDS:  # else each further registration would prune a neuron
        own["sudo_set_max_allowed_uids"] = num_uids
    more = {k: v for k, v in spec.hyperparameters.items() if k not in _hyperparameters(spec, None)}
    return {**own, **more}


def _settings(client: ChainClient, spec: SubnetSpec, netuid: int | None) -> list[Call]:
    """The hyperparameter calls whose value differs from the chain's."""
    calls = []
    for name, value in _hyperparameters(spec, netuid).items():
        shown = _SHOWN_BY.get(name)
        if not client.runtime.has_call("AdminUtils", name):
            continue  # an older runtime, which has no such setting
        keys = [] if netuid is None else [netuid]
        if shown and client.runtime.has_storage(PALLET, shown) and client.query(PALLET, shown, keys) == value:
            continue
        fields = client.runtime.call_fields("AdminUtils", name)
        calls.append(Call("AdminUtils", name, dict(zip(fields, [*keys, value], strict=True))))
    return calls


def _sudo(calls: list[Call]) -> Call | None:
    if not calls:
        return None
    inner = calls[0] if len(calls) == 1 else Call("Utility", "batch_all", {"calls": calls})
    return Call("Sudo", "sudo", {"call": inner})


def _transfers(client: ChainClient, plan: _Plan, opens: bool) -> list[Call]:
    """Transfers to the new accounts that have less than they will spend."""
    needs: dict[str, int] = {}
    for keys in plan.neurons:
        own = needs.setdefault(keys.coldkey.ss58, FEES_RAO)
        needs[keys.coldkey.ss58] = own + keys.stake_rao + 2 * MAX_BURN_RAO
        if plan.delegate is not None and keys.role == "validator":
            needs[keys.hotkey.ss58] = FEES_RAO
    if opens:
        needs[plan.owner.coldkey.ss58] = needs.get(plan.owner.coldkey.ss58, 0) + network_cost(client) + FEES_RAO
    if plan.delegate is not None:
        needs[plan.delegate.ss58] = 100 * FEES_RAO
    accounts = client.query_many([("System", "Account", [address]) for address in needs])
    return [
        Call("Balances", "transfer_keep_alive", {"dest": address, "value": need})
        for (address, need), account in zip(needs.items(), accounts)
        # An account that has signed was funded by an earlier run.
        if account["nonce"] == 0 and account["data"]["free"] < need
    ]


def _without_proxy(client: ChainClient, plan: _Plan) -> list[Signer]:
    """The validators' hotkeys that do not have the delegate as a proxy yet."""
    if plan.delegate is None:
        return []
    hotkeys = [keys.hotkey for keys in plan.neurons if keys.role == "validator"]
    found = client.query_many([("Proxy", "Proxies", [hotkey.ss58]) for hotkey in hotkeys])
    ours = plan.delegate.ss58
    return [hotkey for hotkey, (proxies, _) in zip(hotkeys, found) if all(p["delegate"] != ours for p in proxies)]
