"""Settings of the wire: plain dataclasses for a Hydra schema, and their checks.

A value's default stands here and nowhere else. Knows nothing of aiohttp or Ray.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass, field
from typing import Any

from raytensor.chain import ss58
from raytensor.errors import ConfigError

PROTOCOLS = ("btauth", "epistula", "axon_v10")


@dataclass
class Freshness:
    # Seconds that a request may be old.
    max_age_s: float = 10.0
    # Seconds that a request may be ahead of this machine's clock.
    max_skew_s: float = 2.0
    # Seconds that an accepted nonce is remembered after its own time; at least max_age_s + max_skew_s.
    retention_s: float = 60.0


@dataclass
class Bounds:
    """What a message may hold; checked before anything of that size is made."""

    # Bytes of a request's body.
    max_body_bytes: int = 4 * 2**20
    # Bytes of an answer's body (a client reads no more).
    max_answer_bytes: int = 16 * 2**20
    # Bytes of a file that is handed in (a task of kind "file").
    max_file_bytes: int = 2**28
    # Rows (contexts) of a question.
    max_rows: int = 4096
    # Tokens of a row.
    max_tokens: int = 65536
    # Next tokens that an answer names per row.
    max_top_k: int = 4096
    # Tokens of a phrase.
    max_horizon: int = 1024
    # Letters of a prompt.
    max_prompt_chars: int = 32768


@dataclass
class Policy:
    # Serve only hotkeys that are registered on the subnet.
    require_registered: bool = True
    # Serve only hotkeys with a validator permit.
    require_permit: bool = True
    # Alpha (10^-9) that a caller must have on the subnet.
    min_stake_alpha_rao: int = 0
    # Hotkeys that are served whatever their registration, permit or stake.
    allow: list[str] = field(default_factory=list)
    # Hotkeys that are never served, allow list or not.
    deny: list[str] = field(default_factory=list)
    # Networks that are never served ("203.0.113.0/24").
    deny_networks: list[str] = field(default_factory=list)
    # Seconds after which a metagraph is too old to decide by; then nobody but the allow list is served.
    max_metagraph_age_s: float = 1200.0
    # Requests per second of one hotkey, per replica.
    hotkey_rate: float = 50.0
    # Requests that one hotkey may send at once, per replica.
    hotkey_burst: float = 200.0
    # Requests per second of one address (IPv6: of one /64), good or bad, per replica.
    address_rate: float = 200.0
    # Requests that one address may send at once, per replica.
    address_burst: float = 800.0
    # Hotkeys and addresses whose limits are remembered, each.
    max_tracked: int = 16384


@dataclass
class Server:
    # Address to listen on.
    host: str = "0.0.0.0"
    # Port to listen on; 0 takes a free one.
    port: int = 8091
    # Let several replicas on one machine share the port (SO_REUSEPORT); the kernel spreads the connections.
    reuse_port: bool = False
    # Protocols that callers may speak: btauth, epistula, axon_v10.
    protocols: list[str] = field(default_factory=lambda: ["btauth"])
    # Open connections in all.
    max_connections: int = 1024
    # Open connections of one address.
    max_connections_per_address: int = 128
    # Questions that are answered at once.
    max_in_hand: int = 64
    # Questions that wait for that; more are refused.
    max_waiting: int = 256
    # Seconds from a connection's first byte (or its opening) to the end of the headers.
    header_timeout_s: float = 5.0
    # Seconds for the whole body to arrive.
    body_timeout_s: float = 10.0
    # Seconds that an answer may take, the question's own deadline permitting.
    answer_timeout_s: float = 60.0
    # Seconds that a stream may pause, on either side.
    stream_pause_s: float = 30.0
    # Seconds that an idle connection is kept.
    keepalive_s: float = 75.0
    freshness: Freshness = field(default_factory=Freshness)
    bounds: Bounds = field(default_factory=Bounds)
    policy: Policy = field(default_factory=Policy)


@dataclass
class Client:
    # Protocol to ask with: btauth, epistula, axon_v10.
    protocol: str = "btauth"
    # Format of the bodies: safetensors or json.
    body: str = "safetensors"
    # Questions on their way at once.
    max_in_flight: int = 256
    # Files on their way at once, of these: each is held in memory until it is through.
    max_files_in_flight: int = 16
    # Open connections to one endpoint.
    max_connections_per_endpoint: int = 8
    # Times a question is sent at most, within its deadline; each is signed anew.
    tries: int = 2
    # Seconds to open a connection.
    connect_timeout_s: float = 4.0
    # Share of the miners that must have answered before the adaptive deadline counts; more than a half.
    quorum: float = 0.6
    # Adaptive deadline: median + deadline_mads * MAD of the answers' times; 0 switches it off.
    deadline_mads: float = 3.0
    # Seconds below which the adaptive deadline never falls.
    min_deadline_s: float = 1.0
    # Ask addresses of this machine and of private networks, too: for local networks only. A stranger who publishes
    # one could otherwise aim your requests at your own services.
    allow_local_addresses: bool = False
    bounds: Bounds = field(default_factory=Bounds)


def check(settings: Server | Client) -> None:
    """Refuse impossible settings. Raises `ConfigError` with every mistake found, each with its value and the fix."""
    wrong: list[str] = []

    def need(ok: bool, key: str, value: Any, why: str) -> None:
        if not ok:
            wrong.append(f"{key}={value!r}: {why}")

    def walk(group: Any, prefix: str) -> None:
        for name in group.__dataclass_fields__:
            value, key = getattr(group, name), prefix + name
            if hasattr(value, "__dataclass_fields__"):
                walk(value, f"{key}.")
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                may_be_zero = name in ("port", "min_stake_alpha_rao", "max_skew_s", "deadline_mads", "max_waiting")
                ok = math.isfinite(value) and (value > 0 or (may_be_zero and value == 0))
                need(ok, key, value, "must be 0 or greater" if may_be_zero else "must be greater than 0")

    walk(settings, "")
    if isinstance(settings, Server):
        fresh, policy = settings.freshness, settings.policy
        least = fresh.max_age_s + fresh.max_skew_s
        need(fresh.retention_s >= least, "freshness.retention_s", fresh.retention_s, f"must be at least {least:g}")
        need(settings.port <= 65535, "port", settings.port, "must be at most 65535")
        need(bool(settings.protocols), "protocols", settings.protocols, f"must name one or more of {PROTOCOLS}")
        for name in settings.protocols:
            need(name in PROTOCOLS, "protocols", name, f"must be one of {', '.join(PROTOCOLS)}")
        for key in ("allow", "deny"):
            for address in getattr(policy, key):
                need(_decodes(ss58.decode, address), f"policy.{key}", address, "must be the ss58 address of a hotkey")
        for network in policy.deny_networks:
            need(
                _decodes(ipaddress.ip_network, network),
                "policy.deny_networks",
                network,
                "must be a network like 203.0.113.0/24",
            )
    else:
        need(settings.protocol in PROTOCOLS, "protocol", settings.protocol, f"must be one of {', '.join(PROTOCOLS)}")
        need(settings.body in ("safetensors", "json"), "body", settings.body, "must be safetensors or json")
        need(0.5 < settings.quorum <= 1.0, "quorum", settings.quorum, "must lie above 0.5 and be at most 1")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _decodes(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except ValueError:
        return False
    return True
