"""One subnet of a chain, validated by any number of hotkeys: whom a round asks, and what its questions are drawn from.

In: metagraphs and commitments of the subnet. Out: the rounds' results, and the newest `Weights`.
Questions are drawn from the hash of the metagraph's block. State is a folder with a log and a board for each hotkey; a
restart keeps every miner's score. Knows nothing of when rounds are due, or of other subnets.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from raytensor.data.text import Text
from raytensor.mechanisms.base import Ask, needs
from raytensor.types import FileCommit, Metagraph, Promises, Weights
from raytensor.validators.evidence_log import Keep
from raytensor.validators.records import Records
from raytensor.validators.round import Round, RoundParts, RoundResult
from raytensor.validators.scorer import MechanismSpec
from raytensor.validators.scorer_service import Scorers
from raytensor.validators.transport import MinerTransport

Commits = Mapping[str, FileCommit]  # by hotkey


class SubnetValidator:
    """Opened by the constructor; `close` ends it.

    hotkeys  of the validators (ss58).
    folder   of the state. keep: how much evidence stays in it.
    scorers  they know the mechanism by the netuid, as text.

    Raises `ConfigError` or `MechanismError` for a mechanism that can't be loaded, `DataError` for a state that can't be
    read.
    """

    def __init__(
        self,
        netuid: int,
        hotkeys: tuple[str, ...],
        spec: MechanismSpec,
        text: Text,
        folder: Path,
        keep: Keep = Keep(),
        *,
        transport: MinerTransport,
        scorers: Scorers,
    ) -> None:
        self.netuid, self.hotkeys = netuid, hotkeys
        mechanism = spec.load()
        self._version_key = needs(spec.mechanism).version_key
        self.records = Records.newest(folder, netuid, hotkeys, spec, mechanism, keep)
        self._round = Round(RoundParts(str(netuid), mechanism, text, self.records, transport, scorers))
        try:
            mechanism.start(netuid, self.records.last_round + 1)
        except BaseException:
            self.close()
            raise

    def play(
        self, metagraph: Metagraph, interrupted: Callable[[], bool] = lambda: False, commits: Commits | None = None
    ) -> RoundResult | None:
        """One round; None when it was interrupted.

        commits  by hotkey, as of the metagraph's block.
        """
        promises = Promises(metagraph.block, metagraph.block_hash, commits or {})
        number, miners = self.records.last_round + 1, self._miners(metagraph)
        asks = [Ask.at(promises, self.netuid, hotkey, number, miners) for hotkey in self.hotkeys]
        return self._round.play(asks, metagraph, interrupted=interrupted)

    def weights(self, block: int) -> list[Weights]:
        """The newest weights of each hotkey that has any. block: the newest one known."""
        made = ((hotkey, board.weights()) for hotkey, board in self.records.boards.items())
        facts = {"made_at_block": block, "version_key": self._version_key}
        return [Weights(self.netuid, hotkey, values, **facts) for hotkey, values in made if values]

    def close(self) -> None:
        """Close the logs."""
        self.records.close()

    def _miners(self, metagraph: Metagraph) -> tuple[str, ...]:
        """Hotkeys that serve an address or have a score: a miner that has never served is not asked."""
        known = {miner for board in self.records.boards.values() for miner in board.state.miners}
        pairs = zip(metagraph.hotkeys, metagraph.axons, strict=True)
        return tuple(sorted(h for h, axon in pairs if h not in self.hotkeys and (axon or h in known)))
