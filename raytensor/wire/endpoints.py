"""Published addresses of miners, checked before anything is sent to them.

In: "ip:port" as the chain has it, untrusted. Out: host and port, or the reason of the refusal. Only IP addresses are
accepted; names are not resolved. Knows nothing of HTTP.
"""

import ipaddress

from raytensor.errors import WireError


class BadEndpoint(WireError):
    """A published address to which nothing is sent."""


def endpoint(axon: str, *, allow_local: bool) -> tuple[str, int]:
    """Host and port of a published address ("203.0.113.7:8091", "[2001:db8::1]:8091").

    allow_local  accept addresses of this machine and of private networks as well.

    Raises BadEndpoint for an address that is missing, unreadable, unspecified, multicast, or local without
    `allow_local`.
    """
    if not axon:
        raise BadEndpoint("the miner has published no address")
    host, _, port_text = axon.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        raise BadEndpoint("the miner published a text that is not an IP address") from None
    if not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text) <= 65535):
        raise BadEndpoint("the miner published a port outside of 1 to 65535")
    seen = ip
    if isinstance(ip, ipaddress.IPv6Address):  # embedded IPv4 addresses are checked as IPv4
        seen = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip
    if seen.is_unspecified or seen.is_multicast or str(seen) == "255.255.255.255":
        raise BadEndpoint(f"{ip} is not the address of a single machine")
    if not allow_local and not seen.is_global:
        fix = "for local networks: allow_local_addresses=true"
        raise BadEndpoint(f"{ip} is an address of this machine or of a private network", fix=fix)
    return str(ip), int(port_text)


def url(host: str, port: int) -> str:
    """http://host:port, with the brackets that IPv6 needs."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
