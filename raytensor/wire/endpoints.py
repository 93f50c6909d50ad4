"""Published addresses of miners, checked before anything is sent to them.

In: "ip:port" as the chain has it, untrusted. Out: host and port, or the reason of the refusal. Only IP addresses are
accepted; names are not resolved. Knows nothing of HTTP.

Addresses that reach no public host are those of the IANA registries of special-purpose addresses (IPv4, IPv6; RFC 6890
and its updates, read in 2026), in a table of our own: what Python's `ipaddress` knows differs between versions. An IPv4
address inside of an IPv6 one (mapped, compatible, 6to4, Teredo, NAT64) is judged as that IPv4 address.
"""

import ipaddress
import socket
from functools import lru_cache

from raytensor.errors import WireError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NO_PUBLIC_HOST = [
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # shared, of carriers
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relay
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "::/8",  # unspecified, loopback, mapped and compatible IPv4, reserved
        "64:ff9b:1::/48",  # NAT64 of a local network
        "100::/64",  # discard
        "100:0:0:1::/64",  # dummy prefix
        "2001::/23",  # protocol assignments (Teredo is decoded before)
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4 (decoded before)
        "2620:4f:8000::/48",  # AS112
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fc00::/7",  # unique local
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
    )
]
# Hosts of clouds that give a machine its own secrets; never asked, also where local addresses are allowed.
_METADATA = {
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",  # AWS, Google, Azure, and most others
        "169.254.170.2",  # AWS, containers
        "169.254.170.23",  # AWS, Kubernetes
        "168.63.129.16",  # Azure's host
        "100.100.100.200",  # Alibaba
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd00:ec2::23",  # AWS, Kubernetes
        "fd20:ce::254",  # Google
    )
}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.ip_network("::/96")


class BadEndpoint(WireError):
    """A published address to which nothing is sent."""


def endpoint(axon: str, *, allow_local: bool) -> tuple[str, int]:
    """Host and port of a published address ("203.0.113.7:8091", "[2001:db8::1]:8091").

    allow_local  accept addresses of this machine and of private networks as well.

    Raises BadEndpoint for an address that is missing, unreadable, unspecified, multicast, of a cloud's metadata
    service, or local without `allow_local`.
    """
    if not axon:
        raise BadEndpoint("the miner has published no address")
    host, _, port_text = axon.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        raise BadEndpoint("the miner published a text that is not an IP address") from None
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) < 6 and 0 < int(port_text) <= 65535):
        raise BadEndpoint("the miner published a port outside of 1 to 65535")
    seen = embedded(ip)
    if any(one.is_unspecified or one.is_multicast or str(one) == "255.255.255.255" for one in (ip, seen)):
        raise BadEndpoint(f"{ip} is not the address of a single machine")
    if {ip, seen} & _METADATA:
        raise BadEndpoint(f"{ip} is the address of a cloud's metadata service")
    if not allow_local and (is_local(seen) or ip in _NAT64_LOCAL or is_own(str(ip))):
        fix = "for local networks: allow_local_addresses=true"
        raise BadEndpoint(f"{ip} is an address of this machine or of a private network", fix=fix)
    return str(ip), int(port_text)


def embedded(ip: Address) -> Address:
    """The IPv4 address inside of an IPv6 one, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64 or ip in _NAT64_LOCAL or (ip in _COMPATIBLE and int(ip) > 0xFFFF):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None) or ip


def is_local(ip: Address) -> bool:
    """Whether no public host can have this address."""
    return any(ip.version == network.version and ip in network for network in _NO_PUBLIC_HOST)


@lru_cache(maxsize=4096)
def is_own(host: str) -> bool:
    """Whether an interface of this machine has this address: whether a socket can be bound to it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((host, 0))
    except OSError:
        return False
    return True


def group_of(address: str) -> str:
    """What limits count as one sender or receiver: an IPv4 address, or the /64 of an IPv6 address.

    Raises ValueError unless it is an IP address.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((int(ip) >> 64 << 64, 64)))


def url(host: str, port: int) -> str:
    """http://host:port, with the brackets that IPv6 needs."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
