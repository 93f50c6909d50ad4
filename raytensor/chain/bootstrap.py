"""A subnet on a development chain, made by the extrinsics that anyone would use.

In: a client, a `SubnetSpec`. Out: the netuid and the uid of every neuron. Sudo sets the hyperparameters, a rich
development account opens the subnet and funds the coldkeys, the coldkeys register their hotkeys and stake, and the
validators' hotkeys make the delegate their proxy if there is one. Each step is one block: calls of one account share a
batch, accounts go side by side. Whatever is there already is left as it is, so a second run changes nothing.
For chains whose sudo key is known; knows nothing of Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from raytensor.chain.calls import Call
from raytensor.chain.client import ChainClient
from raytensor.chain.errors import action_for, dispatch_error_name
from raytensor.chain.events import outcomes
from raytensor.chain.runtime import Era
from raytensor.chain.wallet import DevKey, KeyRef, Signer
from raytensor.errors import ChainRefused, ChainUnavailable, ConfigError

RAO = 10**9
PALLET = "SubtensorModule"
FEES_RAO = 10 * RAO  # what a coldkey gets beside its stake: registration (at most MAX_BURN), fees, deposits
MAX_BURN_RAO = RAO
PROXY_FUNDS_RAO = RAO  # deposit of a proxy and its fee

# Hyperparameter call -> storage item that shows whether it is set already.
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
class NeuronSpec:
    """A hotkey to be registered. stake_tao is what its coldkey stakes on it (0 for a miner)."""

    hotkey: KeyRef
    coldkey: KeyRef
    stake_tao: float = 0.0


@dataclass(frozen=True)
class SubnetSpec:
    """hyperparameters: AdminUtils call -> value, over the defaults of a development subnet (see `_hyperparameters`)."""

    neurons: Sequence[NeuronSpec]
    tempo: int = 20
    owner_hotkey: KeyRef = DevKey("//raytensor//owner")
    rich: KeyRef = DevKey("//Alice")  # owns the subnet and funds the coldkeys
    sudo: KeyRef = DevKey("//Alice")
    delegate: KeyRef | None = None
    hyperparameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Subnet:
    """The subnet that was made or found: uids by hotkey (ss58)."""

    netuid: int
    uids: dict[str, int]
    block: int


def make_subnet(
    client: ChainClient,
    spec: SubnetSpec,
    *,
    progress: Callable[[str], None] = lambda text: None,
    timeout_s: float = 60.0,
) -> Subnet:
    """Makes what is missing of the subnet. `timeout_s` bounds each step.

    Raises ConfigError for a spec that can't work, ChainRefused with the chain's reason.
    """
    rich, sudo, owner_hotkey = spec.rich.open(), spec.sudo.open(), spec.owner_hotkey.open()
    hotkeys = [neuron.hotkey.open() for neuron in spec.neurons]
    coldkeys = [neuron.coldkey.open() for neuron in spec.neurons]
    _check(spec, rich, hotkeys, coldkeys)
    delegate = spec.delegate.open() if spec.delegate is not None else None
    step = _Step(client, timeout_s)

    netuid = find_subnet(client, owner_hotkey.ss58)
    step.add(sudo, _sudo(client, _settings(client, spec, None)))
    if netuid is None:
        progress("opening a subnet")
        step.add(rich, Call(PALLET, "register_network", {"hotkey": owner_hotkey.ss58}))
    step.add(rich, *_transfers(client, spec, hotkeys, coldkeys, delegate))
    step.run()
    if netuid is None and (netuid := find_subnet(client, owner_hotkey.ss58)) is None:
        raise ChainRefused("the subnet was registered but is not there", name="SubnetNotExists")

    if client.query(PALLET, "FirstEmissionBlockNumber", [netuid]) is None:
        step.add(rich, Call(PALLET, "start_call", {"netuid": netuid}))
    step.add(sudo, _sudo(client, _settings(client, spec, netuid)))
    step.run()

    registered = client.query_many([(PALLET, "Uids", [netuid, hotkey.ss58]) for hotkey in hotkeys])
    missing = [place for place, uid in enumerate(registered) if uid is None]
    progress(f"registering {len(missing)} neurons on subnet {netuid}")
    for place in missing:
        args = {"netuid": netuid, "hotkey": hotkeys[place].ss58}
        step.add(coldkeys[place], Call(PALLET, "burned_register", args))
    step.run()

    staked = client.query_many([(PALLET, "TotalHotkeyAlpha", [hotkey.ss58, netuid]) for hotkey in hotkeys])
    for neuron, hotkey, coldkey, alpha in zip(spec.neurons, hotkeys, coldkeys, staked):
        if neuron.stake_tao > 0 and alpha == 0:
            args = {"hotkey": hotkey.ss58, "netuid": netuid, "amount_staked": round(neuron.stake_tao * RAO)}
            step.add(coldkey, Call(PALLET, "add_stake", args))
    for hotkey in _without_proxy(client, spec, hotkeys, delegate):
        args = {"delegate": delegate.ss58, "proxy_type": "NonTransfer", "delay": 0}
        step.add(hotkey, Call("Proxy", "add_proxy", args))
    if step.waiting:
        progress("staking for the validators")
    block = step.run()
    found = client.query_many([(PALLET, "Uids", [netuid, hotkey.ss58]) for hotkey in hotkeys])
    return Subnet(netuid, dict(zip([hotkey.ss58 for hotkey in hotkeys], found)), block)


def find_subnet(client: ChainClient, owner_hotkey: str) -> int | None:
    """The subnet that this hotkey owns, None if there is none."""
    for netuid, hotkey in client.query_map(PALLET, "SubnetOwnerHotkey").items():
        if hotkey == owner_hotkey and client.query(PALLET, "NetworksAdded", [netuid]):
            return netuid
    return None


class _Step:
    """Calls of several accounts that go into the chain side by side, and are waited for together."""

    def __init__(self, client: ChainClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._calls: dict[str, tuple[Signer, list[Call]]] = {}

    @property
    def waiting(self) -> int:
        return len(self._calls)

    def add(self, signer: Signer, *calls: Call | None) -> None:
        """Calls that are None are left out."""
        real = [call for call in calls if call is not None]
        if real:
            self._calls.setdefault(signer.ss58, (signer, []))[1].extend(real)

    def run(self) -> int:
        """Sends all, one extrinsic an account (batch_all), waits until a block has each. The last such block."""
        calls, self._calls = self._calls, {}
        client = self._client
        client.refresh_runtime()
        born = client.finalized()
        sent: dict[str, Call] = {}
        for signer, own in calls.values():
            nonce = client.account_next_index(signer.ss58)
            # Sudo stands alone: whether its inner call failed shows in an event of its own.
            batches = [[call] for call in own if call.module == "Sudo"]
            batches += [rest] if (rest := [call for call in own if call.module != "Sudo"]) else []
            for place, batch in enumerate(batches):
                call = batch[0] if len(batch) == 1 else Call("Utility", "batch_all", {"calls": batch})
                era = Era.mortal(born.number, 64)
                signed = client.sign(call, signer, nonce=nonce + place, era=era, birth_hash=born.hash)
                if refusal := client.submit(signed.data):
                    raise ChainRefused(
                        f"{signer.ss58} {_names(call)}: {refusal.text} ({refusal.name}); {refusal.action}",
                        name=refusal.name,
                        action=str(refusal.action),
                    )
                sent[signed.hash] = call
        return self._wait(sent, born.number)

    def _wait(self, sent: dict[str, Call], number: int) -> int:
        client, deadline = self._client, time.monotonic() + self._timeout_s
        while sent:
            try:
                client.wait_for_block(number + 1, max(0.0, deadline - time.monotonic()), poll_s=0.05)
            except ChainUnavailable as error:
                waiting = ", ".join(_names(call) for call in sent.values())
                raise ChainUnavailable(f"{waiting}: in no block after {self._timeout_s:g} s ({error})") from error
            number += 1
            block_hash = client.block_hash(number)
            hashes = client.extrinsics(block_hash)
            if not sent.keys() & set(hashes):
                continue
            events = client.events(block_hash)
            for place, hash in enumerate(hashes):
                if hash in sent:
                    self._judge(sent.pop(hash), [event for at, event in events if at == place])
        return number

    def _judge(self, call: Call, events: list) -> None:
        for result in outcomes(call, events):
            if not result.ok:
                name = dispatch_error_name(result.error, self._client.runtime.module_error)
                raise ChainRefused(f"{_names(call)}: {name}; {action_for(name)}", name=name, action=str(action_for(name)))


def _names(call: Call) -> str:
    if "calls" in call.args:
        return f"{call.name}[{', '.join(sorted({_names(inner) for inner in call.args['calls']}))}]"
    return f"{call.name}({_names(call.args['call'])})" if "call" in call.args else call.name


def _check(spec: SubnetSpec, rich: Signer, hotkeys: list[Signer], coldkeys: list[Signer]) -> None:
    if not spec.neurons:
        raise ConfigError("a subnet without neurons: give at least one")
    if len({hotkey.ss58 for hotkey in hotkeys}) != len(hotkeys):
        raise ConfigError("two neurons have the same hotkey: give each its own")
    if rich.ss58 in {coldkey.ss58 for coldkey in coldkeys}:
        raise ConfigError(
            f"the subnet's owner {rich.ss58} is also a neuron's coldkey: the chain burns the incentive of the owner's "
            "hotkeys, so give the neurons another coldkey"
        )


def _hyperparameters(spec: SubnetSpec, netuid: int | None) -> dict[str, Any]:
    """Those of the chain (netuid None) or of the subnet."""
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
    more = {k: v for k, v in spec.hyperparameters.items() if k not in _hyperparameters(spec, None)}
    return {**own, **more}


def _settings(client: ChainClient, spec: SubnetSpec, netuid: int | None) -> list[Call]:
    """The hyperparameter calls whose value the chain does not have yet."""
    calls = []
    for name, value in _hyperparameters(spec, netuid).items():
        shown = _SHOWN_BY.get(name)
        keys = [] if netuid is None else [netuid]
        if shown and client.runtime.has_storage(PALLET, shown) and client.query(PALLET, shown, keys) == value:
            continue
        fields = client.runtime.call_fields("AdminUtils", name)
        calls.append(Call("AdminUtils", name, dict(zip(fields, [*keys, value], strict=True))))
    return calls


def _sudo(client: ChainClient, calls: list[Call]) -> Call | None:
    if not calls:
        return None
    inner = calls[0] if len(calls) == 1 else Call("Utility", "batch_all", {"calls": calls})
    return Call("Sudo", "sudo", {"call": inner})


def _transfers(
    client: ChainClient, spec: SubnetSpec, hotkeys: list[Signer], coldkeys: list[Signer], delegate: Signer | None
) -> list[Call]:
    """Funds for those accounts that have less than they will need."""
    needs: dict[str, int] = {}
    for neuron, hotkey, coldkey in zip(spec.neurons, hotkeys, coldkeys):
        needs[coldkey.ss58] = needs.get(coldkey.ss58, 0) + round(neuron.stake_tao * RAO) + MAX_BURN_RAO * 2
        if delegate is not None and neuron.stake_tao > 0:
            needs[hotkey.ss58] = PROXY_FUNDS_RAO
    needs = {address: need + FEES_RAO for address, need in needs.items()}
    if delegate is not None:
        needs[delegate.ss58] = 100 * FEES_RAO
    accounts = client.query_many([("System", "Account", [address]) for address in needs])
    return [
        Call("Balances", "transfer_keep_alive", {"dest": address, "value": need})
        for (address, need), account in zip(needs.items(), accounts)
        # An account that has signed before was funded before: what it spent since is no lack.
        if account["nonce"] == 0 and account["data"]["free"] < need
    ]


def _without_proxy(
    client: ChainClient, spec: SubnetSpec, hotkeys: list[Signer], delegate: Signer | None
) -> list[Signer]:
    """The validators' hotkeys that have not made the delegate their proxy yet."""
    if delegate is None:
        return []
    validators = [hotkey for neuron, hotkey in zip(spec.neurons, hotkeys) if neuron.stake_tao > 0]
    found = client.query_many([("Proxy", "Proxies", [hotkey.ss58]) for hotkey in validators])
    return [
        hotkey for hotkey, (proxies, _) in zip(validators, found) if all(p["delegate"] != delegate.ss58 for p in proxies)
    ]
