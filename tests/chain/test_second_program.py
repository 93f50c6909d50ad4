"""A start beside a second program on the same key: what is looked at, what is refused, what costs nothing."""

import logging

import pytest

from raytensor.chain.calls import Call
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import DevKey
from raytensor.chain.writer import foreign
from raytensor.chain.writer.foreign import look_back, refuse_beside_others, take_over
from raytensor.chain.writer.journal import Journal
from raytensor.config.validate import ValidateConfig
from raytensor.errors import BlockUnknown, ChainRefused

ALICE = DevKey("//Alice")
RAO = 10**9


@pytest.fixture
def used(client, fresh):
    """A key with weights of another program in a block: (key, block)."""
    key = fresh("hot")
    send(client, ALICE, Call("Balances", "transfer_keep_alive", {"dest": key.ss58, "value": RAO}))
    return key, send(client, key, weights_call())


def weights_call():
    """A batch whose one item fails, since no such subnet exists; its extrinsic is in a block all the same."""
    return Call("SubtensorModule", "batch_commit_weights", {"netuids": [4000], "commit_hashes": ["0x" + "11" * 32]})


def send(client, key, call):
    era = Era.mortal(client.finalized().number, 64)
    nonce = client.account_next_index(key.ss58)
    signed = client.sign(call, key.open(), nonce=nonce, era=era)
    assert client.submit(signed.data) is None
    return client.find(signed.hash, era, timeout_s=60)[0]


def keys_of(key):
    return {key.open().public_key: key.ss58}


def test_a_commit_of_another_program_refuses_the_start_and_names_the_whole_command(client, used, tmp_path):
    key, block = used
    journal = Journal(tmp_path / "j.db", client.genesis)
    with pytest.raises(ChainRefused, match=f"block {block} has .*commit_weights") as refused:
        refuse_beside_others(client, journal, keys_of(key), 64)
    assert f"weights take-over --hotkey {key.ss58} --journal {tmp_path / 'j.db'}" in refused.value.action
    refuse_beside_others(client, journal, keys_of(key), 0)
    take_over(journal, [key.ss58], client.head().number)
    refuse_beside_others(client, journal, keys_of(key), 64)
    journal.close()


def test_what_an_earlier_run_sent_is_not_another_programs(client, used, tmp_path):
    key, _ = used
    journal = Journal(tmp_path / "now" / "journal.sqlite", client.genesis)
    (found,) = look_back(client, journal, keys_of(key), 64, runs=tmp_path)
    earlier = Journal(tmp_path / "earlier" / "journal.sqlite", client.genesis)
    with earlier.transaction() as db:
        columns = [row[1] for row in earlier.rows("PRAGMA table_info(extrinsics)", ())]
        known = {"hash": found.hash, "signer": key.ss58, "nonce": 0, "state": "included"}
        db.execute(
            f"INSERT INTO extrinsics ({','.join(columns)}) VALUES ({','.join('?' * len(columns))})",
            [known.get(name, 0) for name in columns],
        )
    earlier.close()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "journal.sqlite").write_bytes(b"no database" * 100)
    assert look_back(client, journal, keys_of(key), 64, runs=tmp_path) == []
    assert len(look_back(client, journal, keys_of(key), 64)) == 1
    journal.close()


class Pruned(ChainClient):
    """A node that has discarded all but its newest block."""

    kept = 1

    def extrinsics(self, block_hash):
        self.kept -= 1
        if self.kept < 0:
            raise BlockUnknown("State already discarded")
        return super().extrinsics(block_hash)


def test_discarded_blocks_are_told_and_not_fatal(node, used, tmp_path, caplog):
    key, block = used
    with Pruned(node, timeout_s=20) as client:
        client.wait_for_block(block + 1, timeout_s=30)
        journal = Journal(tmp_path / "j.db", client.genesis)
        with caplog.at_level(logging.WARNING, foreign.__name__):
            assert look_back(client, journal, keys_of(key), 64) == []
        journal.close()
    assert "were looked at" in caplog.text and "discarded" in caplog.text


def test_the_look_back_is_bounded_and_says_how_far_it_came(client, used, tmp_path, caplog, monkeypatch):
    key, _ = used
    journal = Journal(tmp_path / "j.db", client.genesis)
    with caplog.at_level(logging.WARNING, foreign.__name__):
        look_back(client, journal, keys_of(key), 10_000, limit_s=0.0)
        assert "seconds are over" in caplog.text
        monkeypatch.setattr(foreign, "PROGRESS_S", 0.0)
        look_back(client, journal, keys_of(key), 64)
    assert "looking for weights of other programs" in caplog.text
    journal.close()


def test_a_validator_looks_back_by_default():
    chain = ValidateConfig().chain
    assert chain.look_back_blocks == 1080 and chain.renewal == "renew"
