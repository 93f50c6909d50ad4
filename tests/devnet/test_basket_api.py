"""BetaBasketRuntimeApi: what a claim would pay is what a claim pays."""

from __future__ import annotations

import pytest
from subnetkit import BOB, CHARLIE, RAO, Kit, account

HOT = account(10)


@pytest.fixture
def kit():
    kit = Kit()
    kit.netuid = kit.subnet()
    kit.neuron(kit.netuid, BOB, HOT, stake_tao=100)
    kit.ok(BOB, "add_stake", HOT, 0, 30 * RAO)
    return kit


def ask(kit: Kit, method: str, coldkey: bytes):
    codecs = kit.runtime.codecs
    output = kit.runtime.apis["BetaBasketRuntimeApi"].methods[method][1]
    return codecs(output).decode(kit.runtime.api_call(f"BetaBasketRuntimeApi_{method}", coldkey))


def test_nobody_owes_anything_at_first(kit):
    for coldkey in (BOB, CHARLIE):
        assert ask(kit, "get_root_basket_owed", coldkey) == 0
        assert ask(kit, "get_root_basket_positions", coldkey) == ()


def test_a_claim_pays_what_was_announced(kit):
    kit.module.add_root_claim(HOT, kit.netuid, 2 * RAO)
    owed = ask(kit, "get_root_basket_owed", BOB)
    assert 0 < owed < 2 * kit.module.alpha_price_rao(kit.netuid)
    assert ask(kit, "get_root_basket_positions", BOB) == ((HOT, 0, owed),)
    assert ask(kit, "get_root_basket_owed", CHARLIE) == 0
    before = kit.module.stake_of(HOT, BOB, 0)
    kit.ok(BOB, "claim_root", (kit.netuid,))
    assert kit.module.stake_of(HOT, BOB, 0) - before == pytest.approx(owed, abs=1)
    assert ask(kit, "get_root_basket_owed", BOB) == 0
