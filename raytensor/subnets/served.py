"""Miners of a subnet package on a development chain, served by signed HTTP, and a validator that asks them.

In: a folder for the chain, the name of a subnet. Out: results of rounds, and weights. The round is that of
`raytensor validate`, questions go through the addresses on the chain, answers come from the package's responder.
Waits for: blocks, at most `LIMIT_S` each; answers until their deadline. Uses no Ray cluster.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from raytensor import config
from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.intents import ServeAxon
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey, WalletKey, keypair_from, new_phrase, write_key
from raytensor.config.compose import compose
from raytensor.config.wire import AccessPolicy, Client, Server
from raytensor.data.text import Text, unigram
from raytensor.devnet.launch import EmbeddedChain
from raytensor.mechanisms import base
from raytensor.mechanisms.evidence import Evidence
from raytensor.miners.responder import RespondingMiner
from raytensor.types import Failure, Metagraph, Reason, Response, Score, Task
from raytensor.validators.records import Records
from raytensor.validators.round import Round, RoundParts
from raytensor.validators.scorer import MechanismSpec, Scorer
from raytensor.validators.scorer_service import InProcessScorers
from raytensor.validators.transport import Answer
from raytensor.wire.client import WireClient
from raytensor.wire.server import WireServer

LIMIT_S = 120.0
RAO = 10**9
PALLET = "SubtensorModule"
HOST = "127.0.0.2"  # the chain refuses 127.0.0.1
T = TypeVar("T")
NAME = "subnet"  # of the mechanism in the scorer


class Devnet:
    """The embedded chain in a process of its own; `close` ends it. client: a `ChainClient` of `endpoint`."""

    def __init__(self, folder: Path, block_time_s: float = 0.1) -> None:
        self._chain = EmbeddedChain(folder / "chain", block_time_s, folder / "chain.log", LIMIT_S)
        self.endpoint, self.wallets = self._chain.endpoint, folder / "wallets"
        self.client = ChainClient(self.endpoint, 60.0)

    def wallet(self, tao: float = 1000.0) -> tuple[WalletKey, WalletKey]:
        """The coldkey, with `tao` TAO, and the hotkey of a new wallet in the folder `wallets`, not encrypted."""
        name = f"wallet{len(list(self.wallets.glob('*')))}"
        keys = [WalletKey(name, hotkey, str(self.wallets)) for hotkey in (None, "default")]
        for ref in keys:
            write_key(ref, keypair_from(new_phrase()))
        call = Call("Balances", "transfer_keep_alive", {"dest": keys[0].ss58, "value": round(tao * RAO)})
        self.client.send(call, DevKey("//Alice").open(), timeout_s=LIMIT_S)
        return keys[0], keys[1]

    def close(self) -> None:
        self.client.close()
        self._chain.close()


class ServedMiner:
    """Registered miners, whose addresses are on the chain, and a validator with stake.

    subnet: as in `subnet=NAME`. behaviours: of the miners: honest, silent, or what the responder knows.
    hotkeys: the miners' (ss58). mechanism: behind its checks. weights: of the newest round, by hotkey.
    """

    def __init__(self, devnet: Devnet, subnet: str, behaviours: Sequence[str] = ("honest",)) -> None:
        self.devnet = devnet
        self.cfg: config.RunConfig = compose("run", [f"subnet={subnet}"])
        declared = base.needs(self.cfg.mechanism)
        assert declared.responder, f"subnet={subnet} declares no responder"
        text = _text()
        spec = MechanismSpec(self.cfg.mechanism, text.log_unigram, text.vocab_size, self.cfg.validators.deadline_s)
        self.mechanism = spec.load()
        # A subnet of its own for each object: the keys have its number.
        root = f"//subnets//{devnet.client.query(PALLET, 'TotalNetworks')}"
        self._validator, owner = DevKey(f"{root}//validator"), DevKey(f"{root}//owner")
        keys = [DevKey(f"{root}//{n}") for n in range(len(behaviours))]
        self.validator, self.hotkeys = self._validator.ss58, tuple(key.ss58 for key in keys)
        neurons = [Neuron("owner", "owner", owner, DevKey(f"{owner.uri}//cold"))]
        neurons.append(Neuron("validator", "validator", self._validator, DevKey(f"{root}//cold"), 100 * RAO))
        neurons += [Neuron(key.uri, "miner", key, DevKey(f"{key.uri}//cold")) for key in keys]
        self.netuid = make_subnet(devnet.client, SubnetSpec(neurons)).netuid
        self._miners: dict[str, RespondingMiner] = {}
        for hotkey, behaviour in zip(self.hotkeys, behaviours, strict=True):
            of = hotkey, config.MinerProfile(behaviour=behaviour), self.cfg, text, declared.responder
            self._miners[hotkey] = RespondingMiner(*of)
        server = Server(host=HOST, port=0, policy=AccessPolicy(allow=[self.validator]))
        self._server = WireServer(self.hotkeys, self._answer, server, schemas=declared.schemas)
        self._loop, self._thread = asyncio.new_event_loop(), ThreadPoolExecutor(1, "served miner")
        self._thread.submit(self._loop.run_forever)
        _, self.port = self._in_loop(self._server.start())
        for key in keys:
            call = ServeAxon(signer=key.ss58, netuid=self.netuid, ip=HOST, port=self.port).call()
            devnet.client.send(call, key.open(), timeout_s=LIMIT_S)
        self._records = _Records(Records.in_memory(self.netuid, (self.validator,), self.mechanism).boards)
        scorers = InProcessScorers(Scorer({NAME: spec}))
        self._round = Round(RoundParts(NAME, self.mechanism, text, self._records, self, scorers))
        self.round, self.weights = 0, dict[str, float]()

    def ask(self, tasks: Sequence[Task], metagraph: Metagraph | None = None) -> Iterator[Answer]:
        """The answers of the miners over signed HTTP, through their addresses on the chain."""
        yield from self._in_loop(self._ask(tasks, metagraph or self.metagraph()))

    def play(self, rounds: int = 1) -> dict[str, list[Score | Failure]]:
        """Play rounds: ask, score, reduce. Returns the last one's results by the miner's hotkey."""
        for _ in range(rounds):
            self.round, graph = self.round + 1, self.metagraph()
            who = self.netuid, self.validator, self.round, self.hotkeys
            result = self._round.play([base.Ask(graph.block_hash, *who, block=graph.block)], graph)
            assert result is not None, "nothing interrupts it"
            self.weights = dict(result.weights[self.validator])
        return self._records.newest_results

    def metagraph(self) -> Metagraph:
        return read_metagraph(self.devnet.client, self.netuid)

    def close(self) -> None:
        self._in_loop(self._server.stop(1.0))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.shutdown()
        self._loop.close()

    async def _answer(self, task: Task) -> Response | Failure:
        answer = await asyncio.to_thread(self._miners[task.hotkey].answer, task)
        return answer or Failure(task.task_id, task.hotkey, Reason.SILENT, "the miner gave no answer")

    async def _ask(self, tasks: Sequence[Task], metagraph: Metagraph) -> list[Answer]:
        settings = Client(allow_local_addresses=True, deadline_mads=0)
        async with WireClient(self._validator.open(), settings) as client:
            return await client.ask_all(tasks, metagraph)

    def _in_loop(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(LIMIT_S)


class _Records(Records):
    newest_results: dict[str, list[Score | Failure]]

    def append(self, evidence: Evidence) -> None:
        super().append(evidence)
        self.newest_results = {}
        for result in (*evidence.results, *evidence.unjudged):
            self.newest_results.setdefault(result.hotkey, []).append(result)


def _text() -> Text:
    """A text for mechanisms that draw from one: the bytes of this module."""
    tokens = np.frombuffer(Path(__file__).read_bytes(), np.uint8).astype(np.uint16)
    ends = np.array([0, len(tokens)])
    return Text(tokens, tokens, ends, ends, unigram(tokens, 256), 256, 1.0)
