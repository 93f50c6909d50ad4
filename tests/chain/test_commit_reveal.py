"""Weights behind a commitment, on a real node: committed, revealed in their epoch whatever happens in between."""

import json
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.calls import Call
from raytensor.chain.reads.metagraph import read_metagraph
from raytensor.chain.reads.preflight import SubnetView
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.wallet import DevKey
from raytensor.chain.weights import Row
from raytensor.chain.writer.commit_book import CommitBook, WeightCommit
from raytensor.chain.writer.commit_rules import OnChain, Step, commit_digest, next_step, reveal_block
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.renewal import PREFIX
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.commands.weights import weights_main
from raytensor.types import Fate, Weights

RAO = 10**9
ALICE = DevKey("//Alice")
VALIDATOR, MINERS = DevKey("//cr//validator//hot"), [DevKey(f"//cr//miner{n}//hot") for n in (0, 1)]
TEMPO = 10


@pytest.fixture(scope="module")
def node(blocks):
    return blocks.endpoint


@pytest.fixture(scope="module")
def netuid(node, blocks):
    """A subnet with commit-reveal and two mechanisms."""
    neurons = [Neuron("v", "validator", VALIDATOR, DevKey("//cr//validator//cold"), 500 * RAO)]
    neurons += [Neuron(f"m{n}", "miner", key, DevKey(f"//cr//miner{n}//cold")) for n, key in enumerate(MINERS)]
    settings = {
        "sudo_set_commit_reveal_weights_enabled": True,
        "sudo_set_max_allowed_uids": 64,
        "sudo_set_mechanism_count": 2,
    }
    with ChainClient(node, timeout_s=60) as client:
        made = make_subnet(client, SubnetSpec(neurons, tempo=TEMPO, hyperparameters=settings))
        blocks.up_to(read_metagraph(client, made.netuid).next_epoch_block + TEMPO + 1)
    return made.netuid


@pytest.fixture
def write(node, blocks, tmp_path):
    """Makes writers for the validator on one journal; closes what is open at the end."""
    made = []

    def new(commit_kind="hash"):
        made.append(
            ChainWriter(node, {VALIDATOR.ss58: VALIDATOR}, tmp_path / "j.db", WriterSettings(commit_kind=commit_kind))
        )
        blocks.follow(made[-1])
        return made[-1]

    yield new
    for writer in made:
        end(writer, blocks)


def end(writer, blocks):
    blocks.leave(writer)
    writer.close()


def weights(netuid, first, second, mecid=0):
    return Weights(netuid, VALIDATOR.ss58, {MINERS[0].ss58: first, MINERS[1].ss58: second}, mecid=mecid)


def row_on_chain(client, netuid, mecid=0):
    graph = read_metagraph(client, netuid, mecid=mecid)
    by_uid = dict(graph.weights.get(graph.uid(VALIDATOR.ss58), ()))
    return tuple(by_uid.get(graph.uid(key.ss58), 0) for key in MINERS)


def wait_for(writer, client, intent_id, fate, blocks=4 * TEMPO):
    """The receipt with that fate, once the writer has told it."""
    end, cursor, seen = client.head().number + blocks, 0, []
    while client.head().number < end:
        cursor, told = writer.receipts_since(cursor)
        seen += told
        found = [r for r in seen if r.intent_id == intent_id and r.fate is fate]
        if found:
            return found[0]
        client.wait_for_block(client.head().number + 1, 120)
    raise AssertionError(f"no {fate} of {intent_id} within {blocks} blocks: {seen}")


KILLED = """
import sys
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.chain.wallet import DevKey
from raytensor.types import Weights
node, uri, journal, netuid, first, second = sys.argv[1:]
key = DevKey(uri)
writer = ChainWriter(node, {key.ss58: key}, journal, WriterSettings(commit_kind="hash"))
(receipt,) = writer.set_weights([Weights(int(netuid), key.ss58, {first: 1.0, second: 2.0})])
print(receipt.fate.value, receipt.call, receipt.block, receipt.until, receipt.intent_id, flush=True)
sys.stdin.readline()
"""


def test_what_a_killed_writer_committed_is_revealed_by_its_successor(node, client, netuid, blocks, write, tmp_path):
    args = [node, VALIDATOR.uri, str(tmp_path / "j.db"), str(netuid), *(key.ss58 for key in MINERS)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with blocks.on_demand():  # the epoch is not over before the successor is there
        with subprocess.Popen([sys.executable, "-c", KILLED, *args], **pipes) as one:
            fate, call, block, until, intent_id = one.stdout.readline().decode().split()
            os.kill(one.pid, signal.SIGKILL)
        assert (fate, call) == ("committed", "SubtensorModule.commit_weights")
        assert 0 < int(until) - int(block) <= TEMPO + 1
        writer = write()
    revealed = wait_for(writer, client, intent_id, Fate.REVEALED)
    assert revealed.call == "SubtensorModule.reveal_weights" and revealed.block >= int(until)
    assert row_on_chain(client, netuid) == (32768, 65535)
    assert writer.counters() == {"submitted": 1, "included": 1, "failed": 0}  # the reveal, and nothing else


def test_mechanisms_are_committed_and_revealed_of_their_own(client, netuid, write):
    writer = write()
    receipts = writer.set_weights([weights(netuid, 3.0, 1.0, 0), weights(netuid, 1.0, 4.0, 1)])
    assert [r.fate for r in receipts] == [Fate.COMMITTED] * 2, receipts
    assert [r.call.split(".")[1] for r in receipts] == ["commit_weights", "commit_mechanism_weights"]
    assert len({r.extrinsic_hash for r in receipts}) == 1  # one free batch
    for receipt in receipts:
        wait_for(writer, client, receipt.intent_id, Fate.REVEALED)
    assert (row_on_chain(client, netuid, 0), row_on_chain(client, netuid, 1)) == ((65535, 21845), (16384, 65535))


def test_an_expired_commit_is_told_and_the_newest_weights_are_committed_anew(client, netuid, blocks, write):
    writer = write()
    with blocks.on_demand():  # no block after the commit, which would let this writer reveal before it ends
        (receipt,) = writer.set_weights([weights(netuid, 7.0, 1.0)])
        end(writer, blocks)
    blocks.up_to(receipt.until + TEMPO + 1)  # nobody reveals
    again = write()
    expired = wait_for(again, client, receipt.intent_id, Fate.FAILED)
    assert expired.error == "ExpiredWeightCommit" and expired.action.startswith("replan: ")
    revealed = wait_for(again, client, receipt.intent_id, Fate.REVEALED)
    assert revealed.block > expired_epoch_end(receipt) and row_on_chain(client, netuid) == (65535, 9362)


def expired_epoch_end(receipt):
    return receipt.until + TEMPO


def test_the_last_good_weights_are_committed_and_revealed_again_before_the_cutoff(client, netuid, write):
    usual = client.query("SubtensorModule", "ActivityCutoffFactorMilli", [netuid])
    set_cutoff(client, netuid, 4000)  # 40 blocks
    writer = write()
    (first,) = writer.set_weights([weights(netuid, 1.0, 3.0)])
    assert first.fate is Fate.COMMITTED
    told, cursor, end = [], 0, client.head().number + 120
    while not any(r.fate is Fate.REVEALED and r.intent_id.startswith(PREFIX) for r in told):
        assert client.head().number < end, told
        cursor, more = writer.receipts_since(cursor)
        told += more
        client.wait_for_block(client.head().number + 1, 120)
    again = [r for r in told if r.intent_id.startswith(PREFIX)]
    assert [r.fate for r in again if r.fate.done or r.fate is Fate.COMMITTED][:2] == [Fate.COMMITTED, Fate.REVEALED]
    assert row_on_chain(client, netuid) == (21845, 65535)
    set_cutoff(client, netuid, usual)


def set_cutoff(client, netuid, factor_milli):
    args = {"netuid": netuid, "factor_milli": factor_milli}
    call = Call("Sudo", "sudo", {"call": Call("AdminUtils", "sudo_set_activity_cutoff_factor", args)})
    client.send(call, DevKey("//Alice").open(), timeout_s=120)


def test_only_the_newest_commit_of_an_epoch_is_revealed(client, netuid, blocks, write):
    with blocks.on_demand():
        blocks.up_to(read_metagraph(client, netuid).next_epoch_block + 1)
        writer = write()
        (older,) = writer.set_weights([weights(netuid, 1.0, 9.0)])
        (newer,) = writer.set_weights([weights(netuid, 9.0, 1.0)])
    assert (older.fate, newer.fate) == (Fate.COMMITTED, Fate.COMMITTED)
    wait_for(writer, client, newer.intent_id, Fate.REVEALED)
    assert row_on_chain(client, netuid) == (65535, 7282)
    told = [r for r in writer.receipts_since(0)[1] if r.intent_id == older.intent_id][-1]
    assert (told.fate, told.error) == (Fate.NOT_SENT, "Superseded")


def test_a_subnet_that_leaves_commit_reveal_and_comes_back(client, netuid, blocks, write):
    writer = write()
    with blocks.on_demand():
        (receipt,) = writer.set_weights([weights(netuid, 1.0, 1.0)])
        assert receipt.fate is Fate.COMMITTED
        toggle(client, netuid, False)
    plain = wait_for(writer, client, receipt.intent_id, Fate.INCLUDED)
    assert plain.call == "SubtensorModule.set_weights" and row_on_chain(client, netuid) == (65535, 65535)
    (receipt,) = writer.set_weights([weights(netuid, 1.0, 0.0)])
    assert receipt.fate is Fate.INCLUDED
    toggle(client, netuid, True)
    (receipt,) = writer.set_weights([weights(netuid, 1.0, 3.0)])
    assert receipt.fate is Fate.COMMITTED
    wait_for(writer, client, receipt.intent_id, Fate.REVEALED)
    assert row_on_chain(client, netuid) == (21845, 65535)


def toggle(client, netuid, on):
    call = Call("AdminUtils", "sudo_set_commit_reveal_weights_enabled", {"netuid": netuid, "enabled": on})
    client.send(Call("Sudo", "sudo", {"call": call}), ALICE.open(), timeout_s=120)


@pytest.mark.parametrize("mecid", [0, 1])
def test_where_the_beacon_lives_commits_are_timelocked_and_the_chain_opens_them(client, netuid, blocks, write, mecid):
    writer = write(commit_kind=None)
    (older,) = writer.set_weights([weights(netuid, 1.0, 5.0, mecid)])
    call = "commit_timelocked_mechanism_weights" if mecid else "commit_timelocked_weights"
    assert (older.fate, older.call) == (Fate.COMMITTED, f"SubtensorModule.{call}"), older
    (newer,) = writer.set_weights([weights(netuid, 5.0, 1.0, mecid)])
    sent = writer.counters()["submitted"]
    end(writer, blocks)  # nobody is needed for the reveal
    again = write(commit_kind=None)
    wait_for(again, client, newer.intent_id, Fate.REVEALED)
    assert row_on_chain(client, netuid, mecid) == (65535, 13107) and (sent, again.counters()["submitted"]) == (2, 0)


def test_commitments_and_reveals_on_the_command_line(node, client, netuid, blocks, tmp_path, capsys):
    def ask(*argv):
        wallet = ["-w", "//cr//validator//cold", "-H", VALIDATOR.uri, "-n", node, "--json"]
        status = weights_main([*argv, *wallet, "--state", str(tmp_path / "home")])
        return status, json.loads(capsys.readouterr().out)

    rows = [f"{MINERS[0].ss58}=1", f"{MINERS[1].ss58}=7", "--netuid", str(netuid)]
    status, told = ask("set", *rows, "--commit-by", "hash", "--dry-run")
    assert status == 0 and told["plan"]["effect"]["commit"] == "hash" and told["plan"]["fee_rao"] == 0
    with blocks.on_demand():
        status, told = ask("set", *rows, "--commit-by", "hash", "--yes")
        assert status == 0 and told["receipt"]["fate"] == "committed", told
        until = told["receipt"]["until"]
        status, told = ask("commitments", "--netuid", str(netuid))
        (one,) = [c for c in told["commitments"] if c["kind"] == "hash" and c["reveals_block"] is not None]
        assert status == 0 and one["known"] and one["reveals_block"] == until
        assert one["state"] == "its writer reveals it"
        status, told = ask("reveal", "--dry-run")
        (pending,) = told["pending"]
        assert status == 0 and pending["reveals_block"] == until
        blocks.up_to(until - 1)
    status, told = ask("reveal", "--wait", "120")
    assert status == 0 and [r["fate"] for r in told["receipts"]] == ["revealed"], told
    assert row_on_chain(client, netuid) == (9362, 65535)
    status, told = ask("reveal")
    assert status == 1 and told["error"]["name"] == "NothingToReveal"
    status, told = ask("status", "--netuid", str(netuid))
    assert [one["commit_reveal"] for one in told["weights"]] == [True, True]


@pytest.mark.parametrize("kind", [None, "hash"])
def test_set_says_how_it_commits_and_who_reveals_when(client, node, netuid, blocks, tmp_path, capsys, kind):
    """Without --commit-by, on a chain whose beacon lives, the commit is timelocked."""
    wallet = ["-w", "//cr//validator//cold", "-H", VALIDATOR.uri, "-n", node, "--state", str(tmp_path / "home")]
    more = ["--yes", *(["--commit-by", kind] if kind else [])]
    with blocks.on_demand():
        assert weights_main(["set", f"{MINERS[0].ss58}=2", "--netuid", str(netuid), *wallet, *more]) == 0
        told = capsys.readouterr().out
        name = kind or "timelocked"
        assert re.search(rf"commit +{name}\n", told), told
        (found,) = re.findall(rf"committed {'by hash' if kind else name}: (.*) the weights at about block (\d+);", told)
        assert found[0] == ("`raytensor weights reveal` must reveal" if kind else "the chain reveals")
        assert weights_main(["commitments", "--netuid", str(netuid), *wallet, "--json"]) == 0
        listed = json.loads(capsys.readouterr().out)["commitments"]
        own = [c for c in listed if c["kind"] == name and c["known"] and c["reveals_block"] == int(found[1])]
        assert own, listed


# The pure part


def view(block=100, index=7, **changes):
    facts = {
        "netuid": 1,
        "mecid": 0,
        "block": block,
        "uid_of": {"v": 0},
        "permit": np.array([True]),
        "last_update": np.array([0], np.uint64),
        "commit_reveal": True,
        "tempo": 20,
        "next_epoch": 110,
        "last_epoch": 90,
        "epoch_index": index,
    }
    return SubnetView(**facts | changes)


def commit(kind="hash", epoch=None):
    return WeightCommit("0xd", kind, "i", "v", Row(1, 0, (0, 2), (5, 65535), 0), (1,) * 8, epoch=epoch)


@pytest.mark.parametrize(
    "epoch, at, step, again",
    [
        (7, view(), Step.WAIT, 110),  # the epoch of block 110 comes first
        (7, view(block=109), Step.WAIT, 110),  # it runs in the next block, before the extrinsics: the pool can't know
        (6, view(), Step.REVEAL, 0),
        (6, view(block=109), Step.EXPIRED, 0),  # the last block of its epoch is over
        (5, view(), Step.EXPIRED, 0),
        (7, view(reveal_period=3), Step.WAIT, 150),
        (None, view(), Step.LOST, 0),
        (7, view(commit_reveal=False), Step.VOID, 0),
    ],
)
def test_the_next_step_of_a_hash_commit(epoch, at, step, again):
    on_chain = OnChain({} if epoch is None else {"0xd": epoch}, {})
    assert next_step(commit(epoch=epoch), at, on_chain) == (step, again)


def test_the_next_step_of_a_timelocked_commit():
    row = {("v", 1, 0): ((0, 5), (2, 65535))}
    assert next_step(commit("timelocked", 7), view(), OnChain({"0xd": 7}, {})) == (Step.WAIT, 110)
    assert next_step(commit("timelocked", 6), view(), OnChain({"0xd": 6}, {})) == (Step.WAIT, 101)  # its pulse is late
    assert next_step(commit("timelocked", 6), view(), OnChain({}, row))[0] is Step.OPENED
    assert next_step(commit("timelocked", 6), view(), OnChain({}, {}))[0] is Step.DROPPED
    assert next_step(commit("timelocked", 5), view(), OnChain({}, {}))[0] is Step.EXPIRED
    assert next_step(commit("timelocked"), view(), OnChain({}, row))[0] is Step.LOST


def test_when_a_commit_can_be_revealed():
    assert reveal_block(view(), 7) == 111 and reveal_block(view(reveal_period=2), 7) == 131
    assert reveal_block(view(), 6) == 101


def test_the_digest_is_the_chains(node):
    # blake2-256 of SCALE(account, u16, Vec<u16>, Vec<u16>, Vec<u16>, u64), by hand for one row.
    import hashlib

    row = Row(3, 1, (0, 2), (5, 65535), 9)
    data = bytes(VALIDATOR.open().public_key) + (4096 + 3).to_bytes(2, "little")
    data += b"\x08\0\0\x02\0" + b"\x08\x05\0\xff\xff" + b"\x08\x01\0\x02\0" + (9).to_bytes(8, "little")
    assert commit_digest(VALIDATOR.ss58, row, (1, 2)) == "0x" + hashlib.blake2b(data, digest_size=32).hexdigest()


def test_the_book_outlives_the_process(tmp_path):
    journal = Journal(tmp_path / "j.db")
    book = CommitBook(journal)
    book.add([commit()])
    journal.close()
    book = CommitBook(Journal(tmp_path / "j.db"))
    assert book.pending() == [commit()] and book.pending("other") == []
    assert book.seen(commit(), 4).epoch == 4 and book.pending("v")[0].epoch == 4
    book.end("0xd", "expired")
    assert book.pending() == [] and book.unrevealed_since("v")[1, 0][1] == 1
