"""Weight and stake intents that a ledger can tell apart on the chain: no two stake intents have the same amounts."""

from __future__ import annotations

import itertools
import random

from chain_network import RAO, hotkey

from raytensor.chain.calls import Intent
from raytensor.chain.intents import AddStake, MoveStake, RemoveStake, SetWeights
from raytensor.chain.wallet import DevKey


class Intents:
    """An endless supply, the same for the same seed. Half of them weights; of the rest most add stake, some remove or
    move it. Coldkey n stakes on hotkey n."""

    def __init__(self, netuids: list[int], num_hotkeys: int, seed: int) -> None:
        self._netuids, self._hotkeys = netuids, [hotkey(n).ss58 for n in range(num_hotkeys)]
        self.coldkeys = [self.coldkey(n).ss58 for n in range(num_hotkeys)]
        self._random = random.Random(seed)
        self._serial = 0
        self.prefix = "intent-"  # of the ids
        numbers = range(num_hotkeys)
        self._moves = [(n, m, netuid) for n in numbers for m in numbers for netuid in netuids if n != m]
        self._random.shuffle(self._moves)
        places = [(n, netuid) for n in numbers for netuid in netuids]
        self._random.shuffle(places)
        self._places = itertools.cycle(places)

    @staticmethod
    def coldkey(number: int) -> DevKey:
        return DevKey(f"//bench//cold//{number}")

    def take(self, count: int) -> list[Intent]:
        return [self._one() for _ in range(count)]

    def _one(self) -> Intent:
        self._serial += 1
        intent_id = f"{self.prefix}{self._serial}"
        number, netuid = next(self._places)
        hot, cold = self._hotkeys[number], self.coldkeys[number]
        kind = self._random.random()
        if kind < 0.5:
            # The serial number stands in the row, so that no two rows are alike.
            values = {h: float(self._random.randint(1, 60_000)) for h in self._hotkeys}
            values[self._hotkeys[0]], values[self._hotkeys[-1]] = 65_535.0, float(self._serial % 65_000 + 1)
            return SetWeights(signer=hot, netuid=netuid, values=tuple(values.items()), intent_id=intent_id)
        if kind < 0.8 or (kind >= 0.9 and not self._moves):
            return AddStake(
                signer=cold, hotkey=hot, netuid=netuid, amount_staked=RAO // 10 + self._serial, intent_id=intent_id
            )
        if kind < 0.9:
            return RemoveStake(
                signer=cold, hotkey=hot, netuid=netuid, amount_unstaked=RAO // 20 + self._serial, intent_id=intent_id
            )
        n, m, netuid = self._moves.pop()
        return MoveStake(
            signer=self.coldkeys[n],
            origin_hotkey=self._hotkeys[n],
            destination_hotkey=self._hotkeys[m],
            origin_netuid=netuid,
            destination_netuid=netuid,
            alpha_amount=RAO // 20 + self._serial,
            intent_id=intent_id,
        )
