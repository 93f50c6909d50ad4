"""The hotkeys of a job: references as typed, and what is refused of them before anything starts.

In: texts like wallet/hotkey, an endpoint. Out: key references by text; the uid of each hotkey on each subnet, and for
one that is not registered the command that registers it.
Opens no encrypted key. Waits for: the chain, one connection.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raytensor.chain.reads.quotes import burn_price
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DEFAULT_PATH, DevKey, KeyRef, WalletKey, key_ref, refuse_readable_coldkey
from raytensor.commands.sending import is_development
from raytensor.config.operators import Operated
from raytensor.errors import ConfigError

PALLET = "SubtensorModule"


def hotkey_refs(texts: Sequence[str], cfg: Operated) -> dict[str, KeyRef]:
    """Key references by the text in the configuration. Opens no encrypted key. Raises `ConfigError`, `WalletError`."""
    found: dict[str, KeyRef] = {}
    for text in texts:
        ref = key_ref(text, cfg.wallet_path)
        if isinstance(ref, WalletKey):
            if ref.hotkey is None:
                raise ConfigError(f"hotkeys={text!r}: names a coldkey; write wallet/hotkey: no coldkey is needed")
            ref = WalletKey(ref.wallet, ref.hotkey, ref.path, cfg.password_file)
            if not cfg.allow_coldkey:
                refuse_readable_coldkey(ref)
        found[text] = ref
    addresses = [ref.ss58 for ref in found.values()]
    if len(set(addresses)) != len(addresses):
        raise ConfigError(f"hotkeys={list(texts)}: two of them are the same key")
    return found


@dataclass(frozen=True)
class Registrations:
    """Which hotkeys are registered on the subnets of a job.

    uids     (netuid, ss58) -> uid, of those that are.
    missing  (what, command that registers it) of those that are not.
    """

    uids: dict[tuple[int, str], int]
    missing: list[tuple[str, str]]

    def refusal(self) -> ConfigError:
        """The refusal of a job that can't start without the missing ones."""
        many = f", and {len(self.missing) - 1} more like it" if len(self.missing) > 1 else ""
        commands = "\n       ".join(command for _, command in self.missing)
        return ConfigError(f"hotkeys: {self.missing[0][0]}{many}\n  fix: {commands}")


def registrations(
    endpoints: Sequence[str], timeout_s: float, refs_of: Mapping[int, Mapping[str, KeyRef]], network: str
) -> Registrations:
    """Look up the hotkeys of a job on its subnets.

    refs_of  netuid -> {hotkey as the settings have it: its reference}.
    network  the chain as the settings have it, for the commands.

    Raises `ConfigError` for a development key on a live chain, for a subnet that does not exist, and when no hotkey is
    registered on any of the subnets; `ChainUnavailable` when no endpoint answers.
    """
    with ChainClient(endpoints, timeout_s) as client:
        public = [text for refs in refs_of.values() for text, ref in refs.items() if isinstance(ref, DevKey)]
        if public and not is_development(client):
            what = f"hotkeys={public[0]!r}: a development key, which everybody can sign with, and a live chain"
            raise ConfigError(f"{what}; write wallet/hotkey")
        _refuse_missing(client, sorted(refs_of), network)
        places = [(netuid, text, ref) for netuid, refs in refs_of.items() for text, ref in refs.items()]
        found = client.query_many([(PALLET, "Uids", [netuid, ref.ss58]) for netuid, _, ref in places])
        prices = {netuid: burn_price(client, netuid) for netuid in refs_of if None in found}
    uids, missing = {}, []
    for (netuid, text, ref), uid in zip(places, found, strict=True):
        if uid is not None:
            uids[netuid, ref.ss58] = uid
        else:
            what = f"hotkey {text} ({ref.ss58}) is not registered on subnet {netuid}"
            missing.append((what, _register(netuid, ref, network, prices[netuid])))
    result = Registrations(uids, missing)
    if missing and not uids:
        raise result.refusal()
    return result


def all_uids(
    endpoints: Sequence[str], timeout_s: float, netuids: Sequence[int], refs: Mapping[str, KeyRef], network: str
) -> dict[tuple[int, str], int]:
    """The uid of each hotkey (ss58) on each subnet. Raises as `registrations`, and when one is not registered."""
    found = registrations(endpoints, timeout_s, dict.fromkeys(netuids, refs), network)
    if found.missing:
        raise found.refusal()
    return found.uids


def _refuse_missing(client: ChainClient, netuids: Sequence[int], network: str) -> None:
    head = client.head()
    added = client.query_map(PALLET, "NetworksAdded", (), head.hash)
    there = sorted(netuid for netuid, exists in added.items() if exists and netuid)
    if missing := sorted(set(netuids) - set(there)):
        known = ", ".join(map(str, there[:10])) + (", ..." if len(there) > 10 else "")
        what = f"netuids={missing}: no such subnet on {client.endpoint} at block {head.number}"
        has = f"which has {known}" if there else "which has none"
        fix = f"choose one that exists, or create one: raytensor subnets create -n {shlex.quote(network)}"
        raise ConfigError(f"{what}, {has}\n  fix: {fix}")


def _register(netuid: int, ref: KeyRef, network: str, price_rao: int) -> str:
    """The command that registers a hotkey at a tenth above the present price."""
    key = f"-w {shlex.quote(ref.wallet)} -H {ref.hotkey}" if isinstance(ref, WalletKey) else f"--hotkey {ref.ss58}"
    folder = ref.path if isinstance(ref, WalletKey) else DEFAULT_PATH
    path = "" if folder == DEFAULT_PATH else f" --wallet.path {shlex.quote(folder)}"
    most = max(1, -(-price_rao * 11 // 10**6)) / 10**4  # TAO, rounded up to four decimals
    return f"raytensor register --netuid {netuid} {key}{path} -n {shlex.quote(network)} --max-burn {most:g}"
