"""What weight and stake intents did to a chain, as the chain shows it: events of every block, storage at two blocks.

In: the intents with the receipts that a writer gave for them, and a span of blocks. Out: a `Verdict`: for each intent
how often it was applied, and what does not add up. Nothing of the writer is believed: each stake intent is known by
amounts or accounts that no other has, and a row of weights by its place and the order of places.

Holds for spans without epochs (emission would move stake), in which nobody else uses these coldkeys and hotkeys.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from raytensor.chain.calls import Intent
from raytensor.chain.intents import AddStake, MoveStake, RemoveStake, SetWeights
from raytensor.chain.rpc.client import ChainClient, Head
from raytensor.chain.rpc.events import Event
from raytensor.errors import ChainUnavailable
from raytensor.types import Fate, Receipt

PALLET = "SubtensorModule"


@dataclass
class Verdict:
    """Counts of intents, and one line for each thing that is wrong. `ok`: nothing is."""

    included: int = 0
    reported: int = 0  # not applied, and a receipt says so
    wrong: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.wrong


class Ledger:
    """Reads the state of the accounts at its making; `judge` compares it with a later block."""

    def __init__(
        self,
        client: ChainClient,
        recorder: Recorder,
        netuids: Sequence[int],
        hotkeys: Sequence[str],
        coldkeys: Sequence[str],
    ) -> None:
        self._client, self._recorder, self._netuids = client, recorder, list(netuids)
        self._hotkeys, self._coldkeys = list(hotkeys), list(coldkeys)
        self._places = [(netuid, hotkey) for netuid in netuids for hotkey in hotkeys]
        uids = client.query_many([(PALLET, "Uids", [netuid, hotkey]) for netuid, hotkey in self._places])
        self.uid = dict(zip(self._places, uids))
        self.start = client.finalized()
        self._stakes, self._balances, _ = self._state(self.start)

    def judge(self, pairs: Sequence[tuple[Intent, Receipt]]) -> Verdict:
        """Compares up to the final block of now; intents in the order in which they were handed in."""
        client, verdict, end = self._client, Verdict(), self._client.finalized()
        stakes, balances, state = self._state(end)
        done, fees, trades = self._events(self.start.number + 1, end.number)
        for intent, receipt in pairs:
            verdict.included += receipt.fate is Fate.INCLUDED
            verdict.reported += receipt.fate in (Fate.FAILED, Fate.NOT_SENT)
            if receipt.fate is Fate.UNKNOWN:
                verdict.wrong.append(f"{intent.name} {intent.intent_id}: its fate stayed unknown")
            elif not isinstance(intent, SetWeights):
                times, said = done[self.name(intent)], int(receipt.fate is Fate.INCLUDED)
                if times != said:
                    verdict.wrong.append(
                        f"{intent.name} {intent.intent_id}: applied {times} times, reported as {receipt}"
                    )
        known = Counter(self.name(i) for i, _ in pairs)
        verdict.wrong += [
            f"{name} happened {n} times and nobody asked for it" for name, n in done.items() if name not in known
        ]
        self._judge_weights(pairs, done, state, verdict)
        self._judge_sums(pairs, stakes, balances, fees, trades, verdict)
        assert client.block_hash(end.number) == end.hash, "a final block left the chain"
        return verdict

    def name(self, intent: Intent) -> tuple:
        """What the chain's events call it."""
        if isinstance(intent, AddStake):
            return "StakeAdded", intent.signer, intent.hotkey, intent.netuid, intent.amount_staked
        if isinstance(intent, RemoveStake):
            return "StakeRemoved", intent.signer, intent.hotkey, intent.netuid, intent.amount_unstaked
        if isinstance(intent, MoveStake):
            return "StakeMoved", intent.signer, intent.origin_hotkey, intent.destination_hotkey, intent.origin_netuid
        assert isinstance(intent, SetWeights)
        return "WeightsSet", intent.netuid, self.uid[intent.netuid, intent.signer]

    def _state(self, at: Head) -> tuple[dict, dict, dict]:
        """(alpha by place, free balance by coldkey, (row of weights, LastUpdate) by place) after a block."""
        client = self._client
        alpha = client.query_many([(PALLET, "TotalHotkeyAlpha", [h, n]) for n, h in self._places], at.hash)
        free = client.query_many([("System", "Account", [c]) for c in self._coldkeys], at.hash)
        rows = client.query_many([(PALLET, "Weights", [n, self.uid[n, h]]) for n, h in self._places], at.hash)
        updates = dict(
            zip(self._netuids, client.query_many([(PALLET, "LastUpdate", [n]) for n in self._netuids], at.hash))
        )
        places = {p: (tuple(map(tuple, row or ())), updates[p[0]][self.uid[p]]) for p, row in zip(self._places, rows)}
        balances = {c: account["data"]["free"] for c, account in zip(self._coldkeys, free)}
        return dict(zip(self._places, alpha)), balances, places

    def _events(self, first: int, last: int) -> tuple[Counter, Counter, dict]:
        """(how often each thing happened, fees by account, (tao, alpha) by thing) in a span of blocks."""
        done: Counter = Counter()
        fees: Counter = Counter()
        trades: dict[tuple, tuple[int, int]] = {}
        for number in range(first, last + 1):
            events = self._recorder.events(self._client.block_hash(number))
            if events is None:
                raise ChainUnavailable(f"the events of block {number} were not read in time: this run can't be judged")
            for event in events:
                if (event.module, event.name) == ("TransactionPayment", "TransactionFeePaid"):
                    fees[event.data["who"]] += event.data["actual_fee"]
                if event.module != PALLET:
                    continue
                if event.name in ("StakeAdded", "StakeRemoved"):
                    coldkey, hotkey, tao, alpha, netuid, _fee = event.data
                    amount = tao if event.name == "StakeAdded" else alpha
                    thing = (event.name, coldkey, hotkey, netuid, amount)
                    trades[thing] = (tao, alpha)
                elif event.name == "StakeMoved":
                    coldkey, origin, netuid, destination, _to, _tao = event.data
                    thing = (event.name, coldkey, origin, destination, netuid)
                elif event.name == "WeightsSet":
                    thing = (event.name, *event.data)
                else:
                    continue
                if thing[0] == "WeightsSet" or thing[1] in self._balances:
                    done[thing] += 1
        return done, fees, trades

    def _judge_weights(self, pairs: Sequence, done: Counter, state: dict, verdict: Verdict) -> None:
        said: Counter = Counter()
        newest: dict[tuple, tuple[SetWeights, Receipt]] = {}
        for intent, receipt in pairs:
            if isinstance(intent, SetWeights) and receipt.fate is Fate.INCLUDED:
                said[self.name(intent)] += 1
                newest[intent.netuid, intent.signer] = (intent, receipt)
        for name in {name for name in done if name[0] == "WeightsSet"} | set(said):
            if done[name] != said[name]:
                verdict.wrong.append(f"{name}: set {done[name]} times, reported {said[name]} times")
        for place, (intent, receipt) in newest.items():
            row, updated = state[place]
            if row != self.row(intent):
                verdict.wrong.append(f"the weights of {place} are not the newest that were set")
            if updated != receipt.block:
                verdict.wrong.append(
                    f"LastUpdate of {place} is {updated}, its newest weights are of block {receipt.block}"
                )

    def row(self, intent: SetWeights) -> tuple[tuple[int, int], ...]:
        """The row as the chain is to have it, worked out here: max-upscaled to u16, by uid, without zeros."""
        most = max(value for _, value in intent.values)
        scaled = {self.uid[intent.netuid, h]: int(value / most * 65535 + 0.5) for h, value in intent.values}
        return tuple(sorted((uid, value) for uid, value in scaled.items() if value))

    def _judge_sums(
        self, pairs: Sequence, stakes: dict, balances: dict, fees: Counter, trades: dict, verdict: Verdict
    ) -> None:
        """Stake and balances to the rao, from the intents that the receipts say were applied."""
        alpha, tao = dict(self._stakes), dict(self._balances)
        for intent, receipt in pairs:
            if receipt.fate is not Fate.INCLUDED or isinstance(intent, SetWeights):
                continue
            if isinstance(intent, MoveStake):
                alpha[intent.origin_netuid, intent.origin_hotkey] -= intent.alpha_amount
                alpha[intent.destination_netuid, intent.destination_hotkey] += intent.alpha_amount
                continue
            paid, got = trades.get(self.name(intent), (0, 0))
            sign = 1 if isinstance(intent, AddStake) else -1
            alpha[intent.netuid, intent.hotkey] += sign * got
            tao[intent.signer] -= sign * paid
        for coldkey in tao:
            tao[coldkey] -= fees[coldkey]
        wrong = [
            f"stake {p}: {stakes[p]} rao of alpha, {alpha[p]} by the intents" for p in alpha if alpha[p] != stakes[p]
        ]
        wrong += [
            f"balance {c}: {balances[c]} rao, {tao[c]} by the intents and fees" for c in tao if tao[c] != balances[c]
        ]
        verdict.wrong += wrong


class Recorder:
    """Reads the events of each new block at once, while its node still has them: a node that was killed and started
    again knows the state of its last block only. A thread with a connection of its own."""

    def __init__(self, endpoint: str) -> None:
        self._client, self._stop = ChainClient(endpoint, 10.0), threading.Event()
        self._blocks: dict[str, list[Event]] = {}
        self.newest = self._client.head()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def events(self, block_hash: str) -> list[Event] | None:
        """None if that block was not seen in time."""
        return self._blocks.get(block_hash)

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=15)
        self._client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                head = self._client.next_head(0.5)
                if head is not None:
                    self._read(head)
                    self.newest = head
            except ChainUnavailable:
                self._stop.wait(0.05)

    def _read(self, head: Head) -> None:
        """The head, and what came before it and was not read yet."""
        while head.number > 0 and head.hash not in self._blocks:
            self._blocks[head.hash] = [event for _, event in self._client.events(head.hash)]
            if len(self._blocks) == 1:
                return
            head = self._client.header(head.parent)
