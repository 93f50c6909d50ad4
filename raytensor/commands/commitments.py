"""`raytensor weights commitments` and `raytensor weights reveal`: list committed weights, and reveal them by hand.

In: a hotkey, the chain, journals. Out: the pending commits, when each can be revealed, and by whom. The chain reveals a
timelocked commit; a hash commit needs its salt, which only the journal that committed it holds.
"""

import argparse
import contextlib
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from raytensor.chain.reads.preflight import SubnetView, read_views
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.weights import storage_index
from raytensor.chain.writer import beacon
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED, CommitBook, WeightCommit
from raytensor.chain.writer.commit_rules import epoch_after, reveal_block
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands import options, output, sending
from raytensor.commands.sender import sender_of
from raytensor.errors import ChainRefused, ConfigError

PALLET = "SubtensorModule"


@dataclass(frozen=True, slots=True)
class Pending:
    """A commit of a hotkey on the chain.

    reveals_block  the first block in which it can be revealed, None if it has expired.
    known          its salt (or, if timelocked, its row) is in one of the given journals.
    """

    netuid: int
    mecid: int
    kind: str
    digest: str
    block: int
    epoch: int
    reveals_block: int | None
    reveal_round: int | None
    known: bool

    @property
    def state(self) -> str:
        if self.reveals_block is None:
            return "expired"
        if self.kind == TIMELOCKED:
            return "the chain reveals it"
        return "its writer reveals it" if self.known else "salt not in these journals"


def read_pending(
    client: ChainClient, hotkey: str, views: dict[tuple[int, int], SubnetView], head: Head, known: set[str]
) -> list[Pending]:
    """All commits of a hotkey on the chain, on some subnets, at one block."""
    places = sorted(views)
    queues = []
    for place, view in sorted(views.items()):
        last = view.epoch_index
        queues += [(place, epoch) for epoch in range(max(0, last - view.reveal_period), last + 1)]
    reads = [(PALLET, "WeightCommits", [storage_index(*place), hotkey]) for place in places]
    if client.runtime.has_storage(PALLET, "TimelockedWeightCommits"):
        reads += [(PALLET, "TimelockedWeightCommits", [storage_index(*place), epoch]) for place, epoch in queues]
    found = client.query_many(reads, head.hash) if reads else []
    entries = [
        (place, HASH, digest, block, epoch, None)
        for place, commits in zip(places, found)
        for digest, epoch, block, *_ in commits or ()
    ]
    for (place, epoch), queue in zip(queues, found[len(places) :]):
        entries += [
            (place, TIMELOCKED, beacon.digest(bytes(data)), block, epoch, round)
            for account, block, data, round in queue or ()
            if account == hotkey
        ]
    pending = []
    for (netuid, mecid), kind, digest, block, epoch, round in entries:
        view = views[netuid, mecid]
        over = epoch_after(view) > epoch + view.reveal_period
        at = None if over else reveal_block(view, epoch)
        pending.append(Pending(netuid, mecid, kind, digest, block, epoch, at, round, digest in known))
    return sorted(pending, key=lambda one: (one.netuid, one.mecid, one.block))


def expired_commits(client: ChainClient, hotkey: str, places: list[tuple[int, int]], head: Head) -> dict:
    """(netuid, mecid) -> [(epoch, block), ...] of the hotkey's hash commits on the chain."""
    reads = [(PALLET, "WeightCommits", [storage_index(*place), hotkey]) for place in places]
    found = client.query_many(reads, head.hash) if reads else []
    return {place: [(epoch, block) for _, epoch, block, *_ in commits or ()] for place, commits in zip(places, found)}


def subnets_of(client: ChainClient, hotkey: str, netuids: list[int] | None, head: Head) -> list[int]:
    """The given subnets, or those where the hotkey is registered. Raises ConfigError for one that does not exist."""
    existing = [n for n, yes in client.query_map(PALLET, "NetworksAdded", (), head.hash).items() if yes and n]
    if unknown := sorted(set(netuids or ()) - set(existing)):
        where = f"at block {head.number} (root accepts no weights)"
        raise ConfigError(f"--netuid {unknown[0]}: there is no such subnet {where}")
    if netuids:
        return sorted(set(netuids))
    uids = client.query_many([(PALLET, "Uids", [netuid, hotkey]) for netuid in sorted(existing)], head.hash)
    return [netuid for netuid, uid in zip(sorted(existing), uids) if uid is not None]


def views_of(client: ChainClient, netuids: list[int], head: Head) -> dict[tuple[int, int], SubnetView]:
    """All mechanisms of some subnets at one block."""
    views = read_views(client, {(netuid, 0) for netuid in netuids}, head) if netuids else {}
    more = {(n, m) for n in netuids for m in range(1, views[n, 0].mechanisms)}
    return views | (read_views(client, more, head) if more else {})


def known_commits(files: list[Path], hotkey: str) -> list[WeightCommit]:
    """The pending commits of a hotkey in some journals. Raises ConfigError for a file that does not exist."""
    found = []
    for file in files:
        if not file.expanduser().is_file():
            raise ConfigError(f"--journal {file}: there is no such file")
        with contextlib.closing(Journal(file)) as journal:
            found += CommitBook(journal).pending(hotkey)
    return found


def show(args: argparse.Namespace) -> int:
    """`raytensor weights commitments`. Returns the exit status."""
    hotkey = options.account(args, args.hotkey, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        head = client.head()
        own = sending.journal_file(args, client, hotkey)
        files = [Path(name) for name in args.journal] + ([own] if own.exists() else [])
        known = {commit.digest for commit in known_commits(files, hotkey)}
        views = views_of(client, subnets_of(client, hotkey, args.netuid, head), head)
        pending = read_pending(client, hotkey, views, head, known)
    if args.json:
        rows = [{**dataclasses.asdict(one), "state": one.state} for one in pending]
        output.show_json({"hotkey": hotkey, "block": head.number, "commitments": rows})
        return 0
    print(f"{hotkey} at block {head.number}")
    if not pending:
        print("no commit is pending")
        return 0
    cells = [
        (p.netuid, p.mecid, p.kind, p.block, p.epoch, p.reveals_block or "-", p.reveal_round or "-", p.state)
        for p in pending
    ]
    headers = ("netuid", "mech", "kind", "committed", "epoch", "from block", "round", "")
    print(output.table(headers, cells, left=(2, 7)))
    return 0


def reveal(args: argparse.Namespace) -> int:
    """`raytensor weights reveal`: wait until the hash commits in this key's journal are revealed."""
    key = sender_of(args, hotkey=True)
    with ChainClient(options.network(args), args.timeout) as client:
        file = sending.journal_file(args, client, key.ss58)
        pending = [c for c in known_commits([file] if file.exists() else [], key.ss58) if c.kind == HASH]
        if not pending:
            action = "fix: give the --state folder of the `raytensor weights set` that committed"
            raise ChainRefused(f"{file} has no commit to reveal", name="NothingToReveal", action=action)
        head = client.head()
        views = read_views(client, {(c.row.netuid, c.row.mecid) for c in pending}, head)
    rows = []
    for c in pending:
        due = c.due if c.epoch is None else reveal_block(views[c.row.netuid, c.row.mecid], c.epoch)
        row = {"netuid": c.row.netuid, "mecid": c.row.mecid, "intent_id": c.intent_id, "digest": c.digest}
        rows.append({**row, "reveals_block": due})
    if args.dry_run:
        if args.json:
            output.show_json({"block": head.number, "pending": rows, "receipts": []})
        for row in rows if not args.json else ():
            print(f"subnet {row['netuid']}: from block {row['reveals_block']}, now {head.number}; nothing was sent")
        return 0
    with sending.writer(args, file, key) as writer:
        receipts = _wait(writer, {row["intent_id"] for row in rows}, args.wait)
    if args.json:
        shown = [{**dataclasses.asdict(receipt), "fate": receipt.fate.value} for receipt in receipts.values()]
        output.show_json({"block": head.number, "pending": rows, "receipts": shown})
    else:
        for row in rows:
            receipt = receipts.get(row["intent_id"])
            print(f"subnet {row['netuid']}, mechanism {row['mecid']}: ", end="")
            if receipt is None:
                print(f"not yet: it can be revealed from about block {row['reveals_block']}; raise --wait")
            elif receipt.fate.done:
                print(f"revealed in block {receipt.block}")
            else:
                print(f"{receipt.error}; {receipt.action}")
    return 0 if len(receipts) == len(rows) and all(r.fate.done for r in receipts.values()) else 1


def _wait(writer: ChainWriter, intent_ids: set[str], wait_s: float) -> dict:
    """The final receipts of these intents by id, after at most `wait_s`; an intent without one is left out."""
    cursor, ended, deadline = writer.receipts_since(0, limit=10**9)[0], {}, time.monotonic() + wait_s
    while len(ended) < len(intent_ids) and time.monotonic() < deadline:
        time.sleep(0.2)
        cursor, receipts = writer.receipts_since(cursor)
        ended |= {r.intent_id: r for r in receipts if r.intent_id in intent_ids and r.fate.final}
    return ended
