"""Decides whether a validator's weights are overdue, by how much, and why.

In: the state of a subnet at one block (`preflight.SubnetView`), and the last attempt in the writer's journal. Out: one
`Health` per hotkey and subnet, with the first cause that applies and what to do. The chain decides, not the writer: its
LastUpdate shows when weights were set or committed (a registration sets it too), and its list of commits shows which
were never revealed. A commit whose epoch has passed without a reveal is overdue at once, since it has no effect.
Pure: no clock, no connection, no file.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from raytensor.chain.error_actions import action_for
from raytensor.chain.reads.preflight import SubnetView, rate_limit_block
from raytensor.types import Fate

Commits = Sequence[tuple[int, int]]  # epoch, block
OVERDUE_TEMPOS = 3.0  # a working validator sets weights about once a tempo
GRACE_TEMPOS = 2.0  # after its start a validator needs a round, and then the next epoch's margin


@dataclass(frozen=True, slots=True)
class LastTry:
    """The newest weights that a journal has for a hotkey and subnet. `fate` None: still open.

    unrevealed  commits that expired without a reveal since the last reveal; unrevealed_s: age of the first of them.
    """

    age_s: float
    fate: Fate | None = None
    block: int | None = None
    error: str | None = None
    action: str | None = None
    unrevealed: int = 0
    unrevealed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Health:
    """A hotkey's weights on one mechanism of a subnet.

    uid          None: not registered.
    last_update  block of the last weights, commit or registration; 0: never. age_blocks, age_tempos: since then.
    next_block   the first block in which weights can be set, None if unknown.
    cause, action  "" if weights are in time and can be set.
    due_block    block by which the first weights of a validator that has just started are due; None: its last ones are
                 not old, or its time is up.
    """

    hotkey: str
    netuid: int
    mecid: int
    block: int
    uid: int | None
    permit: bool
    commit_reveal: bool
    tempo: int
    last_update: int
    age_blocks: int
    age_tempos: float
    next_block: int | None
    overdue: bool
    cause: str = ""
    action: str = ""
    due_block: int | None = None

    @property
    def state(self) -> str:
        """Whether weights are in time, in some words."""
        starting = "" if self.due_block is None else f"starting, first weights due by block {self.due_block}"
        return self.cause or starting or "in time"

    @property
    def sentence(self) -> str:
        """One line for a log or an alert."""
        where = (
            f"subnet {self.netuid}, " + (f"mechanism {self.mecid}, " if self.mecid else "") + f"hotkey {self.hotkey}"
        )
        if not self.overdue:
            return f"{where}: {self.state}" if self.cause or self.due_block else f"{where}: weights in time"
        age = f" for {self.age_tempos:.1f} tempos ({self.age_blocks} blocks)" if self.uid is not None else ""
        return f"{where}: weights overdue, none{age}, because {self.cause}; {self.action}"


def judge(
    view: SubnetView,
    hotkey: str,
    last: LastTry | None = None,
    *,
    commits: Commits = (),
    overdue_tempos: float = OVERDUE_TEMPOS,
    since: int | None = None,
) -> Health:
    """The health of one hotkey's weights.

    last     None if no journal has weights of it.
    commits  (epoch, block) of its hash commits on the chain; an expired one stays there until the next commit.
    since    block of the validator's start: old weights are not overdue for `GRACE_TEMPOS` after it; None: no grace.
    """
    uid = view.uid_of.get(hotkey)
    permits = view.permit[uid : uid + 1] if uid is not None else ()
    permit = uid is not None and (any(permits) or hotkey == view.owner_hotkey)
    updated = int(view.last_update[uid]) if uid is not None and uid < len(view.last_update) else 0
    age = view.block - updated if uid is not None else 0
    tempos = age / view.tempo if view.tempo else 0.0
    old = tempos > overdue_tempos
    due = None if since is None else since + int(GRACE_TEMPOS * view.tempo)
    late = old and (due is None or view.block > due)
    place = hotkey, view.netuid, view.mecid, view.block
    facts = *place, uid, permit, view.commit_reveal, view.tempo, updated, age, round(tempos, 3)
    health = functools.partial(Health, *facts, _next_block(view, uid, permit))
    if uid is None:
        # A hotkey without weights in a journal was never validated with from here, so nothing of it is overdue.
        cause, action = "the hotkey is not registered", str(action_for("HotKeyNotRegisteredInSubNet"))
        return health(last is not None, cause, action)
    if not permit:
        cause, action = "it has no validator permit", str(action_for("NeuronNoValidatorPermit"))
        return health(late and last is not None, cause, action)
    if view.commit_reveal and (found := _never_revealed(view, last, commits)):
        return health(True, *found)
    return health(True, *_why(last, updated)) if late else health(False, due_block=due if old else None)


def _never_revealed(view: SubnetView, last: LastTry | None, commits: Commits) -> tuple[str, str] | None:
    """Cause and action if commits have expired without a reveal and nothing was revealed since."""
    action = "fix: check the writer that has their salts: is it running, with the same journal?"
    if last is not None and last.unrevealed:
        many = f"{last.unrevealed} commits" if last.unrevealed > 1 else "a commit"
        why = f" ({last.error})" if last.error else ""
        return f"{many} of the last {_time(last.unrevealed_s)} expired unrevealed{why}", last.action or action
    expired = [block for epoch, block in commits if view.epoch_index > epoch + view.reveal_period]
    if expired:
        return f"the commit of block {max(expired)} expired unrevealed", action
    return None


def _time(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"


def _why(last: LastTry | None, updated: int) -> tuple[str, str]:
    if last is None:
        return "no weights were handed to the writer", "fix: start the validator, or check the machine of the writer"
    ago = f"{_time(last.age_s)} ago"
    if last.fate is None or last.fate is Fate.UNKNOWN:
        return f"the weights of {ago} are in no block", "fix: check the writer and its endpoint: is it running?"
    if last.fate is Fate.COMMITTED or (last.fate is not None and last.fate.done):
        if last.block is not None and last.block > updated:
            return f"block {last.block} that had them left the chain", "retry: submit the weights again"
        return f"none were submitted since those of {ago}", "fix: check the validator: is it scoring?"
    return f"{last.error} ({ago})", last.action or str(action_for(last.error or ""))


def _next_block(view: SubnetView, uid: int | None, permit: bool) -> int | None:
    if uid is None:
        return None
    if not permit:
        return view.next_epoch + 1 if view.next_epoch else None  # the epoch may give the permit
    return max(view.block + 1, rate_limit_block(view, uid))
