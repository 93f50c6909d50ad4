"""Calls that publish endpoints of hotkeys and identities of coldkeys and subnets.

In: a hotkey's (serving) or coldkey's (identity) extrinsic. Out: a record in storage, or one of the pallet's errors
(subnets/serving.rs: loopback and unset addresses are refused, private ranges are allowed).
"""

from __future__ import annotations

from raytensor.devnet.pallet import Origin, call
from raytensor.devnet.subtensor.costs import ref_time
from raytensor.devnet.subtensor.structs import (
    AxonInfo,
    ChainIdentityV2,
    NeuronCertificate,
    PrometheusInfo,
    SubnetIdentityV3,
)

U32_MAX, U128_MAX = 2**32 - 1, 2**128 - 1
LOOPBACK_V4, LOOPBACK_V6 = 0x7F000001, 1
SERVE = ref_time(31_000_000, 3, 1)
# Longest text of each field, in bytes.
IDENTITY_LIMITS = ChainIdentityV2(*[256] * 7)._replace(image=1024, description=1024, additional=1024)
SUBNET_IDENTITY_LIMITS = SubnetIdentityV3(*[1024] * 8)._replace(subnet_name=256, discord=256)


class ServingCalls:
    @call(4, pays=False, weight=SERVE)
    def serve_axon(
        self,
        origin: Origin,
        netuid: "u16",
        version: "u32",
        ip: "u128",
        port: "u16",
        ip_type: "u8",
        protocol: "u8",
        placeholder1: "u8",
        placeholder2: "u8",
    ):
        info = (version, ip, port, ip_type, protocol, placeholder1, placeholder2)
        self._serve_axon(origin.ensure_signed(), netuid, info)

    @call(40, pays=False, weight=SERVE)
    def serve_axon_tls(
        self,
        origin: Origin,
        netuid: "u16",
        version: "u32",
        ip: "u128",
        port: "u16",
        ip_type: "u8",
        protocol: "u8",
        placeholder1: "u8",
        placeholder2: "u8",
        certificate: "Vec<u8>",
    ):
        """As serve_axon; the certificate is an algorithm byte and a public key of at most 64 bytes."""
        hotkey = origin.ensure_signed()
        self._serve_axon(hotkey, netuid, (version, ip, port, ip_type, protocol, placeholder1, placeholder2))
        if 1 < len(certificate) <= 65:
            self.NeuronCertificates[netuid, hotkey] = NeuronCertificate(certificate[1:], certificate[0])

    @call(5, pays=False, weight=ref_time(28_000_000, 3, 1))
    def serve_prometheus(self, origin: Origin, netuid: "u16", version: "u32", ip: "u128", port: "u16", ip_type: "u8"):
        hotkey = origin.ensure_signed()
        self.check_serving(hotkey, netuid, ip, port, ip_type, self.Prometheus, zero_ip=False)
        self.Prometheus[netuid, hotkey] = PrometheusInfo(self.runtime.block_number, version, ip, port, ip_type)
        self.emit("PrometheusServed", netuid, hotkey)

    def _serve_axon(self, hotkey: bytes, netuid: int, info: tuple) -> None:
        _, ip, port, ip_type, *_ = info
        self.check_serving(hotkey, netuid, ip, port, ip_type, self.Axons, zero_ip=True)
        self.Axons[netuid, hotkey] = AxonInfo(self.runtime.block_number, *info)
        self.emit("AxonServed", netuid, hotkey)

    def check_serving(
        self, hotkey: bytes, netuid: int, ip: int, port: int, ip_type: int, records, zero_ip: bool
    ) -> None:
        """Raise the error of an invalid endpoint; `records` is Axons or Prometheus."""
        if (netuid, hotkey) not in self.Uids:
            raise self.error("HotKeyNotRegisteredInNetwork")
        if ip_type not in (4, 6):
            raise self.error("InvalidIpType")
        bad = {LOOPBACK_V4} if ip_type == 4 else {LOOPBACK_V6, U128_MAX}
        if ip in bad or (ip == 0 and not zero_ip) or (ip_type == 4 and ip >= U32_MAX):
            raise self.error("InvalidIpAddress")
        known = records[netuid, hotkey]
        if known is not None and self.runtime.block_number - known.block < self.ServingRateLimit[netuid]:
            raise self.error("ServingRateLimitExceeded")
        if port == 0:
            raise self.error("InvalidPort")

    @call(68, weight=ref_time(38_000_000, 3, 1))
    def set_identity(
        self,
        origin: Origin,
        name: "Vec<u8>",
        url: "Vec<u8>",
        github_repo: "Vec<u8>",
        image: "Vec<u8>",
        discord: "Vec<u8>",
        description: "Vec<u8>",
        additional: "Vec<u8>",
    ):
        """Set the identity of a coldkey that owns at least one registered hotkey."""
        coldkey = origin.ensure_signed()
        networks = self.netuids()
        if not any((netuid, hotkey) in self.Uids for hotkey in self.OwnedHotkeys[coldkey] for netuid in networks):
            raise self.error("HotKeyNotRegisteredInNetwork")
        identity = ChainIdentityV2(name, url, github_repo, image, discord, description, additional)
        self._check_lengths(identity, IDENTITY_LIMITS)
        self.IdentitiesV2[coldkey] = identity
        self.emit("ChainIdentitySet", coldkey)

    @call(78, weight=ref_time(19_000_000, 2, 1))
    def set_subnet_identity(
        self,
        origin: Origin,
        netuid: "u16",
        subnet_name: "Vec<u8>",
        github_repo: "Vec<u8>",
        subnet_contact: "Vec<u8>",
        subnet_url: "Vec<u8>",
        discord: "Vec<u8>",
        description: "Vec<u8>",
        logo_url: "Vec<u8>",
        additional: "Vec<u8>",
    ):
        """Set the identity of a subnet; only its owner may."""
        coldkey = origin.ensure_signed()
        self.require_subnet(netuid)
        if self.SubnetOwner[netuid] != coldkey:
            raise self.error("NotSubnetOwner")
        identity = SubnetIdentityV3(
            subnet_name, github_repo, subnet_contact, subnet_url, discord, description, logo_url, additional
        )
        self.check_subnet_identity(identity)
        self.SubnetIdentitiesV3[netuid] = identity
        self.emit("SubnetIdentitySet", netuid)

    def check_subnet_identity(self, identity: SubnetIdentityV3) -> None:
        self._check_lengths(identity, SUBNET_IDENTITY_LIMITS)

    def _check_lengths(self, identity: tuple, limits: tuple) -> None:
        if any(len(text) > limit for text, limit in zip(identity, limits)):
            raise self.error("InvalidIdentity")

    @call(91, weight=ref_time(20_000_000, 3, 3))
    def try_associate_hotkey(self, origin: Origin, hotkey: "AccountId32"):
        """Associate a hotkey without an owner with the coldkey; no effect if it has one."""
        coldkey = origin.ensure_signed()
        if not self.hotkey_exists(hotkey):
            self.require_staking_slot(coldkey, hotkey)
        self.own_hotkey(coldkey, hotkey)

    @call(114, weight=ref_time(30_000_000, 4, 2))
    def set_coldkey_auto_stake_hotkey(self, origin: Origin, netuid: "u16", hotkey: "AccountId32"):
        """Set the hotkey on which the coldkey's mining incentives of a subnet are staked."""
        coldkey = origin.ensure_signed()
        self.require_subnet(netuid)
        if (netuid, hotkey) not in self.Uids:
            raise self.error("HotKeyNotRegisteredInSubNet")
        old = self.AutoStakeDestination[coldkey, netuid]
        if old == hotkey:
            raise self.error("SameAutoStakeHotkeyAlreadySet")
        if old is not None:
            left = tuple(c for c in self.AutoStakeDestinationColdkeys[old, netuid] if c != coldkey)
            self.AutoStakeDestinationColdkeys[old, netuid] = left
        self.AutoStakeDestination[coldkey, netuid] = hotkey
        known = self.AutoStakeDestinationColdkeys[hotkey, netuid]
        self.AutoStakeDestinationColdkeys[hotkey, netuid] = (*known, coldkey)
        self.emit("AutoStakeDestinationSet", coldkey, netuid, hotkey)
