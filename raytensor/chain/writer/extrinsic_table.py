"""The extrinsics of some signers that may still take effect, or whose block is not final: one table.

In: what happened to an extrinsic. Out: which are open, which intents they carry, and the nonce of the next one.

    written --> pooled | doubted --> in a block --> (final, leaves the table)
       |            \\________/  \\____________ ended: its era is over, or its nonce is used, at a final block
       +--> not posted: no byte has left, for certain

An extrinsic is open from the moment its bytes may have reached an endpoint. No answer of a node closes it: the node may
answer for another one, or for another state of the chain. Two extrinsics with one nonce are rivals: at most one of them
can land. An extrinsic that a node refused leaves its nonce free for the next one, which is its rival.
Pure: no chain, no journal, no clock.
"""

import enum
from collections import Counter
from dataclasses import dataclass, replace


class Sent(str, enum.Enum):
    """State of a signed extrinsic."""

    WRITTEN = "written"  # in the journal; it may have reached a node
    POOLED = "pooled"  # accepted by a node
    DOUBTED = "doubted"  # refused by a node, which proves nothing: it is open
    REFUSED = "refused"  # no byte of it has left, for certain
    INCLUDED = "included"  # in a block
    EXPIRED = "expired"  # its era ended, or another extrinsic used its nonce


OPEN = (Sent.WRITTEN, Sent.POOLED, Sent.DOUBTED)


@dataclass(frozen=True, slots=True)
class Extrinsic:
    """A signed extrinsic. Valid in the blocks birth < n <= death, where death is None for one that never expires.

    refusal  "name: words" of the node that refused it last, "" for none.
    """

    hash: str
    signer: str
    nonce: int
    birth: int
    death: int | None
    data: bytes
    call_json: str
    intent_ids: tuple[str, ...]
    state: Sent = Sent.WRITTEN
    block: int | None = None
    refusal: str = ""

    def over(self, block: int) -> bool:
        """Whether no block after this one can include it."""
        return self.death is not None and block >= self.death


class ExtrinsicTable:
    """The table of one writer. Every method leaves it consistent or raises before it changes anything."""

    def __init__(self) -> None:
        self._open: dict[str, Extrinsic] = {}
        self._in_block: dict[str, Extrinsic] = {}
        self._carried: Counter[str] = Counter()  # intents of open extrinsics
        self._sent_at: dict[str, int] = {}  # hash -> head when it was last sent to a node
        self._next_nonce: dict[str, int] = {}

    @property
    def open(self) -> list[Extrinsic]:
        return list(self._open.values())

    @property
    def in_block(self) -> list[Extrinsic]:
        """In blocks that are not final."""
        return list(self._in_block.values())

    def find_open(self, hash: str) -> Extrinsic | None:
        return self._open.get(hash)

    def carries(self, intent_id: str) -> bool:
        """Whether an open extrinsic carries an intent."""
        return self._carried[intent_id] > 0

    def carriers(self, intent_id: str) -> list[Extrinsic]:
        """The open extrinsics that carry an intent. All have the same nonce, unless the intent may be repeated."""
        return [x for x in list(self._open.values()) if intent_id in x.intent_ids] if self.carries(intent_id) else []

    def waits(self, intent_id: str, head: int) -> bool:
        """Whether an open extrinsic of an intent may yet come into a block, as far as nodes and the best block say."""
        return any(x.state is not Sent.DOUBTED and not x.over(head) for x in self.carriers(intent_id))

    def sent_at(self, hash: str) -> int:
        """Head at the last time when it was sent to a node, 0 for never."""
        return self._sent_at.get(hash, 0)

    # Nonces

    def known_nonce(self, signer: str) -> int | None:
        """The next nonce, where this table knows it without the chain."""
        return self._next_nonce.get(signer)

    def contested_nonce(self, signer: str, used: int) -> int | None:
        """The lowest nonce from `used` on of which every extrinsic was refused: the next one takes it. None if none."""
        doubted: dict[int, bool] = {}
        for x in self._open.values():
            if x.signer == signer and x.nonce >= used:
                doubted[x.nonce] = doubted.get(x.nonce, True) and x.state is Sent.DOUBTED
        return min((nonce for nonce, all_of_them in doubted.items() if all_of_them), default=None)

    def has_contested(self, signer: str) -> bool:
        return self.contested_nonce(signer, 0) is not None

    def forget_nonce(self, signer: str) -> None:
        """The next nonce has to be read from the chain."""
        self._next_nonce.pop(signer, None)

    # What happened

    def reset(self) -> None:
        """Forget everything: the table is loaded from the journal anew."""
        for known in (self._open, self._in_block, self._carried, self._sent_at, self._next_nonce):
            known.clear()

    def add(self, extrinsic: Extrinsic, sent_at: int = 0) -> None:
        """It is in the journal and may be sent from now on."""
        if extrinsic.hash not in self._open:
            self._carried.update(extrinsic.intent_ids)
        self._open[extrinsic.hash] = extrinsic
        self._sent_at[extrinsic.hash] = sent_at
        self._in_block.pop(extrinsic.hash, None)

    def pooled(self, hash: str) -> Extrinsic:
        found = self._open[hash] = replace(self._open[hash], state=Sent.POOLED, refusal="")
        self._next_nonce[found.signer] = max(self._next_nonce.get(found.signer, 0), found.nonce + 1)
        return found

    def doubted(self, hash: str, refusal: str) -> Extrinsic:
        """A node refused it. If a node has accepted it before, it is as open as it was."""
        known = self._open[hash]
        state = Sent.POOLED if known.state is Sent.POOLED else Sent.DOUBTED
        found = self._open[hash] = replace(known, state=state, refusal=refusal)
        self.forget_nonce(found.signer)
        return found

    def unanswered(self, hash: str) -> None:
        """No answer, or none that means anything."""
        self.forget_nonce(self._open[hash].signer)

    def sent(self, hash: str, head: int) -> None:
        self._sent_at[hash] = head

    def included(self, hash: str, block: int) -> Extrinsic:
        found = replace(self._remove(hash), state=Sent.INCLUDED, block=block)
        self._in_block[hash] = found
        return found

    def reopen(self, hash: str) -> None:
        """Its block left the best chain."""
        self.add(replace(self._in_block[hash], state=Sent.POOLED, block=None))

    def leave(self, hash: str) -> None:
        """Its block is final: nothing more can happen to it."""
        del self._in_block[hash]

    def ended(self, hash: str) -> Extrinsic:
        """It can't take effect any more: not posted, its era is over, or its nonce is used, at a final block."""
        found = self._remove(hash)
        self.forget_nonce(found.signer)
        return found

    def _remove(self, hash: str) -> Extrinsic:
        found = self._open.pop(hash)
        self._sent_at.pop(hash, None)
        for intent_id in found.intent_ids:
            self._carried[intent_id] -= 1
            if not self._carried[intent_id]:
                del self._carried[intent_id]
        return found
