"""The settings of the `gateway` job."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raytensor.config.checks import FOLDER_NAME, Section, setting
from raytensor.config.operators import Endpoints, Operated, name_each_once
from raytensor.config.wire import Client


@dataclass
class GatewayChain(Endpoints):
    """The chain, and how often it is read."""

    # Blocks between metagraph refreshes; an epoch always refreshes.
    refresh_blocks: int = 10


@dataclass
class GatewayLimits(Section):
    """Bounds of a request, checked before anything is asked."""

    # Largest body of a request in bytes.
    max_body_bytes: int = 256 * 1024
    # Seconds for the whole body to arrive.
    body_timeout_s: float = 10.0
    # Characters of a prompt, or of all messages of a chat. Miners of this version read at most 32768.
    max_prompt_chars: int = 16384
    # Largest max_tokens of a request.
    max_tokens: int = setting(1024, most=65536)
    # max_tokens of a request that names none.
    default_tokens: int = 128
    # Requests that are answered concurrently; more are refused with status 503.
    max_concurrent: int = 64

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.default_tokens > self.max_tokens:
            yield "default_tokens", f"must be at most max_tokens ({self.max_tokens})"


@dataclass
class Routing(Section):
    """Which miners are asked, and when another one is asked as well."""

    # Miners that may be asked for one request: those with most incentive that serve an address.
    top: int = 5
    # Seconds from a request to the end of its answer, over all miners.
    deadline_s: float = 60.0
    # Seconds to the first piece of text after which a miner counts as failed, and the next one is asked.
    first_piece_s: float = 20.0
    # Quantile of the measured times to the first piece of text after which the next miner is asked as well.
    hedge_quantile: float = setting(0.9, above=0, below=1)
    # Lower limit of that time in seconds.
    hedge_min_s: float = 0.1
    # That time while fewer than 8 answers are measured.
    hedge_initial_s: float = 2.0
    # Miners that may be asked at the same time for one request; 1 turns hedging off.
    max_parallel: int = 2
    # Seconds that a miner that failed is asked last; doubled with each failure in a row, at most 32 times as long.
    rest_s: float = 5.0


@dataclass
class GatewayConfig(Operated):
    # Name of the folder under paths.runs that keeps the usage; the same name continues it.
    name: str = setting("gateway", form=FOLDER_NAME)
    # Subnets whose miners answer; each is a model named subnet-NETUID.
    netuids: list[int] = setting(make=list, least=1, most=65535)
    # Hotkey that signs the requests to miners: wallet/hotkey, or a development key like //Alice.
    hotkey: str | None = None
    # File of the API keys, made by `raytensor gateway keys add`.
    keys: str = "~/.raytensor/gateway-keys.json"
    # Address to listen on. It speaks plain HTTP: put a proxy with TLS before it to serve others.
    host: str = "127.0.0.1"
    # Port to listen on; 0 chooses a free one.
    port: int = setting(8080, least=0, most=65535)
    # Tokens that quotas and usage count: bytes, or a tokenizer.json of the subnet.
    tokenizer: str = "bytes"
    # The chain of the subnets.
    chain: GatewayChain = field(default_factory=GatewayChain)
    # Bounds of a request.
    limits: GatewayLimits = field(default_factory=GatewayLimits)
    # Which miners are asked, and when another one is asked as well.
    routing: Routing = field(default_factory=Routing)
    # How miners are asked: signed HTTP.
    asking: Client = field(default_factory=Client)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        yield from name_each_once(netuids=self.netuids)
