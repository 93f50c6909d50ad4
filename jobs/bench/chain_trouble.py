"""The classes of faults of the fault benchmark, and what carries them out.

In: the name of a class, and what it is done to. Out: while a `Trouble` is entered its faults befall requests, answers,
the node, the journal or the clock at random; each is counted. Knows nothing of intents.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from chain_network import hotkey
from chain_node import FINALITY_LAG, Node
from faults import Fault

from raytensor.chain.intents import ServeAxon
from raytensor.chain.rpc.client import ChainClient
from raytensor.errors import ChainError

HOUR_S = 3600.0
SUBMIT, OTHER = 0.25, 0.02  # how likely a fault befalls a submission, and any other request
RULES: dict[str, tuple[Fault, ...]] = {
    "none": (),
    "drop": (Fault.DROP_REQUEST, Fault.DROP_ANSWER),
    "delay": (Fault.DELAY,),
    "half-close": (Fault.HALF_CLOSE, Fault.RESET_BEFORE, Fault.RESET_AFTER),
    "black hole": (Fault.BLACK_HOLE,),
    "duplicate": (Fault.DUPLICATE, Fault.UPSTREAM_RETRY, Fault.TWICE_ANSWERED),
    "reorder": (Fault.REORDER, Fault.FOREIGN),
    "garbage": (Fault.GARBAGE, Fault.CUT),
    "rate limit": (Fault.LIMITED,),
    "1012": (Fault.BANNED, Fault.BANNED_AFTER),
    "1013, 1014": (Fault.TOO_LOW, Fault.TOO_LOW_AFTER, Fault.IMPORTED_AFTER),
    "lying gateway": (Fault.BAD_SIGNATURE_AFTER, Fault.PAYMENT_AFTER, Fault.STALE_AFTER, Fault.FULL_AFTER),
    "malformed answer": (Fault.NONSENSE_AFTER, Fault.WORDS_AFTER, Fault.LIST_AFTER, Fault.NO_BLOCK_AFTER),
    "dripping endpoint": (Fault.DRIP,),
    "clock jumps": (),
    "locked journal": (),
    "full disk": (),
    "second program": (),
    "finality lag": (),
    "runtime upgrade": (),
    "node killed": (),
    "fork, extrinsics return": (),
    "fork, extrinsics lost": (),
    "all of them": tuple(fault for fault in Fault if fault is not Fault.PAYMENT),
}
# Several classes at once: all that an order meets, in three passes.
QUICK = (
    ("drop", "duplicate", "1013, 1014", "lying gateway", "malformed answer", "dripping endpoint"),
    ("locked journal", "full disk", "clock jumps", "second program"),
    ("runtime upgrade", "node killed", "finality lag"),
)
CLASS_OF = {fault: name for name, faults in RULES.items() if name != "all of them" for fault in faults}
NOT_MIXED = ("second program", "runtime upgrade", "finality lag")
FAR_BEHIND, QUITE_BEHIND = 40, 12  # blocks between the best and the final one in the class "finality lag"; of several
ONLY_SUBMISSIONS = {
    *RULES["lying gateway"],
    *RULES["malformed answer"],
    Fault.BANNED,
    Fault.BANNED_AFTER,
    Fault.TOO_LOW,
    Fault.TOO_LOW_AFTER,
    Fault.IMPORTED_AFTER,
    Fault.UPSTREAM_RETRY,
}


class Disk:
    """The journal of the writer: another process locks it, or the disk under it is full."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path, self._connection = path, connection
        self.locked = self.filled = 0
        connection.execute("PRAGMA busy_timeout = 100")  # SQLite waits for 30 s otherwise

    def lock(self, seconds: float) -> None:
        self.locked += 1
        with contextlib.closing(sqlite3.connect(self._path, timeout=10.0, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(seconds)
            other.execute("ROLLBACK")

    def fill(self, seconds: float) -> None:
        """Let no page be added: SQLITE_FULL, as on a full disk."""
        self.filled += 1
        self._connection.execute("PRAGMA max_page_count = 1")  # at least the pages that there are
        time.sleep(seconds)
        self._connection.execute("PRAGMA max_page_count = 1073741823")


class Stranger:
    """A second program with the hotkeys of the writer: it publishes addresses."""

    def __init__(self, endpoint: str, num_hotkeys: int, netuids: list[int]) -> None:
        self._client, self._netuids = ChainClient(endpoint, 20.0), netuids
        self._keys = [hotkey(n) for n in range(num_hotkeys)]
        self.sent = 0

    def send(self, dice: random.Random) -> None:
        """One address; tried a few times, since the writer may take the nonce first."""
        for _ in range(10):
            if self._send_once(dice):
                return

    def _send_once(self, dice: random.Random) -> bool:
        key, netuid = dice.choice(self._keys), dice.choice(self._netuids)
        call = ServeAxon(signer=key.ss58, netuid=netuid, ip=f"10.0.0.{dice.randint(1, 250)}", port=9000).call()
        try:
            self._client.send(call, key.open(), timeout_s=5.0)
        except ChainError:
            return False  # its nonce was taken by the writer, or the rate limit of addresses holds
        self.sent += 1
        return True

    def close(self) -> None:
        self._client.close()


class WallClock:
    """The wall clock of this process, `time.time`, which jumps by an hour in both directions.

    The writer reads it for dates in its files; what it waits for must not depend on it.
    """

    def __init__(self) -> None:
        self._real, self._offset_s = time.time, 0.0
        self.jumps = 0

    def jump(self, dice: random.Random) -> None:
        offsets_s = [offset for offset in (-HOUR_S, 0.0, HOUR_S) if offset != self._offset_s]
        self._offset_s = dice.choice(offsets_s)
        time.time = lambda: self._real() + self._offset_s
        self.jumps += 1

    def reset(self) -> None:
        time.time, self._offset_s = self._real, 0.0


class Surroundings:
    """Everything that faults are done to, and how often they were."""

    def __init__(self, node: Node, disk: Disk, stranger: Stranger) -> None:
        self.node, self.disk, self.stranger, self.clock = node, disk, stranger, WallClock()
        self.limited = 0

    def count(self) -> Counter[str]:
        """How often faults befell, by class."""
        done = Counter(self.node.done)
        for fault, times in self.node.faults().items():
            done[CLASS_OF.get(fault, "others")] += times
        done["rate limit"] += self.limited
        own = {"locked journal": self.disk.locked, "full disk": self.disk.filled, "clock jumps": self.clock.jumps}
        done.update(own | {"second program": self.stranger.sent})
        return done

    def limit(self, seconds: float) -> None:
        """One endpoint answers new connections with HTTP 429."""
        self.limited += 1
        self.node.views[1].mode = "limit"
        self.node.views[1].cut()
        time.sleep(seconds)
        self.node.views[1].mode = "open"

    def deeds(self, dice: random.Random) -> dict[str, Callable[[], None]]:
        """What befalls beside requests and answers, by class."""
        node, disk = self.node, self.disk
        return {
            "node killed": lambda: node.kill(dice),
            "fork, extrinsics return": lambda: node.lose_blocks(dice.randint(1, FINALITY_LAG), keep=True),
            "fork, extrinsics lost": lambda: node.lose_blocks(dice.randint(1, FINALITY_LAG), keep=False),
            "locked journal": lambda: disk.lock(dice.uniform(0.2, 1.0)),
            "full disk": lambda: disk.fill(dice.uniform(0.2, 1.0)),
            "second program": lambda: self.stranger.send(dice),
            "runtime upgrade": node.upgrade,
            "finality lag": node.wait_until_late,
            "clock jumps": lambda: self.clock.jump(dice),
            "rate limit": lambda: self.limit(0.5),
        }


class Trouble:
    """The faults of some classes, while it is entered. Each class befalls at least once."""

    def __init__(self, names: tuple[str, ...], around: Surroundings, seed: int) -> None:
        self._names, self._around, self._random = names, around, random.Random(f"{seed} {names}")
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._choice = [fault for name in names for fault in RULES[name]]
        self._due = [RULES[name] for name in names if RULES[name]]  # of each class one befalls an early submission
        self._dice = random.Random(f"{names} node {seed}")
        deeds = around.deeds(self._dice)
        # A second program and an upgrade change what is judged; late finality needs a restart of the node.
        mixed = [deed for name, deed in deeds.items() if name not in NOT_MIXED]
        self._deeds = mixed if "all of them" in names else [deeds[name] for name in names if name in deeds]
        self._thread = threading.Thread(target=self._act, daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> None:
        if self._names == ("finality lag",):
            self._around.node.set_finality_lag(FAR_BEHIND)
        elif "finality lag" in self._names:  # from the kill on
            self._around.node.finality_lag = QUITE_BEHIND
        self._around.node.set_rule(self._rule)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        node = self._around.node
        node.set_rule(lambda method: None)
        self._around.clock.reset()
        if self._names == ("finality lag",):
            node.set_finality_lag(FINALITY_LAG)
        for proxy in node.views[1:]:
            proxy.mode = "open"
            proxy.cut()  # black holes end here
        if self._error is not None:
            raise self._error

    def _rule(self, method: str) -> Fault | None:
        with self._lock:  # two proxies ask
            submits = method == "author_submitExtrinsic"
            if submits and self._due:
                return self._random.choice(self._due.pop())
            choice = [fault for fault in self._choice if submits or fault not in ONLY_SUBMISSIONS]
            if choice and self._random.random() < (SUBMIT if submits else OTHER):
                return self._random.choice(choice)
            return None

    def _act(self) -> None:
        try:
            self._befall()
        except Exception as error:  # raised where the class ends
            self._error = error

    def _befall(self) -> None:
        for deed in self._deeds:
            deed()
        if len(self._names) > 1:  # each once: the next class is not to wait for this one
            return
        while self._deeds and not self._stop.wait(self._dice.uniform(0.2, 1.0)):
            self._dice.choice(self._deeds)()
