"""Whether a validator's weights are overdue, by how much, and why.

In: what setting weights depends on at one block (`preflight.SubnetView`) and what the writer's journal last said of
them. Out: one `Health` per hotkey and subnet, with the first cause that explains it and what to do. It trusts neither
the writer nor its process: the chain's LastUpdate says when weights were set or committed (the registration sets it
too), and its list of commits which of them were never revealed. A commit alone is no weights: one whose epoch has
passed unrevealed is overdue, however young. Pure: no clock, no connection, no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raytensor.chain.error_actions import action_for
from raytensor.chain.reads.preflight import SubnetView, rate_limit_block
from raytensor.types import Fate

OVERDUE_TEMPOS = 3.0  # a working validator sets weights about once a tempo


@dataclass(frozen=True, slots=True)
class LastTry:
    """The newest weights that a journal has for a hotkey and subnet. `fate` None: never settled.

    unrevealed  commits that ended without a reveal, after the last reveal; unrevealed_s: age of the first of them.
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
    last_update  block of the last weights, commit or registration; 0 never. age_blocks, age_tempos: since then.
    next_block   the first block in which weights can be set, None if that is not known.
    cause, action  "" unless overdue, or unless weights can't be set.
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

    @property
    def sentence(self) -> str:
        """One line for a log or an alert."""
        where = f"subnet {self.netuid}" + (f", mechanism {self.mecid}" if self.mecid else "")
        if not self.overdue:
            return f"{where}: weights in time" if not self.cause else f"{where}: {self.cause}"
        age = f" for {self.age_tempos:.1f} tempos ({self.age_blocks} blocks)" if self.uid is not None else ""
        return f"{where}: weights overdue, none{age}, because {self.cause}; {self.action}"


def judge(
    view: SubnetView,
    hotkey: str,
    last: LastTry | None = None,
    *,
    commits: Sequence[tuple[int, int]] = (),
    overdue_tempos: float = OVERDUE_TEMPOS,
) -> Health:
    """The health of one hotkey's weights.

    last     None if no journal knows of any.
    commits  (epoch, block) of the hash commits that the chain has of it; expired ones stay there until the next.
    """
    uid = view.uid_of.get(hotkey)
    permit = uid is not None and (_flag(view, uid) or hotkey == view.owner_hotkey)
    updated = int(view.last_update[uid]) if uid is not None and uid < len(view.last_update) else 0
    age = view.block - updated if uid is not None else 0
    tempos = age / view.tempo if view.tempo else 0.0
    late = tempos > overdue_tempos
    facts = {
        "hotkey": hotkey,
        "netuid": view.netuid,
        "mecid": view.mecid,
        "block": view.block,
        "uid": uid,
        "permit": permit,
        "commit_reveal": view.commit_reveal,
        "tempo": view.tempo,
        "last_update": updated,
        "age_blocks": age,
        "age_tempos": round(tempos, 3),
        "next_block": _next_block(view, uid, permit),
    }
    if uid is None:
        # Only what was validated from here can be overdue here.
        cause, action = "the hotkey is not registered", str(action_for("HotKeyNotRegisteredInSubNet"))
        return Health(**facts, overdue=last is not None, cause=cause, action=action)
    if not permit:
        cause, action = "it has no validator permit", str(action_for("NeuronNoValidatorPermit"))
        return Health(**facts, overdue=late and last is not None, cause=cause, action=action)
    if view.commit_reveal and (found := _never_revealed(view, last, commits)):
        return Health(**facts, overdue=True, cause=found[0], action=found[1])
    if not late:
        return Health(**facts, overdue=False)
    cause, action = _why(last, updated)
    return Health(**facts, overdue=True, cause=cause, action=action)


def _never_revealed(
    view: SubnetView, last: LastTry | None, commits: Sequence[tuple[int, int]]
) -> tuple[str, str] | None:
    """Cause and action if commits have passed their epoch unrevealed and nothing was revealed since."""
    action = "fix: look at the writer that has their salts: is it running, and on its old journal?"
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
        return "no weights were handed to the writer", "fix: start the validator, or look at the machine that writes"
    ago = f"{_time(last.age_s)} ago"
    if last.fate is None or last.fate is Fate.UNKNOWN:
        return f"the weights of {ago} are in no block", "fix: look at the writer and its endpoint: is it running?"
    if last.fate is Fate.COMMITTED or (last.fate is not None and last.fate.done):
        if last.block is not None and last.block > updated:
            return f"block {last.block} that had them left the chain", "retry: hand the weights in again"
        return f"none were handed in since those of {ago}", "fix: look at the validator: is it scoring?"
    return f"{last.error} ({ago})", last.action or str(action_for(last.error or ""))


def _next_block(view: SubnetView, uid: int | None, permit: bool) -> int | None:
    if uid is None:
        return None
    if not permit:
        return view.next_epoch + 1 if view.next_epoch else None  # the epoch may give the permit
    return max(view.block + 1, rate_limit_block(view, uid))


def _flag(view: SubnetView, uid: int) -> bool:
    return uid < len(view.permit) and bool(view.permit[uid])
