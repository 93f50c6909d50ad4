"""Settings of signed HTTP between validators and miners: of a server (a miner's axon) and of a client (a validator).

In: nothing. Out: plain dataclasses with every default. They are the sections `miners.wire` and `asking` of the jobs,
and the settings that `raytensor.wire` takes. Knows nothing of aiohttp or Ray.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from raytensor.config.checks import HTTP_PATH, IP_NETWORK, PUBLISHABLE, SS58, URL, Section, setting

PROTOCOLS = ("btauth", "epistula", "axon_v10")


@dataclass
class Freshness(Section):
    # Largest age of a request in seconds.
    max_age_s: float = 10.0
    # Seconds that the timestamp of a request may be ahead of this machine's clock.
    max_skew_s: float = setting(2.0, least=0)
    # Seconds that an accepted nonce is remembered after its timestamp; at least max_age_s + max_skew_s.
    retention_s: float = 60.0

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.retention_s < self.max_age_s + self.max_skew_s:
            yield "retention_s", f"must be at least max_age_s + max_skew_s ({self.max_age_s + self.max_skew_s:g})"


@dataclass
class AnswerBounds(Section):
    """Size limits of what a client reads."""

    # Largest body of an answer in bytes.
    max_answer_bytes: int = 16 * 2**20
    # Largest submitted file in bytes (a task of kind "file"); a mechanism may read less
    # (mechanism.model_eval.max_bytes).
    max_file_bytes: int = 2**28


@dataclass
class Bounds(Section):
    """Size limits of what a server reads and sends, checked before anything of that size is allocated."""

    # Largest body of a request in bytes.
    max_body_bytes: int = 4 * 2**20
    # Largest submitted file in bytes (a task of kind "file").
    max_file_bytes: int = 2**28
    # Rows (contexts) of a question.
    max_rows: int = 4096
    # Tokens of a row.
    max_tokens: int = 65536
    # Next tokens that an answer names per row.
    max_top_k: int = 4096
    # Tokens of a phrase.
    max_horizon: int = 1024
    # Characters of a prompt.
    max_prompt_chars: int = 32768


@dataclass
class AccessPolicy(Section):
    """Which callers a server answers, and how often."""

    # Serve only hotkeys that are registered on the subnet.
    require_registered: bool = True
    # Serve only hotkeys with a validator permit on the subnet.
    require_permit: bool = True
    # Alpha that a caller must have on the subnet, in rao (10^9 rao = 1 alpha).
    min_stake_alpha_rao: int = setting(0, least=0)
    # Hotkeys that are served whatever their registration, permit or stake.
    allow: list[str] = setting(make=list, form=SS58)
    # Hotkeys that are never served, even if they are on the allow list.
    deny: list[str] = setting(make=list, form=SS58)
    # Networks that are never served ("203.0.113.0/24").
    deny_networks: list[str] = setting(make=list, form=IP_NETWORK)
    # Age in seconds above which a metagraph is too old to decide by; then only the allow list is served.
    max_metagraph_age_s: float = 1200.0
    # Requests per second of one hotkey, per replica.
    hotkey_rate: float = 50.0
    # Burst of requests that one hotkey may send, per replica.
    hotkey_burst: float = setting(200.0, least=1)
    # Requests per second of one address (IPv6: of one /64), valid or not, per replica.
    address_rate: float = 200.0
    # Burst of requests that one address may send, per replica.
    address_burst: float = setting(800.0, least=1)
    # Hotkeys, and addresses, whose rate limits are tracked.
    max_tracked: int = 16384


@dataclass
class Server(Section):
    # Address to listen on: 0.0.0.0 is all of IPv4, :: is all of IPv6 and IPv4.
    host: str = "0.0.0.0"
    # Port to listen on; 0 chooses a free one.
    port: int = setting(8091, least=0, most=65535)
    # Let several replicas on one machine share the port (SO_REUSEPORT); the kernel distributes the connections.
    reuse_port: bool = False
    # Protocols that callers may use: btauth, epistula, axon_v10.
    protocols: list[str] = setting(make=lambda: ["btauth"], choices=PROTOCOLS)
    # Open connections in total.
    max_connections: int = 1024
    # Open connections of one address (IPv6: of one /64).
    max_connections_per_address: int = 128
    # Share of the connections that is kept for callers that were admitted. A stranger beyond the rest takes the place
    # of the stranger that is idle for longest.
    kept_for_callers: float = setting(0.5, least=0, below=1)
    # Bytes of bodies whose signatures are not checked yet, in total; one address may hold a quarter of them.
    max_unproved_bytes: int = 64 * 2**20
    # Signature schemes that are accepted; a caller's header names one but can't add one.
    schemes: list[str] = setting(make=lambda: ["sr25519"], choices=("sr25519", "ed25519"))
    # Questions that are answered concurrently.
    max_concurrent: int = 64
    # Questions that wait for a free place; more are refused.
    max_queued: int = setting(256, least=0)
    # Seconds from the first byte of a request (or the opening of the connection) to the end of its headers.
    header_timeout_s: float = 5.0
    # Seconds for the whole body to arrive.
    body_timeout_s: float = 10.0
    # Seconds that an answer may take; the deadline of the question may be shorter.
    answer_timeout_s: float = 60.0
    # Seconds that a stream may pause, on either side.
    stream_pause_s: float = 30.0
    # Seconds that an idle connection is kept open.
    keepalive_s: float = 75.0
    # Which timestamps of requests are accepted.
    freshness: Freshness = field(default_factory=Freshness)
    # Size limits.
    bounds: Bounds = field(default_factory=Bounds)
    # Which callers are answered, and how often.
    policy: AccessPolicy = field(default_factory=AccessPolicy)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not self.protocols:
            yield "protocols", f"must name one or more of {', '.join(PROTOCOLS)}"
        if not self.schemes:
            yield "schemes", "must name sr25519, ed25519 or both"
        if self.max_unproved_bytes < 4 * self.bounds.max_body_bytes:
            yield "max_unproved_bytes", f"must be at least 4 * bounds.max_body_bytes ({4 * self.bounds.max_body_bytes})"


@dataclass
class MinersWire(Server):
    """The server of a job's miners: the first one listens on `port`, each next one on the next port, or all on one."""

    # Serve the hotkey of every miner by signed HTTP, and publish its address on the chain.
    enabled: bool = False
    # Address to publish; null asks `ip_from`, and without it publishes `host`, or the address of this node in the
    # cluster where `host` is all addresses. The chain refuses 127.0.0.1.
    ip: str | None = setting(None, form=PUBLISHABLE)
    # URL that answers with this machine's own external address as text (https://api.ipify.org, for example).
    ip_from: str | None = setting(None, form=URL)
    # Listen on one port for all hotkeys: the receiver that each request is signed for tells them apart.
    one_port: bool = False
    # Publish an address only after a request to it has reached this server. false: where the router of this network
    # does not send a machine's own packets back to it.
    check_reachable: bool = True


@dataclass
class HttpForm(Section):
    """A subnet's own HTTP/JSON protocol, for mechanisms whose questions have a payload."""

    # Path of the requests, as /v1/generate; null: RayTensor's own form.
    path: str | None = setting(None, form=HTTP_PATH)
    # Method of the requests: POST or PUT.
    method: str = setting("POST", choices=("POST", "PUT"))
    # JSON of a request. "{name}" is the field of the question with that name, or task_id, kind, netuid, deadline_s.
    body: dict[str, Any] = field(default_factory=dict)
    # Field of the answer -> its place in the JSON of an answer, as choices.0.text.
    answer: dict[str, str] = field(default_factory=dict)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if not all(isinstance(place, str) and place for place in self.answer.values()):
            yield "answer", "must give each field its place as text, like choices.0.text"
        if (self.body or self.answer) and self.path is None:
            yield "path", "must be the path of the requests, as body and answer are given"


@dataclass
class Client(Section):
    # Protocol of the questions: btauth, epistula or axon_v10.
    protocol: str = setting("btauth", choices=PROTOCOLS)
    # Format of the bodies: safetensors or json.
    body: str = setting("safetensors", choices=("safetensors", "json"))
    # A protocol of the subnet's own: the form of requests and answers, signed as `protocol` says.
    http: HttpForm = field(default_factory=HttpForm)
    # Questions in flight, over all validators of the process.
    max_in_flight: int = 256
    # Files in flight, counted within max_in_flight: each is held in memory until it is complete.
    max_files_in_flight: int = 16
    # Questions in flight to one IP address (IPv6: to one /64), over all hotkeys and ports: many hotkeys may publish the
    # address of one victim. The others wait; a question's time counts from when it is sent.
    max_in_flight_per_address: int = 64
    # Open connections to one endpoint.
    max_connections_per_endpoint: int = 8
    # Attempts per question within its deadline; each is signed anew.
    tries: int = 2
    # Seconds to open a connection.
    connect_timeout_s: float = 4.0
    # Share of the miners that must have answered before the adaptive deadline applies.
    quorum: float = setting(0.6, above=0.5, most=1)
    # Adaptive deadline: median + deadline_mads * MAD of the answer times; 0 turns it off.
    deadline_mads: float = setting(3.0, least=0)
    # Lower limit of the adaptive deadline in seconds.
    min_deadline_s: float = 1.0
    # Also ask addresses of this machine and of private networks: for local networks only. Otherwise a miner could
    # publish such an address and direct the requests of a validator to the validator's own services.
    allow_local_addresses: bool = False
    # Size limits.
    bounds: AnswerBounds = field(default_factory=AnswerBounds)
