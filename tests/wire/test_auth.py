"""btauth/1: what is signed, what is refused, and in which order."""

from __future__ import annotations

import pickle

import pytest
from wirekit import key

from raytensor.chain import ss58
from raytensor.config import Freshness
from raytensor.errors import ConfigError
from raytensor.wire import auth
from raytensor.wire.errors import BadSignature, MalformedAuth, ReplayedRequest, StaleRequest, WrongReceiver
from raytensor.wire.nonce_store import NonceStore, Verdict

NOW_NS = 1_800_000_000_000_000_000
BODY = b'{"prompt": "hello"}'


def store() -> NonceStore:
    """A store that was made a minute ago."""
    now_ns = [NOW_NS - 60 * 10**9]
    made = NonceStore(Freshness(), clock=lambda: now_ns[0])
    now_ns[0] = NOW_NS
    return made


def signed(signer, receiver, **changes):
    given = {"method": "POST", "path": "/ask?x=1", "body": BODY, "receiver": receiver, "nonce_ns": NOW_NS} | changes
    return auth.sign(signer, **given)


def verified(headers, receiver, **changes):
    """The whole check, as the gate makes it: headers, signature, then the nonce store."""
    given = {"body": BODY, "method": "POST", "path": "/ask?x=1", "store": store(), "require_receiver": True} | changes
    required, nonces = given.pop("require_receiver"), given.pop("store")
    claim = auth.read_claim(headers, receiver=receiver, now_ns=NOW_NS, fresh=Freshness(), require_receiver=required)
    caller = auth.prove(claim, **given)
    if nonces.verdicts([(caller.hotkey, caller.nonce_ns)]) != [Verdict.NEW]:
        raise ReplayedRequest("seen")
    return caller


def test_the_signed_bytes_are_eight_lines():
    # sha256 of the empty string, from FIPS 180-4's examples
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    made = auth.payload(scheme="sr25519", method="post", path="/a?b=c", body=b"", nonce_ns=7, sender="S", receiver=None)
    assert made == f"btauth/1\nsr25519\nPOST\n/a?b=c\n{empty}\n7\nS\n-".encode()


def test_addresses_are_those_of_substrate():
    # The development accounts of every Substrate chain.
    for public, address in [
        (
            "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        ),
        (
            "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48",
            "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
        ),
    ]:
        assert ss58.encode(bytes.fromhex(public)) == address
        assert ss58.decode(address).hex() == public
    good = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
    for bad in ("", good[:-1], good[:-1] + "Z", good[:-1] + "0", good + "1", "z" * 48, "1" * 48):
        with pytest.raises(ValueError):
            ss58.decode(bad)


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
def test_signed_and_verified(scheme, miner):
    signer = key("signer", scheme)
    headers = signed(signer, miner.ss58)
    assert ("X-Bittensor-Crypto" in headers) == (scheme == "ed25519")
    caller = verified({name.upper(): value for name, value in headers.items()}, miner.ss58)
    assert caller == auth.Caller(signer.ss58, NOW_NS, scheme)


@pytest.mark.parametrize("scheme", ["sr25519", "ed25519"])
@pytest.mark.parametrize(
    "changes", [{"body": BODY + b" "}, {"method": "GET"}, {"path": "/ask"}, {"path": "/ask?x=2"}], ids=str
)
def test_every_signed_part_is_covered(scheme, changes, miner):
    with pytest.raises(BadSignature):
        verified(signed(key("signer", scheme), miner.ss58), miner.ss58, **changes)


def test_another_key_nonce_or_scheme_does_not_fit(validator, miner):
    headers = signed(validator, miner.ss58)
    for name, value in [
        ("X-Bittensor-Hotkey", miner.ss58),
        ("X-Bittensor-Nonce", str(NOW_NS - 1)),
        ("X-Bittensor-Crypto", "ed25519"),
        ("X-Bittensor-Signature", "0x" + "00" * 64),
        ("X-Bittensor-Signature", "0x" + "ff" * 64),
        ("X-Bittensor-Hotkey", ss58.encode(b"\xff" * 32)),  # no point of the curve
    ]:
        with pytest.raises(BadSignature):
            verified(headers | {name: value}, miner.ss58)


@pytest.mark.parametrize(
    "name, value",
    [
        ("Version", None),
        ("Version", "2"),
        ("Version", ""),
        ("Hotkey", None),
        ("Hotkey", "5Grw"),
        ("Hotkey", "é" * 48),
        ("Nonce", None),
        ("Nonce", "x"),
        ("Nonce", "-1"),
        ("Nonce", "1_0"),
        ("Nonce", "١٢"),
        ("Nonce", "9" * 21),
        ("Nonce", " 1"),
        ("Crypto", "rsa"),
        ("Crypto", ""),
        ("Signature", None),
        ("Signature", "0x12"),
        ("Signature", "zz" * 64),
        ("Signature", "0x" + "00" * 65),
    ],
)
def test_malformed_headers(name, value, validator, miner):
    headers = signed(validator, miner.ss58)
    headers.pop(f"X-Bittensor-{name}", None)
    if value is not None:
        headers[f"X-Bittensor-{name}"] = value
    with pytest.raises(MalformedAuth, match=f"X-Bittensor-{name}|hotkey"):
        verified(headers, miner.ss58)


def test_the_receiver_is_bound(validator, miner):
    with pytest.raises(WrongReceiver, match="another hotkey"):
        verified(signed(validator, validator.ss58), miner.ss58)
    unbound = signed(validator, None)
    with pytest.raises(WrongReceiver, match="no receiver"):
        verified(unbound, miner.ss58)
    assert verified(unbound, miner.ss58, require_receiver=False).hotkey == validator.ss58
    with pytest.raises(BadSignature):  # the receiver that was not signed can't be added
        verified(unbound | {"X-Bittensor-Receiver": miner.ss58}, miner.ss58)


@pytest.mark.parametrize(
    "age_s, ok", [(0, True), (9.9, True), (10.0, True), (10.1, False), (-1.9, True), (-2.0, True), (-2.1, False)]
)
def test_freshness(age_s, ok, validator, miner):
    headers = signed(validator, miner.ss58, nonce_ns=NOW_NS - int(age_s * 1e9))
    if ok:
        verified(headers, miner.ss58)
    else:
        with pytest.raises(StaleRequest):
            verified(headers, miner.ss58)


def test_a_nonce_counts_once_and_only_after_its_signature(validator, miner):
    held = store()
    headers = signed(validator, miner.ss58)
    with pytest.raises(BadSignature):  # a forger can't use the nonce up
        verified(headers, miner.ss58, body=b"forged", store=held)
    verified(headers, miner.ss58, store=held)
    with pytest.raises(ReplayedRequest):
        verified(headers, miner.ss58, store=held)
    verified(signed(validator, miner.ss58, nonce_ns=NOW_NS - 5), miner.ss58, store=held)  # older but new: order is free


def test_the_order_of_the_checks(validator, miner):
    """Each request breaks everything from one check on; the first broken one is the answer."""
    broken = signed(validator, validator.ss58, nonce_ns=NOW_NS - 10**12) | {"X-Bittensor-Signature": "0x" + "00" * 64}
    with pytest.raises(MalformedAuth):
        verified(broken | {"X-Bittensor-Version": "0"}, miner.ss58)
    with pytest.raises(WrongReceiver):
        verified(broken, miner.ss58)
    with pytest.raises(StaleRequest):
        verified(broken | {"X-Bittensor-Receiver": miner.ss58}, miner.ss58)
    with pytest.raises(BadSignature):
        verified(broken | {"X-Bittensor-Receiver": miner.ss58, "X-Bittensor-Nonce": str(NOW_NS)}, miner.ss58)


def test_a_store_that_forgets_too_soon_is_refused():
    with pytest.raises(ConfigError, match=r"retention_s=11.0: must be at least max_age_s \+ max_skew_s \(12\)"):
        NonceStore(Freshness(retention_s=11.0))


def test_nonces_rise_whatever_the_clock_does():
    times = iter([5_000_000, 5_000_000, 4_000_000, 9_000_000])
    source = auth.NonceSource(lambda: next(times))
    made = [source() for _ in range(4)]
    assert made == sorted(set(made))
    assert abs(made[3] - 9_000_000) < 1024


def test_a_clock_that_was_ahead_and_is_set_right_makes_nonces_of_now():
    """An hour ahead, then right: nonces of the hour to come would be refused for that hour."""
    hour, now = 3600 * 10**9, 10**18
    times = iter((now + hour, now + hour + 10**9, now + 2 * 10**9, now + 1_900_000_000, now + 2_100_000_000))
    source = auth.NonceSource(lambda: next(times))
    ahead, _, *right = [source() for _ in range(5)]
    assert ahead - now >= hour - 1024 and all(abs(nonce - now) < 3 * 10**9 for nonce in right)
    assert right == sorted(set(right)), "a step of less is a clock that is disciplined: nonces keep rising"


def test_a_private_key_is_neither_printed_nor_pickled(validator):
    assert validator._secret.hex() not in repr(validator) and validator.ss58 in repr(validator)
    with pytest.raises(TypeError, match="must not leave"):
        pickle.dumps(validator)
