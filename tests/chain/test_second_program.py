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
from raytensor.errors import BlockUnknown, ChainError, ChainRefused

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


@pytest.mark.parametrize("by", ["earlier/journal.sqlite", "home/command.db"])
def test_what_an_earlier_run_or_a_command_sent_is_not_another_programs(by, client, used, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYTENSOR_HOME", str(tmp_path / "home"))
    key, _ = used
    journal = Journal(tmp_path / "now" / "journal.sqlite", client.genesis)
    (found,) = look_back(client, journal, keys_of(key), 64, runs=tmp_path)
    earlier = Journal(tmp_path / by, client.genesis)
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
    assert len(look_back(client, journal, keys_of(key), 64)) == ("home" not in by)
    journal.close()


def batch(*calls, function="force_batch"):
    return Call("Utility", function, {"calls": list(calls)})


def by_proxy(real, call):
    return Call("Proxy", "proxy", {"real": real, "force_proxy_type": None, "call": call})


def pays(dest):
    return Call("Balances", "transfer_keep_alive", {"dest": dest, "value": 1000})


@pytest.mark.parametrize("function", ["batch", "batch_all", "force_batch"])
def test_weights_within_batches_are_seen(client, used, fresh, tmp_path, function):
    key, _ = used
    journal = Journal(tmp_path / "j.db", client.genesis)
    head = client.head().number
    take_over(journal, [key.ss58], head)
    send(client, key, batch(Call("System", "remark", {"remark": "0x00"}), weights_call(), function=function))
    (found,) = look_back(client, journal, keys_of(key), 64)
    assert found.calls == ("System.remark", "SubtensorModule.batch_commit_weights") and found.block > head
    journal.close()


def test_what_a_proxy_does_in_the_name_of_a_key_is_seen_and_money_too(client, used, fresh, tmp_path):
    key, _ = used
    proxy, stranger = fresh("proxy"), fresh("stranger")
    journal = Journal(tmp_path / "j.db", client.genesis)
    send(client, ALICE, batch(pays(proxy.ss58), pays(stranger.ss58)))
    take_over(journal, [key.ss58, proxy.ss58], client.head().number)
    # A stranger's payment to the key, and calls that compete with nothing.
    send(client, ALICE, pays(key.ss58))
    send(client, key, Call("System", "remark", {"remark": "0x00"}))
    assert look_back(client, journal, keys_of(key), 64) == []
    send(client, ALICE, batch(by_proxy(key.ss58, weights_call()), by_proxy(stranger.ss58, weights_call())))
    (found,) = look_back(client, journal, keys_of(key), 64)  # ... whoever signs, and whether it may
    assert (found.signer, found.calls) == (key.ss58, ("SubtensorModule.batch_commit_weights",))
    take_over(journal, [key.ss58], client.head().number)
    send(client, key, pays(stranger.ss58))
    with pytest.raises(ChainRefused, match="Balances.transfer_keep_alive"):
        refuse_beside_others(client, journal, keys_of(key), 64)
    journal.close()


class Upgraded(ChainClient):
    """A runtime that reads no call of before."""

    fails = False

    def runtime_at(self, block_hash):
        if self.fails:
            raise ChainError("the metadata of runtime 7 can't be decoded")
        return super().runtime_at(block_hash)

    @property
    def runtime(self):
        return Unable()


class Unable:
    def call_of(self, data):
        return None


def test_a_block_is_read_by_its_own_runtime_and_one_that_cannot_be_read_is_a_warning(node, used, tmp_path, caplog):
    key, _ = used
    with Upgraded(node, timeout_s=20) as client:
        journal = Journal(tmp_path / "j.db", client.genesis)
        assert len(look_back(client, journal, keys_of(key), 64)) == 1
        client.fails = True
        with caplog.at_level(logging.WARNING, foreign.__name__):
            assert look_back(client, journal, keys_of(key), 64) == []
        journal.close()
    assert "runtime 7 can't be decoded" in caplog.text and "its call can't be read" in caplog.text


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
