"""The pending commits of a writer: made, watched on the chain, revealed in their epoch, and made again if that failed.

In: weights for subnets with commit-reveal, and the state of those subnets at a block. Out: items to send (commits and
reveals), receipts. The book on disk has salt and row before a commit is sent, so a restarted writer reveals what its
predecessor committed. Of several commits of one place that can be revealed in the same block the newest is; the chain
drops the others.
Waits for: the answers of the node. Used by the pipeline, in its thread.
"""

import itertools
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace

from raytensor.chain.error_actions import Do, action_for
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import Refusal, SubnetView
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.weights import Row, storage_index
from raytensor.chain.writer import beacon
from raytensor.chain.writer.batcher import Item
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED, CommitBook, WeightCommit
from raytensor.chain.writer.commit_rules import (
    MAX_UNREVEALED,
    PALLET,
    OnChain,
    Step,
    commit_call,
    commit_digest,
    epoch_after,
    new_salt,
    next_step,
    reveal_block,
    reveal_call,
)
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.order_states import Event, State
from raytensor.chain.writer.orders import OrderQueue, Place
from raytensor.chain.writer.outbox import Outbox
from raytensor.chain.writer.receipts import Receipts
from raytensor.types import Fate, Receipt

log = logging.getLogger(__name__)

_ENDS = {
    Step.EXPIRED: ("expired", "ExpiredWeightCommit"),
    Step.DROPPED: ("dropped", "TimelockedCommitDropped"),
    Step.LOST: ("lost", "NoWeightsCommitFound"),
}


class PendingCommits:
    """kind: "hash" or "timelocked" makes all commits of that kind; None: of the kind that the chain can open."""

    def __init__(
        self,
        client: ChainClient,
        journal: Journal,
        outbox: Outbox,
        queue: OrderQueue,
        receipts: Receipts,
        kind: str | None = None,
    ) -> None:
        self._kind = kind
        self._client, self._journal, self._outbox = client, journal, outbox
        self._queue, self._receipts = queue, receipts
        self._book = CommitBook(journal)
        self._pending: dict[str, WeightCommit] = {}
        self._look_at: dict[str, int] = {}  # digest -> head from which on it is looked at
        self._revealing: dict[str, str] = {}  # intent id -> digest
        self._on_chain = OnChain({}, {})
        self.reload()

    def reload(self) -> None:
        """Load the pending commits from the book; all of them are looked at."""
        self._pending = {commit.digest: commit for commit in self._book.pending()}
        self._look_at = dict.fromkeys(self._pending, 0)
        self._revealing = {}

    def due(self, block: int) -> list[WeightCommit]:
        """The commits to look at now, except those with an extrinsic in flight."""
        due = [commit for digest, commit in self._pending.items() if self._look_at[digest] <= block]
        return [commit for commit in due if not self._outbox.in_flight(commit.intent_id)]

    def make(self, intent: SetWeights, row: Row, view: SubnetView) -> Item | Refusal:
        """A commit of this row, recorded in the book; or why none can be made now."""
        place = (intent.signer, row.netuid, row.mecid)
        chain = None if self._kind == HASH else beacon.choose(self._client, view)
        kind = HASH if chain is None else TIMELOCKED
        if self._kind not in (None, kind):
            return Refusal("BeaconDown")
        if not self._client.runtime.has_storage(PALLET, "SubnetEpochIndex"):
            return Refusal("CommitLayoutUnknown")  # a commit has a block where today's has its epoch
        due = reveal_block(view, epoch_after(view))
        if chain is not None:
            ciphertext, round = beacon.encrypt(chain, intent.signer, row, view)
            digest = beacon.digest(ciphertext)
            commit = WeightCommit(digest, kind, intent.intent_id, intent.signer, row, reveal_round=round, due=due)
            call = beacon.commit_call(row, ciphertext, round)
        else:
            live = self._live_commits(place, view)
            if live is None:
                return Refusal("CommitLayoutUnknown")
            if live >= MAX_UNREVEALED:
                return Refusal("TooManyUnrevealedCommits", until=view.next_epoch + 1)
            if (known := self._unsent(intent, row)) is not None:
                return Item(intent.intent_id, intent.signer, call=commit_call(known), free=True)
            salt = new_salt()
            digest = commit_digest(intent.signer, row, salt)
            commit = WeightCommit(digest, kind, intent.intent_id, intent.signer, row, salt, due=due)
            call = commit_call(commit)
        self._book.add([commit])
        self._pending[commit.digest] = commit
        self._look_at[commit.digest] = view.block + 1
        return Item(intent.intent_id, intent.signer, call=call, free=True)

    def _unsent(self, intent: SetWeights, row: Row) -> WeightCommit | None:
        """A hash commit of this row that is in the book and, as far as is known, not on the chain."""
        for commit in self._pending.values():
            same = (commit.row.uids, commit.row.values) == (row.uids, row.values)
            if same and (commit.intent_id, commit.kind, commit.epoch) == (intent.intent_id, HASH, None):
                return commit
        return None

    def not_sent(self, intent_id: str) -> None:
        """No commit of an intent is on the chain or can get there any more."""
        if self._outbox.in_flight(intent_id):
            return
        for commit in list(self._pending.values()):
            if commit.intent_id == intent_id and commit.epoch is None:
                self._end(commit, "unsent")

    # Revealing

    def reveals(self, views: Mapping[tuple[int, int], SubnetView], head: Head) -> list[Item]:
        """Look up the commits that are due on the chain, and settle those that have ended. Returns reveals to send."""
        due = self.due(head.number)
        self._read(due, views, head)
        reveals: dict[Place, WeightCommit] = {}
        for commit in reversed(due):  # newest first: it decides what happens to those before it
            if commit.digest not in self._pending:
                continue
            view = views[commit.row.netuid, commit.row.mecid]
            epoch = self._on_chain.epochs.get(commit.digest)
            if epoch is not None and commit.epoch != epoch:
                commit = self._pending[commit.digest] = self._book.seen(commit, epoch)
            step, again = next_step(commit, view, self._on_chain)
            if step is Step.WAIT:
                self._look_at[commit.digest] = again
            elif step is Step.REVEAL:
                reveals.setdefault(commit.place, commit)
            elif step is Step.OPENED:
                receipt = self._journal.known_intent(commit.intent_id).receipt(Fate.REVEALED, None, None)
                self._revealed(commit, receipt, head.number)
            elif step is Step.VOID:
                self._void(commit)
            else:
                self._unrevealed(commit, *_ENDS[step])
        self._revealing |= {commit.intent_id: commit.digest for commit in reveals.values()}
        return [Item(c.intent_id, c.signer, call=reveal_call(c), free=True) for c in reveals.values()]

    def reveal_ended(self, receipt: Receipt) -> None:
        """A reveal has its fate, in a block or in a node's pool."""
        commit = self._pending.get(self._revealing.pop(receipt.intent_id, ""))
        if commit is None:  # the reveal was sent by an earlier writer
            own = [c for c in self._pending.values() if c.intent_id == receipt.intent_id and c.kind == HASH]
            if not own:
                return
            commit = own[-1]
        if receipt.fate is Fate.REVEALED:
            self._revealed(commit, receipt)
            return
        error = receipt.error or ""
        action = action_for(error)
        self._look_at[commit.digest] = self._outbox.head.number + 1
        if not action.reread and action.do not in (Do.RETRY, Do.WAIT):
            self._unrevealed(commit, "dropped", error)

    def _revealed(self, commit: WeightCommit, receipt: Receipt, seen_at: int | None = None) -> None:
        """The weights of a commit count now. seen_at: block at which the chain was seen to have opened it itself."""
        # A newer commit of the same epoch may be looked at later than this one; this one does not supersede it.
        before = list(itertools.takewhile(lambda one: one.digest != commit.digest, self._pending.values()))
        self._end(commit, "revealed")
        if seen_at is not None:
            self._receipts.report(replace(receipt, block=seen_at, call=beacon.OPENED_BY))
        else:
            self._receipts.deliver(receipt)
        self._queue.sync(commit.intent_id)
        for older in [c for c in before if c.place == commit.place and c.kind == commit.kind]:
            if older.epoch is not None and commit.epoch is not None and older.epoch <= commit.epoch:
                self._end(older, "superseded")
                if older.intent_id != commit.intent_id:
                    self._close(older, Fate.NOT_SENT, "Superseded", "give up: newer weights were revealed")

    def _unrevealed(self, commit: WeightCommit, state: str, error: str) -> None:
        """It will never be revealed: report that, and commit the newest weights of its place again."""
        known = commit.epoch is not None
        self._end(commit, state if known else "unsent")
        order = self._queue.get(commit.intent_id)
        if not known and order is not None and order.state is not State.COMMITTED:
            return  # its extrinsic had no effect, which was reported
        if not known and any(one.intent_id == commit.intent_id for one in self._pending.values()):
            return  # another commit of the same weights is on the chain
        log.warning("weights of %s on subnet %d: %s", commit.signer, commit.row.netuid, error)
        self._close(commit, Fate.FAILED, error, str(action_for(error)))

    def _void(self, commit: WeightCommit) -> None:
        """The subnet no longer uses commit-reveal: set the same weights directly, unless there are newer ones."""
        self._end(commit, "void")
        order = self._queue.get(commit.intent_id)
        if order is None:
            self._close(commit, Fate.NOT_SENT, "Superseded", "give up: newer weights were given")
        elif order.state is State.COMMITTED:
            self._queue.requeue(commit.intent_id)

    def _close(self, commit: WeightCommit, fate: Fate, error: str, action: str) -> None:
        order = self._queue.get(commit.intent_id)
        receipt = self._journal.known_intent(commit.intent_id).receipt(fate, error, action)
        again = fate is Fate.FAILED and order is not None and order.state is State.COMMITTED
        again = again and order is not None and self._queue.is_newest(order)
        self._journal.settle([receipt], events={commit.intent_id: Event.REPORTED} if again else None)
        self._receipts.tell([receipt])
        if again:
            self._queue.requeue(commit.intent_id)
        else:
            self._queue.sync(commit.intent_id)

    def _end(self, commit: WeightCommit, state: str) -> None:
        self._book.end(commit.digest, state)
        self._pending.pop(commit.digest, None)
        self._look_at.pop(commit.digest, None)

    # Reading the chain

    def _read(self, commits: Iterable[WeightCommit], views: Mapping[tuple[int, int], SubnetView], head: Head) -> None:
        """Read what the chain has of these commits at a block, in two requests."""
        commits = list(commits)
        epochs: dict[str, int] = {}
        hashed = sorted({c.place for c in commits if c.kind == HASH})
        queues = set()
        for commit in commits:
            if commit.kind == TIMELOCKED:
                place = commit.row.netuid, commit.row.mecid
                view, index = views[place], storage_index(*place)
                first = view.epoch_index - view.reveal_period
                known = [commit.epoch] if commit.epoch is not None else range(max(0, first), view.epoch_index + 1)
                queues |= {(index, epoch) for epoch in known}
        queues = sorted(queues)
        reads = [(PALLET, "WeightCommits", [storage_index(n, m), signer]) for signer, n, m in hashed]
        reads += [(PALLET, "TimelockedWeightCommits", list(queue)) for queue in queues]
        found = self._client.query_many(reads, head.hash) if reads else []
        for entries in found[: len(hashed)]:
            epochs |= {digest: epoch for digest, epoch, *_ in entries or ()}
        for (_, epoch), entries in zip(queues, found[len(hashed) :]):
            epochs |= {beacon.digest(bytes(ciphertext)): epoch for _, _, ciphertext, _ in entries or ()}
        gone = sorted({c.place for c in commits if c.kind == TIMELOCKED and c.digest not in epochs})
        keys = []
        for signer, netuid, mecid in gone:
            uid = views[netuid, mecid].uid_of.get(signer)
            if uid is not None:
                keys.append(((signer, netuid, mecid), (PALLET, "Weights", [storage_index(netuid, mecid), uid])))
        rows = self._client.query_many([key for _, key in keys], head.hash) if keys else []
        self._on_chain = OnChain(epochs, {place: tuple(map(tuple, row)) for (place, _), row in zip(keys, rows)})

    def _live_commits(self, place: Place, view: SubnetView) -> int | None:
        """Number of hash commits of a place that the chain counts as unrevealed, whichever program made them.

        None if their second number can be no epoch of the subnet: they are stored in a layout that is not known.
        """
        signer, netuid, mecid = place
        entries = self._client.query(PALLET, "WeightCommits", [storage_index(netuid, mecid), signer]) or ()
        if any(epoch > epoch_after(view) for _, epoch, *_ in entries):
            return None
        return sum(epoch_after(view) <= epoch + view.reveal_period for _, epoch, *_ in entries)
