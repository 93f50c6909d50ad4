"""Whom a server answers: every refusal says why, and without knowledge nobody is let in."""

from __future__ import annotations

import numpy as np
import pytest
from wirekit import key, metagraph

from raytensor.config.checks import check
from raytensor.config.wire import AccessPolicy, Client, Server
from raytensor.errors import ConfigError
from raytensor.wire.errors import RateLimited, Refused
from raytensor.wire.policy import AccessControl, Buckets

A, B, C = (key(name).ss58 for name in "abc")


def policy(**changes) -> AccessControl:
    return AccessControl(AccessPolicy(**changes))


def refused(made, hotkey, now_s=0.0) -> str:
    with pytest.raises(Refused) as caught:
        made.admit(hotkey, now_s)
    return f"{caught.value} | {caught.value.fix}"


def test_without_a_metagraph_or_with_an_old_one_nobody_is_served():
    made = policy(allow=[C])
    assert "not read its subnet" in refused(made, A)
    made.update(metagraph([A]), 100.0)
    made.admit(A, 100.0 + 1200)
    assert "1201 s old" in refused(made, A, 100.0 + 1201)
    made.admit(C, 100.0 + 1201)


def test_registration_permit_and_stake():
    made = policy(min_stake_alpha_rao=2_500_000_000)
    subnet = metagraph([A, B], permits=[True, False], stake_rao=1_000_000_000)
    made.update(subnet, 0.0)
    assert "not registered on subnet 1" in refused(made, C)
    assert "no validator permit on subnet 1" in refused(made, B)
    assert "has 1 alpha on subnet 1; this server requires 2.5 | stake 1.5 alpha more" in refused(made, A)
    subnet.stake_alpha_rao[:] = np.array([2_500_000_000, 0], np.uint64)
    made.update(subnet, 0.0)
    made.admit(A, 0.0)
    made.update(metagraph([B]), 0.0)
    assert "not registered" in refused(made, A), "a new snapshot replaces the old one"


def test_lists():
    made = policy(allow=[A, B], deny=[B])
    made.admit(A, 0.0)
    assert "deny list" in refused(made, B)
    open_to_all = policy(require_registered=False, require_permit=False, deny=[B])
    open_to_all.admit(C, 0.0)
    assert "deny list" in refused(open_to_all, B)


def test_a_permit_alone_does_not_open_to_strangers():
    made = policy(require_registered=False)
    made.update(metagraph([A]), 0.0)
    assert "not registered" in refused(made, C)


def test_a_callers_limit():
    made = policy(hotkey_rate=2.0, hotkey_burst=3.0)
    for _ in range(3):
        made.spend(A, 10.0)
    with pytest.raises(RateLimited, match="more than 2 requests/s") as caught:
        made.spend(A, 10.0)
    assert caught.value.retry_after_s == pytest.approx(0.5)
    made.spend(B, 10.0)
    made.spend(A, 10.5)
    with pytest.raises(RateLimited):
        made.spend(A, 10.5)
    with pytest.raises(RateLimited):
        made.spend(A, 3.0)  # a clock that steps back gives nothing away


def test_an_addresss_limit_and_its_network():
    made = policy(address_rate=1.0, address_burst=1.0, deny_networks=["203.0.113.0/24", "2001:db8:bad::/48"])
    made.address("198.51.100.1", 0.0)
    with pytest.raises(RateLimited):
        made.address("198.51.100.1", 0.0)
    with pytest.raises(RateLimited):
        made.address("::ffff:198.51.100.1", 0.0)
    made.address("198.51.100.2", 0.0)
    made.address("2001:db8::1", 0.0)
    with pytest.raises(RateLimited):
        made.address("2001:db8::ffff", 0.0)  # one /64 is one customer
    made.address("2001:db8:0:1::1", 0.0)
    for denied in ("203.0.113.9", "::ffff:203.0.113.9", "2001:db8:bad::1"):
        with pytest.raises(Refused, match="your network"):
            made.address(denied, 0.0)
    with pytest.raises(Refused, match="not come from an IP"):
        made.address("", 0.0)


def test_what_is_remembered_is_bounded():
    buckets = Buckets(rate=1.0, burst=2.0, max_keys=10)
    for number in range(1000):
        assert buckets.spend(str(number), 0.0) == 0
    assert len(buckets) == 10
    assert buckets.spend("999", 0.0) == 0 and buckets.spend("999", 0.0) == pytest.approx(1.0)


def test_settings_are_checked():
    check(Server())
    check(Client())
    bad = Server(protocols=["smtp"], max_concurrent=0)
    bad.freshness.retention_s = 5.0
    bad.policy.deny = ["5Grw"]
    bad.policy.deny_networks = ["here"]
    with pytest.raises(ConfigError) as caught:
        check(bad)
    assert str(caught.value).splitlines() == [
        "protocols[0]='smtp': must be btauth, epistula or axon_v10",
        "max_concurrent=0: must be greater than 0",
        "freshness.retention_s=5.0: must be at least max_age_s + max_skew_s (12)",
        "policy.deny[0]='5Grw': must be the ss58 address of a hotkey",
        "policy.deny_networks[0]='here': must be a network like 203.0.113.0/24",
    ]
    wrong = A[:-1] + ("z" if A[-1] != "z" else "y")
    with pytest.raises(ConfigError, match=rf"policy.allow\[0\]='{wrong}': the checksum of the ss58 address is wrong"):
        policy(allow=[wrong])
    for client in (
        Client(quorum=0.5),
        Client(protocol="x"),
        Client(body="pickle"),
        Client(min_deadline_s=float("nan")),
    ):
        with pytest.raises(ConfigError):
            check(client)
