"""The life of an order: its states, the events that move it, and the table of moves.

In: a state and an event. Out: the next state. An order is an intent that was handed in; its state is in the journal
(`intents.state`) and changes in the transaction that records why.

    unsent --submitted--> queued --signed--> open --in a block--> in_block --final--> done
                            ^                 |                      |
                            |<--retried-------+<---left the chain----+--failed, final--> failed
    of weights with commit-reveal: open --committed--> committed --revealed--> done

DONE and FAILED are terminal: no event leads from them to a state in which something is sent. If the chain shows an
effect of an order that had failed, the order is DONE, so that the record agrees with the chain. UNSENT means that
nothing of the order can take effect and the chain has not judged it: only handing it in again moves it.
Pure; knows nothing of the journal, extrinsics or threads.
"""

import enum

from raytensor.types import Fate


class State(str, enum.Enum):
    """State of an order."""

    QUEUED = "queued"  # to be sent; no extrinsic of it can take effect
    OPEN = "open"  # in an extrinsic that may take effect
    IN_BLOCK = "in_block"  # in a block of the best chain that is not final
    COMMITTED = "committed"  # weights: the commit is in a block; to be revealed
    DONE = "done"  # it has its effect
    FAILED = "failed"  # it has no effect and will have none
    UNSENT = "unsent"  # nothing of it can take effect; it may be handed in again

    @property
    def terminal(self) -> bool:
        return self in (State.DONE, State.FAILED)


class Event(str, enum.Enum):
    """What moves an order."""

    SUBMITTED = "submitted"  # a caller hands it in
    SIGNED = "signed"  # an extrinsic with it is in the journal and may be sent from now on
    NOT_POSTED = "not posted"  # certain: no byte of its only open extrinsic has left
    INCLUDED = "included"  # a block has it; its own item succeeded, or its outcome can't be read
    RAN = "ran"  # a block that is not final has it; its own item failed
    COMMITTED = "committed"  # a block has the commit of these weights
    REVEALED = "revealed"  # the chain uses the weights of the commit
    LOST_BLOCK = "lost block"  # its block left the best chain
    FINAL = "final"  # its block is final
    RETRIED = "retried"  # nothing of it can take effect, and it is sent again
    FAILED = "failed"  # proven to have no effect, and not sent again
    ENDED = "ended"  # nothing of it can take effect, and it is not sent again until it is handed in again
    REPORTED = "reported"  # a receipt that moves nothing: held, unknown


# One row per event: the state after it, of queued, open, in_block, committed and unsent orders. A block that has an
# order outranks what was believed of it: a journal may be written half.
_COLUMNS = (State.QUEUED, State.OPEN, State.IN_BLOCK, State.COMMITTED, State.UNSENT)
_ROWS = {
    Event.SUBMITTED: "queued open in_block committed queued",
    Event.SIGNED: "open open in_block committed open",  # OPEN: a rival, with the same nonce; COMMITTED: a reveal
    Event.NOT_POSTED: "queued queued in_block committed unsent",
    Event.INCLUDED: "in_block in_block in_block in_block in_block",
    Event.RAN: "in_block in_block in_block committed in_block",
    Event.COMMITTED: "committed committed committed committed committed",
    Event.REVEALED: "done done done done done",
    Event.LOST_BLOCK: "queued open open open unsent",
    Event.FINAL: "queued open done committed unsent",
    Event.RETRIED: "queued queued queued queued unsent",
    Event.FAILED: "failed failed failed failed failed",
    Event.ENDED: "unsent unsent in_block unsent unsent",
}
_MOVES = {(before, event): State(after) for event, row in _ROWS.items() for before, after in zip(_COLUMNS, row.split())}
_MOVES |= {(State.FAILED, event): State.DONE for event in (Event.INCLUDED, Event.REVEALED)}

# What a receipt that ends an order, or reports on it, moves.
EVENT_OF: dict[Fate, Event] = {
    Fate.INCLUDED: Event.INCLUDED,
    Fate.COMMITTED: Event.COMMITTED,
    Fate.REVEALED: Event.REVEALED,
    Fate.HELD: Event.REPORTED,
    Fate.UNKNOWN: Event.REPORTED,
    Fate.FAILED: Event.FAILED,
    Fate.NOT_SENT: Event.ENDED,
}


def move(state: State, event: Event) -> State:
    """The state after an event. `REPORTED` moves nothing. No event moves an order that has ended, except that the chain
    shows the effect of one that had failed."""
    return _MOVES.get((state, event), state)


def restored(fate: str | None, *, error: str | None, is_open: bool) -> State:
    """The state of an order of a journal that has no states yet. is_open: an open extrinsic carries it."""
    if is_open:
        return State.OPEN
    if fate == Fate.FAILED.value:
        return State.UNSENT if error in UNUSED else State.FAILED
    known = {Fate.INCLUDED: State.DONE, Fate.REVEALED: State.DONE, Fate.COMMITTED: State.COMMITTED}
    by_name = {one.value: state for one, state in (known | {Fate.NOT_SENT: State.UNSENT}).items()}
    return by_name.get(fate or "", State.QUEUED)


# Errors of an extrinsic that ended without having run: the chain has not judged the order.
UNUSED = ("Expired", "Stale")
