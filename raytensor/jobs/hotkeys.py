"""The hotkeys of a job: references as typed, and what is refused of them before anything starts.

In: texts like wallet/hotkey, an endpoint. Out: key references by text; the uid of each hotkey on each subnet.
Opens no encrypted key. Waits for: the chain, one connection.
"""

import shlex
from collections.abc import Mapping, Sequence

from raytensor.chain.reads.quotes import burn_price
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DEFAULT_PATH, DevKey, KeyRef, WalletKey, key_ref, refuse_readable_coldkey
from raytensor.commands.sending import is_development
from raytensor.errors import ConfigError

PALLET = "SubtensorModule"


def hotkey_refs(
    texts: Sequence[str], wallet_path: str, password_file: str | None, *, allow_coldkey: bool
) -> dict[str, KeyRef]:
    """Key references by the text in the configuration. Raises `ConfigError`, `WalletError`."""
    found: dict[str, KeyRef] = {}
    for text in texts:
        ref = key_ref(text, wallet_path)
        if isinstance(ref, WalletKey):
            if ref.hotkey is None:
                raise ConfigError(f"hotkeys={text!r}: names a coldkey; write wallet/hotkey: no coldkey is needed")
            ref = WalletKey(ref.wallet, ref.hotkey, ref.path, password_file)
            if not allow_coldkey:
                refuse_readable_coldkey(ref)
        found[text] = ref
    addresses = [ref.ss58 for ref in found.values()]
    if len(set(addresses)) != len(addresses):
        raise ConfigError(f"hotkeys={list(texts)}: two of them are the same key")
    return found


def uids_of(
    endpoints: Sequence[str], timeout_s: float, netuids: Sequence[int], refs: Mapping[str, KeyRef], network: str
) -> dict[tuple[int, str], int]:
    """The uid of each hotkey (ss58) on each subnet.

    Raises `ConfigError` for a development key on a live chain, for a subnet that does not exist, and for hotkeys that
    are not registered, with the commands that register them and the price.
    """
    hotkeys = {ref.ss58: ref for ref in refs.values()}
    with ChainClient(endpoints, timeout_s) as client:
        public = [text for text, ref in refs.items() if isinstance(ref, DevKey)]
        if public and not is_development(client):
            what = f"hotkeys={public[0]!r}: a development key, which everybody can sign with, and a live chain"
            raise ConfigError(f"{what}; write wallet/hotkey")
        there = client.query_many([(PALLET, "NetworksAdded", [netuid]) for netuid in netuids])
        if missing := [netuid for netuid, exists in zip(netuids, there) if not exists]:
            known = sorted(n for n, yes in client.query_map(PALLET, "NetworksAdded").items() if yes and n)
            listed = ", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else "")
            what = f"netuids: there is no subnet {missing[0]} on {client.endpoint}"
            raise ConfigError(f"{what}; it has {listed or 'none'}")
        places = [(netuid, hotkey) for netuid in netuids for hotkey in hotkeys]
        found = dict(zip(places, client.query_many([(PALLET, "Uids", list(place)) for place in places])))
        lost = [place for place, uid in found.items() if uid is None]
        if lost:
            prices = {netuid: burn_price(client, netuid) for netuid in {netuid for netuid, _ in lost}}
            lines = [_register(netuid, hotkeys[hotkey], network, prices[netuid]) for netuid, hotkey in lost]
            many = "a hotkey is" if len(lost) == 1 else f"{len(lost)} hotkeys are"
            raise ConfigError(f"{many} not registered; register first:\n  " + "\n  ".join(lines))
    return {place: uid for place, uid in found.items() if uid is not None}


def _register(netuid: int, ref: KeyRef, network: str, price_rao: int) -> str:
    """The command that registers a hotkey at a tenth above the present price."""
    key = f"-w {shlex.quote(ref.wallet)} -H {ref.hotkey}" if isinstance(ref, WalletKey) else f"--hotkey {ref.ss58}"
    folder = ref.path if isinstance(ref, WalletKey) else DEFAULT_PATH
    path = "" if folder == DEFAULT_PATH else f" --wallet.path {shlex.quote(folder)}"
    most = max(1, -(-price_rao * 11 // 10**6)) / 10**4  # TAO, rounded up to four decimals
    return f"raytensor register --netuid {netuid} {key}{path} -n {shlex.quote(network)} --max-burn {most:g}"
