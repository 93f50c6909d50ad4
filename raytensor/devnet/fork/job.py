"""`raytensor devnet` with --from or --fork: a node whose chain starts from a snapshot, or tempos played without a node.

In: the command's options. Out: what node.py prints, or a table (with --json an object) of who earns what.
Waits for: the endpoint of --fork. Progress goes to standard error.
"""

import argparse
import asyncio
import json
import re
import sys
import time

from raytensor.chain import ss58
from raytensor.chain.reads.state import read_subnets
from raytensor.chain.reads.state_file import StateSnapshot, read_state
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.devnet.fork.state import Fork
from raytensor.devnet.fork.tempos import Earnings, play
from raytensor.devnet.node import serve
from raytensor.errors import ConfigError, WalletError

ENDPOINT_TIMEOUT_S = 60.0


def serve_fork(options: argparse.Namespace, block_time: tuple[int, float | None, bool]) -> int:
    """Serve a node that goes on from the snapshot. Returns the exit status."""
    snapshot = _snapshot(options)
    fork = Fork(snapshot, replacements(snapshot, options.key))
    _say(
        f"from block {snapshot.block}, subnets {', '.join(map(str, snapshot.netuids))}, {snapshot.num_entries} entries"
    )
    return asyncio.run(serve(options, block_time, fork))


def play_fork(options: argparse.Namespace, block_time: tuple[int, float | None, bool]) -> int:
    """Print what the neurons earn over --tempos tempos, as the subnet is and with the changes."""
    snapshot = _snapshot(options)
    fork = Fork(snapshot, replacements(snapshot, options.key))
    netuid = _netuid(snapshot, options.netuid)
    begin = time.monotonic()
    found = play(fork, netuid, options.changes, options.tempos)
    _say(f"{options.tempos} tempos in {time.monotonic() - begin:.1f} s")
    if fork.not_restored:
        _say(f"not restored: {', '.join(fork.not_restored)}")
    print(json.dumps(found.as_json(), indent=2) if options.json else _table(found, options.top))
    return 0


def _snapshot(options: argparse.Namespace) -> StateSnapshot:
    if options.snapshot is not None:
        return read_state(options.snapshot)
    if not options.netuid:
        raise ConfigError(f"--fork {options.fork}: name the subnet with --netuid N")
    with ChainClient(options.fork, ENDPOINT_TIMEOUT_S) as client:
        return read_subnets(client, options.netuid, at=options.at, progress=_say)


def _say(text: str) -> None:
    print(f"raytensor devnet: {text}", file=sys.stderr)


def _netuid(snapshot: StateSnapshot, asked: list[int] | None) -> int:
    """The subnet that is meant: the one of --netuid, else the only one of the snapshot."""
    whole = [netuid for netuid in snapshot.netuids if netuid]
    chosen = asked or whole
    if len(chosen) != 1 or chosen[0] not in whole:
        raise ConfigError(f"name one subnet with --netuid; the snapshot has {', '.join(map(str, whole))}")
    return chosen[0]


def replacements(snapshot: StateSnapshot, texts: list[str]) -> dict[bytes, bytes]:
    """Accounts of the snapshot and those that take their place, from options WHO=KEY. Raises ConfigError."""
    replaced: dict[bytes, bytes] = {}
    for text in texts:
        who, _, key = text.partition("=")
        if not key:
            raise ConfigError(f"--key {text}: write WHO=KEY, for example uid:3=//Miner")
        old, new = ss58.decode(_account(snapshot, who)), _public_key(text, key)
        if replaced.setdefault(old, new) != new:
            raise ConfigError(f"--key {text}: this account is replaced by two keys")
    known = {ss58.decode(keys[0]) for keys, _ in snapshot.items["SubtensorModule.Owner"].entries}
    if taken := known & set(replaced.values()):
        raise ConfigError(f"--key: {ss58.encode(min(taken))} is an account of the snapshot; choose a new key")
    if len(set(replaced.values())) < len(replaced):
        raise ConfigError("--key: two accounts can't have the same key")
    return replaced


def _account(snapshot: StateSnapshot, who: str) -> str:
    """The address that WHO names: an address, uid:3 (its hotkey), uid:3:coldkey, or owner."""
    named = re.fullmatch(r"uid:(\d{1,5})(:coldkey)?|owner", who)
    if named is None:
        try:
            ss58.decode(who)
        except ValueError as error:
            raise ConfigError(f"--key {who}: {error}; or write uid:3, uid:3:coldkey, owner") from None
        return who
    netuid = _netuid(snapshot, None)
    if who == "owner":
        return snapshot.value("SubtensorModule.SubnetOwner", netuid)
    hotkeys, uid = snapshot.neurons(netuid), int(named[1])
    if uid >= len(hotkeys):
        raise ConfigError(f"--key {who}: subnet {netuid} has {len(hotkeys)} neurons")
    return snapshot.value("SubtensorModule.Owner", hotkeys[uid]) if named[2] else hotkeys[uid]


def _public_key(text: str, key: str) -> bytes:
    try:
        return ss58.decode(DevKey(key).ss58 if key.startswith("//") else key)
    except (ValueError, WalletError) as error:
        raise ConfigError(f"--key {text}: {error}") from None


def _table(found: Earnings, top: int) -> str:
    rows = found.rows()
    lines = [f"subnet {found.netuid}, {found.num_tempos} tempos, blocks {found.first_block} to {found.last_block}"]
    if found.changes:
        lines.append(f"with {' '.join(found.changes)}")
    head = ("uid", "hotkey", "before (alpha)", "after (alpha)", "change")
    cells = [
        (
            str(row["uid"]) if row["uid"] is not None else "-",
            row["hotkey"],
            *map(_alpha, (row["before_rao"], row["after_rao"], row["change_rao"])),
        )
        for row in rows[:top]
    ]
    widths = [max(len(row[i]) for row in [head, *cells]) for i in range(len(head))]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in [head, *cells]]
    if len(rows) > top:
        lines.append(f"{len(rows) - top} more; --top {len(rows)} shows all")
    before, after = (sum(row[name] for row in rows) for name in ("before_rao", "after_rao"))
    return "\n".join([*lines, f"total earned: {_alpha(before)} before, {_alpha(after)} after"])


def _alpha(rao: int) -> str:
    return f"{'-' if rao < 0 else ''}{abs(rao) // 10**9}.{abs(rao) % 10**9:09d}"
