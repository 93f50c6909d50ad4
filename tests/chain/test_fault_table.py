"""The table of faults in docs/chain.md: every fault has a row, every row a test that is there; and two such tests."""

import re
from pathlib import Path

import pytest

from raytensor.chain.bootstrap import Neuron, SubnetSpec, make_subnet
from raytensor.chain.intents import SetWeights
from raytensor.chain.reads.preflight import PALLET, Refusal, read_views
from raytensor.chain.wallet import DevKey
from raytensor.chain.weights import Row
from raytensor.chain.writer.audit import AuditLog
from raytensor.chain.writer.commit_book import HASH, CommitBook
from raytensor.chain.writer.commits import PendingCommits
from raytensor.chain.writer.journal import Journal
from raytensor.chain.writer.orders import OrderQueue
from raytensor.chain.writer.outbox import Outbox
from raytensor.chain.writer.receipts import Receipts
from raytensor.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
FAULTS = "S1 S2 S3 S4 S5 S6 S7a S7b S7c S7d S8 S9 S10 S11 S16 S17".split()
TRIALS = "O1 O4 O5 N5 P8 P10 P18 P20 P21 P22 R5 R6 R8".split()


def rows():
    """(names of the faults, file of the test, its name) of the table."""
    text = (ROOT / "docs" / "chain.md").read_text().split("\n## Faults and their tests\n")[1].split("\n## ")[0]
    return re.findall(r"^\| ([\w., ]+) \| .* \| `([\w/]+\.py)::(\w+)` \|$", text, re.MULTILINE)


def test_every_fault_has_a_row_and_every_row_a_test():
    found = rows()
    named = {name for names, _, _ in found for name in names.split(", ")}
    assert set(FAULTS + TRIALS) <= named and len(found) >= 45
    for _, file, name in found:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file} has no {name}"


@pytest.mark.parametrize("second", [0, 10**6])
def test_no_commit_is_sent_where_the_chain_stores_them_in_another_layout(client, fresh, tmp_path, second):
    """The second number of a commit is an epoch today; on other runtimes it is a block, larger than any epoch."""
    key, runtime = fresh("hot"), client.runtime
    storage = runtime.storage(PALLET, "WeightCommits")
    entry = runtime.codec.encode(storage.value, [("0x" + "11" * 32, second, 0, 0)])
    client.rpc("dev_setStorage", [[["0x" + runtime.key(storage, [1, key.ss58]).hex(), "0x" + entry.hex()]]])
    head = client.wait_for_block(client.head().number + 2, timeout_s=60)
    view = read_views(client, {(1, 0)}, head)[1, 0]
    journal = Journal(tmp_path / "j.db", client.genesis)
    receipts = Receipts(journal, AuditLog(None))
    queue = OrderQueue(journal, receipts)
    outbox = Outbox(client, journal, {key.ss58: key.open()}, queue.retries)
    commits = PendingCommits(client, journal, outbox, queue, receipts, HASH)
    intent = SetWeights(signer=key.ss58, netuid=1, values=((key.ss58, 1.0),))
    found = commits.make(intent, Row(1, 0, (0,), (65535,), 0), view)
    if second > view.epoch_index + 1:
        assert isinstance(found, Refusal) and found.name == "CommitLayoutUnknown" and "upgrade" in found.action
        assert CommitBook(journal).pending() == []
    else:
        assert not isinstance(found, Refusal) and len(CommitBook(journal).pending()) == 1
    journal.close()


def test_a_hyperparameter_that_the_runtime_lacks_is_refused_before_anything_is_sent(client, fresh):
    owner = Neuron("o", "owner", fresh("hot"), fresh("cold"))
    spec = SubnetSpec([owner], hyperparameters={"sudo_set_of_tomorrow": 1})
    nonce = client.account_nonce(DevKey("//Alice").ss58)
    with pytest.raises(ConfigError, match="runtime .* has no AdminUtils.sudo_set_of_tomorrow"):
        make_subnet(client, spec)
    assert client.account_nonce(DevKey("//Alice").ss58) == nonce and client.balance(owner.coldkey.ss58) == 0
