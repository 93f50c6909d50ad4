"""Published addresses of miners, checked before anything is sent there.

In: "ip:port" as the chain has it, written by a stranger. Out: host and port, or the reason why not. Names are not
resolved: only addresses count. Knows nothing of HTTP.
"""

from __future__ import annotations

import ipaddress

from raytensor.errors import WireError


class BadEndpoint(WireError):
    """A published address that is not asked."""


def endpoint(axon: str, *, allow_local: bool) -> tuple[str, int]:
    """Host and port of a published address ("203.0.113.7:8091", "[2001:db8::1]:8091").

    allow_local  also addresses of this machine and of private networks.

    Raises BadEndpoint: none published, unreadable, unspecified, multicast, reserved, or local without the switch.
    """
    if not axon:
        raise BadEndpoint("the miner has published no address")
    host, _, port_text = axon.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise BadEndpoint("the miner published something that is no IP address") from None
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) <= 65535):
        raise BadEndpoint("the miner published a port outside of 1 to 65535")
    seen = ip
    if isinstance(ip, ipaddress.IPv6Address):  # an IPv4 address in an IPv6 coat leads where the IPv4 address leads
        seen = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    if seen.is_unspecified or seen.is_multicast or str(seen) == "255.255.255.255":
        raise BadEndpoint(f"{ip} is no address of one machine")
    if not allow_local and not seen.is_global:
        raise BadEndpoint(
            f"{ip} is an address of this machine or of a private network",
            fix="allow_local_addresses=true asks such addresses, for local networks",
        )
    return str(ip), int(port_text)


def url(host: str, port: int) -> str:
    """http://host:port, with the brackets that IPv6 needs."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
