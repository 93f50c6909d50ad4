"""A real node process, driven by plain substrate-interface, unchanged, and by raw JSON-RPC."""

from __future__ import annotations

import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from nodes import wait_until
from substrateinterface import Keypair, KeypairType, SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException

TAO = 10**9
ALICE, BOB, CHARLIE, DAVE = (Keypair.create_from_uri(f"//{name}") for name in ("Alice", "Bob", "Charlie", "Dave"))


@pytest.fixture(scope="module")
def chain(devnet):
    client = SubstrateInterface(url=devnet.endpoint)
    client.websocket.settimeout(120)
    yield client
    client.close()


def connect(node) -> SubstrateInterface:
    client = SubstrateInterface(url=node.endpoint)
    client.websocket.settimeout(120)
    return client


def free(client, account: Keypair) -> int:
    return client.query("System", "Account", [account.ss58_address]).value["data"]["free"]


def transfer(client, dest: Keypair, amount: int, function: str = "transfer_keep_alive"):
    return client.compose_call("Balances", function, {"dest": dest.ss58_address, "value": amount})


def send(client, call, signer=ALICE, finalized=False, **options):
    extrinsic = client.create_signed_extrinsic(call, signer, **options)
    return client.submit_extrinsic(extrinsic, wait_for_inclusion=not finalized, wait_for_finalization=finalized)


def names(receipt) -> list[str]:
    return [f"{e.value['module_id']}.{e.value['event_id']}" for e in receipt.triggered_events]


# --- reading ---


def test_connects_and_says_who_it_is(chain, devnet):
    assert (chain.chain, chain.token_symbol, chain.token_decimals, chain.ss58_format) == ("Bittensor", "TAO", 9, 42)
    assert chain.get_block_hash(0) == devnet.ready["genesis"]
    assert chain.get_constant("Balances", "ExistentialDeposit").value == 500
    assert chain.get_constant("System", "SS58Prefix").value == 42
    assert chain.get_constant("Aura", "SlotDuration").value == 250
    assert chain.get_constant("System", "Version").value["spec_version"] == devnet.ready["spec_version"]


def test_queries_maps_and_many_keys_at_once(chain):
    accounts = {
        key.value: info.value["data"]["free"] for key, info in chain.query_map("System", "Account", page_size=2)
    }
    assert accounts[BOB.ss58_address] > 0 and len(accounts) >= 9
    keys = [chain.create_storage_key("System", "Account", [k.ss58_address]) for k in (CHARLIE, DAVE)]
    found = chain.query_multi(keys)
    assert [value.value["data"]["free"] for _, value in found] == [free(chain, CHARLIE), free(chain, DAVE)]
    assert chain.query("SubtensorModule", "NetworksAdded", [1]).value is True
    assert chain.query("SubtensorModule", "Uids", [1, ALICE.ss58_address]).value is None


def test_state_of_an_older_block_stays_readable(chain):
    receipt = send(chain, transfer(chain, DAVE, TAO))
    parent = chain.get_block_header(receipt.block_hash)["header"]["parentHash"]
    before, after = (
        chain.query("System", "Account", [DAVE.ss58_address], block_hash=h).value["data"]["free"]
        for h in (parent, receipt.block_hash)
    )
    assert after == before + TAO
    # a runtime call answers from that block's state, too
    nonce = chain.runtime_call("AccountNonceApi", "account_nonce", [ALICE.ss58_address], block_hash=parent).value
    assert (
        nonce
        == chain.runtime_call("AccountNonceApi", "account_nonce", [ALICE.ss58_address], receipt.block_hash).value - 1
    )


def test_blocks_decode_with_their_timestamp_and_author_digest(chain):
    receipt = send(chain, transfer(chain, BOB, TAO))
    block = chain.get_block(receipt.block_hash)
    assert [x.value["call"]["call_function"] for x in block["extrinsics"]][0] == "set"
    assert any(x.value.get("extrinsic_hash") == receipt.extrinsic_hash for x in block["extrinsics"])
    moment = chain.query("Timestamp", "Now", block_hash=receipt.block_hash).value
    assert block["extrinsics"][0].value["call"]["call_args"][0]["value"] == moment


def test_new_heads_arrive_in_order(chain, raw, devnet):
    client = raw(devnet)
    subscription = client.call("chain_subscribeNewHeads")
    numbers = [int(client.note(subscription)["number"], 16) for _ in range(4)]
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert client.call("chain_unsubscribeNewHeads", [subscription]) is True
    assert client.call("chain_unsubscribeNewHeads", [subscription]) is False


# --- sending ---


def test_transfer_pays_fee_to_the_author_and_says_so(chain):
    author = Keypair.create_from_uri("//One")
    before = free(chain, ALICE), free(chain, BOB), free(chain, author)
    receipt = send(chain, transfer(chain, BOB, 3 * TAO))
    fee = receipt.total_fee_amount
    assert receipt.is_success and 83_102 <= fee < 83_152
    assert (free(chain, ALICE), free(chain, BOB), free(chain, author)) == (
        before[0] - 3 * TAO - fee,
        before[1] + 3 * TAO,
        before[2] + fee,
    )
    assert names(receipt) == [
        "Balances.Withdraw",
        "Balances.Transfer",
        "Balances.Deposit",
        "TransactionPayment.TransactionFeePaid",
        "System.ExtrinsicSuccess",
    ]


def test_payment_info_matches_what_is_taken(devnet):
    client = SubstrateInterface(url=devnet.endpoint, type_registry={"types": {"Balance": "u64"}})
    try:
        call = transfer(client, BOB, TAO)
        info = client.get_payment_info(call, ALICE)
        receipt = send(client, call)
        assert abs(info["partialFee"] - receipt.total_fee_amount) <= 8  # the nonce's compact length may differ
        assert receipt.weight["ref_time"] == info["weight"]["ref_time"]
    finally:
        client.close()


@pytest.mark.parametrize("period", [4, 64])
def test_mortal_extrinsics(instant, period):
    chain = connect(instant)  # no block comes between the birth of the era and the extrinsic
    receipt = send(chain, transfer(chain, BOB, TAO), era={"period": period}, finalized=True)
    assert receipt.is_success
    chain.close()


def test_tips_and_long_calls(chain):
    remark = chain.compose_call("System", "remark_with_event", {"remark": "0x" + "ab" * 2000})
    receipt = send(chain, remark, tip=77)
    assert receipt.is_success and "System.Remarked" in names(receipt)
    paid = next(e for e in receipt.triggered_events if e.value["event_id"] == "TransactionFeePaid")
    assert paid.value["attributes"]["tip"] == 77


def test_ed25519_accounts_sign_too(chain):
    key = Keypair.create_from_seed("0x" + "07" * 32, crypto_type=KeypairType.ED25519)
    send(chain, transfer(chain, key, TAO))
    assert send(chain, transfer(chain, BOB, TAO // 2), signer=key).is_success


def test_module_errors_decode_by_name(chain):
    call = chain.compose_call("Sudo", "set_key", {"new": BOB.ss58_address})
    wrapped = chain.compose_call("Utility", "batch_all", {"calls": [call]})
    receipt = send(chain, wrapped, signer=BOB)
    assert not receipt.is_success and receipt.error_message["name"] == "RequireSudo"


def test_token_errors_are_in_the_event(chain):
    receipt = send(chain, transfer(chain, BOB, 10**12), signer=Keypair.create_from_uri("//Two"))
    assert receipt.is_success
    receipt = send(chain, transfer(chain, BOB, 10**14), signer=Keypair.create_from_uri("//Two"))
    failed = next(e for e in receipt.triggered_events if e.value["event_id"] == "ExtrinsicFailed")
    assert failed.value["attributes"]["dispatch_error"] == {"Token": "FundsUnavailable"}


def batch(client, function: str):
    good = transfer(client, CHARLIE, TAO)
    bad = transfer(client, CHARLIE, 10**17, "transfer_allow_death")
    return client.compose_call("Utility", function, {"calls": [good, bad, good]})


@pytest.mark.parametrize(
    "function, success, moved, expected",
    [
        ("batch", True, 1, ["Utility.ItemCompleted", "Utility.BatchInterrupted"]),
        ("batch_all", False, 0, []),
        (
            "force_batch",
            True,
            2,
            [
                "Utility.ItemCompleted",
                "Utility.ItemFailed",
                "Utility.ItemCompleted",
                "Utility.BatchCompletedWithErrors",
            ],
        ),
    ],
)
def test_batches(chain, function, success, moved, expected):
    before = free(chain, CHARLIE)
    receipt = send(chain, batch(chain, function))
    assert receipt.is_success is success
    assert free(chain, CHARLIE) - before == moved * TAO
    assert [name for name in names(receipt) if name.startswith("Utility")] == expected
    assert receipt.total_fee_amount > 0


def test_batches_do_not_nest(chain):
    inner = chain.compose_call("Utility", "batch", {"calls": [transfer(chain, BOB, TAO)]})
    receipt = send(chain, chain.compose_call("Utility", "batch_all", {"calls": [inner]}))
    assert not receipt.is_success and receipt.error_message["name"] == "CallFiltered"


def test_sudo_outcome_is_in_sudid_and_costs_nothing(chain):
    call = chain.compose_call("Balances", "force_set_balance", {"who": DAVE.ss58_address, "new_free": 5 * TAO})
    receipt = send(chain, chain.compose_call("Sudo", "sudo", {"call": call}))
    assert receipt.is_success and receipt.total_fee_amount == 0 and free(chain, DAVE) == 5 * TAO
    failing = chain.compose_call("Balances", "transfer_keep_alive", {"dest": BOB.ss58_address, "value": 1})
    receipt = send(chain, chain.compose_call("Sudo", "sudo", {"call": failing}))
    sudid = next(e for e in receipt.triggered_events if e.value["event_id"] == "Sudid")
    assert receipt.is_success and sudid.value["attributes"]["sudo_result"] == {"Err": "BadOrigin"}


def test_proxies_act_within_their_type(chain):
    add = chain.compose_call("Proxy", "add_proxy", {"delegate": BOB.ss58_address, "proxy_type": "Transfer", "delay": 0})
    assert send(chain, add, signer=CHARLIE).is_success

    def through(call):
        params = {"real": CHARLIE.ss58_address, "force_proxy_type": None, "call": call}
        receipt = send(chain, chain.compose_call("Proxy", "proxy", params), signer=BOB)
        executed = next(e for e in receipt.triggered_events if e.value["event_id"] == "ProxyExecuted")
        return executed.value["attributes"]["result"]

    before = free(chain, CHARLIE)
    assert through(transfer(chain, DAVE, TAO)) == {"Ok": ()}
    assert free(chain, CHARLIE) == before - TAO
    remark = chain.compose_call("System", "remark_with_event", {"remark": "0x00"})
    assert through(remark)["Err"]["Module"]["index"] == 0  # System.CallFiltered
    stranger = {"real": ALICE.ss58_address, "force_proxy_type": None, "call": remark}
    receipt = send(chain, chain.compose_call("Proxy", "proxy", stranger), signer=BOB)
    assert receipt.error_message["name"] == "NotProxy"


# --- refusals of the pool ---


def refused(client, extrinsic) -> dict:
    with pytest.raises(SubstrateRequestException) as caught:
        client.submit_extrinsic(extrinsic, wait_for_inclusion=True)
    return caught.value.args[0]


def test_bad_signature(chain):
    extrinsic = chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE, signature=b"\x01" * 64)
    assert refused(chain, extrinsic) == {
        "code": 1010,
        "message": "Invalid Transaction",
        "data": "Transaction has a bad signature",
    }


def test_stale_nonce(chain):
    send(chain, transfer(chain, BOB, TAO))
    extrinsic = chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE, nonce=0)
    assert refused(chain, extrinsic)["data"] == "Transaction is outdated"


def test_no_money_for_the_fee(chain):
    poor = Keypair.create_from_uri("//NobodyKnowsMe")
    extrinsic = chain.create_signed_extrinsic(transfer(chain, BOB, TAO), poor)
    assert refused(chain, extrinsic)["data"].startswith("Inability to pay some fees")


def test_only_sudo_may_call_sudo(chain):
    call = chain.compose_call("Sudo", "sudo", {"call": transfer(chain, BOB, TAO)})
    assert refused(chain, chain.create_signed_extrinsic(call, BOB))["data"] == "Invalid signing address"


def test_the_same_extrinsic_twice_and_one_nonce_twice(manual):
    chain = connect(manual)
    first = chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE, nonce=0)
    chain.submit_extrinsic(first)
    assert refused(chain, first)["code"] == 1013
    second = chain.create_signed_extrinsic(transfer(chain, BOB, 2 * TAO), ALICE, nonce=0, tip=10**6)
    assert refused(chain, second)["message"] == "Priority is too low: (1 vs 1)"
    chain.close()


# --- queues, statuses, modes ---


def test_future_nonces_wait_and_run_in_order(manual, raw):
    chain, client = connect(manual), raw(manual)
    raw_extrinsics = [
        str(chain.create_signed_extrinsic(transfer(chain, BOB, TAO + i), ALICE, nonce=i).data) for i in range(4)
    ]
    watched = {i: client.call("author_submitAndWatchExtrinsic", [raw_extrinsics[i]]) for i in (2, 3)}
    assert [client.note(watched[i]) for i in (2, 3)] == ["future", "future"]
    assert client.call("system_accountNextIndex", [ALICE.ss58_address]) == 0
    assert client.call("author_pendingExtrinsics") == []
    client.call("dev_newBlock")
    assert chain.query("System", "Account", [ALICE.ss58_address]).value["nonce"] == 0
    client.call("author_submitExtrinsic", [raw_extrinsics[1]])
    client.call("author_submitExtrinsic", [raw_extrinsics[0]])
    assert [client.note(watched[i]) for i in (2, 3)] == ["ready", "ready"]
    assert client.call("account_nextIndex", [ALICE.ss58_address]) == 4
    assert client.call("author_pendingExtrinsics") == raw_extrinsics
    block = client.call("dev_newBlock", [{"count": 1}])
    assert client.call("chain_getBlock", [block])["block"]["extrinsics"][1:] == raw_extrinsics
    for subscription in watched.values():
        assert client.note(subscription) == {"inBlock": block}
        assert client.note(subscription) == {"finalized": block}
    chain.close()


def test_a_mortal_extrinsic_that_missed_its_era_ends_as_invalid(manual, raw):
    chain, client = connect(manual), raw(manual)
    client.call("dev_newBlock", [{"count": 8}])
    extrinsic = chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE, nonce=1, era={"period": 4})
    watched = client.call("author_submitAndWatchExtrinsic", [str(extrinsic.data)])
    assert client.note(watched) == "future"
    client.call("dev_newBlock", [{"count": 4}])
    assert client.note(watched) == "invalid"
    reply = client.request("author_submitExtrinsic", [str(extrinsic.data)])
    assert reply["error"]["data"] == "Transaction has a bad signature"  # its era now means another block
    chain.close()


def test_finality_lags_as_asked(raw):
    from nodes import Node

    node = Node("--block-time", "manual", "--finality-lag", "2")
    chain, client = connect(node), raw(node)
    finalized = client.call("chain_subscribeFinalizedHeads")
    assert int(client.note(finalized)["number"], 16) == 0
    extrinsic = chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE)
    watched = client.call("author_submitAndWatchExtrinsic", [str(extrinsic.data)])
    block = client.call("engine_createBlock", [True, False])["hash"]
    assert [client.note(watched), client.note(watched)] == ["ready", {"inBlock": block}]
    assert client.call("chain_getFinalizedHead") == node.ready["genesis"]
    client.call("dev_newBlock", [{"count": 2}])
    assert client.note(watched) == {"finalized": block}
    assert client.call("chain_getFinalizedHead") == block
    assert int(client.note(finalized)["number"], 16) == 1
    head = client.call("chain_getHead")
    assert client.call("engine_finalizeBlock", [head]) is True
    assert client.call("chain_getFinalizedHead") == head
    chain.close()
    node.stop()


def test_instant_blocks_seal_what_is_sent(instant):
    chain = connect(instant)
    for i in range(3):
        assert send(chain, transfer(chain, BOB, TAO)).is_success
        assert chain.get_block_number(None) == i + 1
    chain.close()


def test_manual_chains_are_the_same_every_time(manual, raw):
    from nodes import Node

    hashes = []
    for node in (manual, Node("--block-time", "manual")):
        client = raw(node)
        hashes.append(client.call("dev_newBlock", [{"count": 25}]))
        if node is not manual:
            node.stop()
    assert hashes[0] == hashes[1]


def test_storage_subscription_tells_only_changes(manual, raw):
    chain, client = connect(manual), raw(manual)
    key = chain.create_storage_key("System", "Account", [BOB.ss58_address]).to_hex()
    other = chain.create_storage_key("System", "Account", [DAVE.ss58_address]).to_hex()
    subscription = client.call("state_subscribeStorage", [[key, other]])
    first = client.note(subscription)
    assert [change[0] for change in first["changes"]] == [key, other] and all(change[1] for change in first["changes"])
    client.call("dev_newBlock")
    client.call("author_submitExtrinsic", [str(chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE).data)])
    block = client.call("dev_newBlock")
    told = client.note(subscription)
    assert told["block"] == block and [change[0] for change in told["changes"]] == [key]
    assert told["changes"][0][1] == client.call("state_getStorage", [key])
    chain.close()


SUBSCRIPTIONS = [
    ("chain_subscribeNewHeads", "chain_unsubscribeNewHeads", [], "chain_newHead"),
    ("chain_subscribeNewHead", "chain_unsubscribeNewHead", [], "chain_newHead"),
    ("subscribe_newHead", "unsubscribe_newHead", [], "chain_newHead"),
    ("chain_subscribeAllHeads", "chain_unsubscribeAllHeads", [], "chain_allHead"),
    ("chain_subscribeFinalizedHeads", "chain_unsubscribeFinalizedHeads", [], "chain_finalizedHead"),
    ("chain_subscribeFinalisedHeads", "chain_unsubscribeFinalisedHeads", [], "chain_finalizedHead"),
    ("state_subscribeRuntimeVersion", "state_unsubscribeRuntimeVersion", [], "state_runtimeVersion"),
    ("chain_subscribeRuntimeVersion", "chain_unsubscribeRuntimeVersion", [], "state_runtimeVersion"),
    ("state_subscribeStorage", "state_unsubscribeStorage", [["0x00"]], "state_storage"),
]


def test_every_subscription_has_the_name_that_clients_route_by(manual, raw):
    client = raw(manual)
    for subscribe, unsubscribe, params, name in SUBSCRIPTIONS:
        client.send(json.dumps({"jsonrpc": "2.0", "id": f"s-{subscribe}", "method": subscribe, "params": params}))
        reply, note = client.receive(), client.receive()  # in this order: a client drops what comes before its id
        assert reply["id"] == f"s-{subscribe}" and isinstance(reply["result"], str)
        assert (note["method"], note["params"]["subscription"]) == (name, reply["result"])
        assert "id" not in note and "result" in note["params"]
        assert client.call(unsubscribe, [reply["result"]]) is True
        assert client.call(unsubscribe, [reply["result"]]) is False
    client.call("dev_newBlock")
    assert client.notes == [], "ended subscriptions say nothing more"
    chain = connect(manual)
    extrinsic = str(chain.create_signed_extrinsic(transfer(chain, BOB, TAO), ALICE).data)
    chain.close()
    watched = client.call("author_submitAndWatchExtrinsic", [extrinsic])
    client.send('{"jsonrpc":"2.0","id":"b","method":"dev_newBlock"}')
    notes = [note for note in (client.receive() for _ in range(4)) if "method" in note]
    assert {(note["method"], note["params"]["subscription"]) for note in notes} == {("author_extrinsicUpdate", watched)}
    said = [note["params"]["result"] for note in notes]
    assert said[0] == "ready" and [*said[1], *said[2]] == ["inBlock", "finalized"]


# --- transport ---


def test_http_post_serves_the_same_methods(devnet):
    def post(body: bytes):
        with urllib.request.urlopen(urllib.request.Request(devnet.http, body), timeout=60) as reply:
            return json.load(reply)

    assert post(b'{"jsonrpc":"2.0","id":"a1","method":"system_chain"}')["result"] == "Bittensor"
    replies = post(b'[{"jsonrpc":"2.0","id":1,"method":"system_name"},{"jsonrpc":"2.0","id":"z","method":"nope"}]')
    assert [reply["id"] for reply in replies] == [1, "z"] and replies[1]["error"]["code"] == -32601
    assert post(b'{"id":1,"jsonrpc":"2.0","method":"chain_subscribeNewHeads"}')["error"]["code"] == -32601
    assert SubstrateInterface(url=devnet.http).query("System", "Number").value >= 0


def test_parameters_by_name_and_hex_without_prefix(devnet, raw):
    client = raw(devnet)
    head = client.call("chain_getBlockHash", {"hash": 0})
    assert head == devnet.ready["genesis"]
    assert client.call("state_call", {"name": "Core_version", "bytes": "", "hash": None})
    v15 = client.call("state_call", {"name": "Metadata_metadata_at_version", "bytes": "0f000000"})
    assert v15 == client.call("state_call", ["Metadata_metadata_at_version", "0x0f000000"])
    assert client.call("state_call", ["Metadata_metadata_at_version", "0x10000000"]) == "0x00"
    keys = client.call("state_getKeysPaged", {"prefix": "0x", "count": 3, "startKey": None, "hash": None})
    assert len(keys) == 3
    assert client.call("system_accountNextIndex", {"account": DAVE.ss58_address}) >= 0
    served = client.call("rpc_methods")["methods"]
    assert {"account_nextIndex", "chain_getHead", "state_getStorageAt", "state_call", "chain_subscribeNewHead"} <= set(
        served
    )


def test_missing_blocks_and_unknown_hashes(devnet, raw):
    client = raw(devnet)
    unknown = "0x" + "12" * 32
    assert client.call("chain_getHeader", [unknown]) is None
    assert client.call("chain_getBlock", [unknown]) is None
    assert client.call("chain_getBlockHash", [10**9]) is None
    assert client.call("chain_getBlockHash", [[0, 10**9]]) == [devnet.ready["genesis"], None]
    assert client.request("state_getStorage", ["0x00", unknown])["error"]["code"] == 4003
    assert "not found" in client.request("state_call", ["Nope_nope", "0x"])["error"]["message"]


def test_many_clients_at_once(devnet):
    def one(i: int) -> int:
        client = clients[i]
        try:
            key = Keypair.create_from_uri(f"//many{i}")
            call = transfer(client, key, TAO)
            signer = (ALICE, BOB, CHARLIE)[i % 3]
            for _ in range(20):  # several clients sign with one key: retry a lost race for the nonce
                try:
                    nonce = client.rpc_request("system_accountNextIndex", [signer.ss58_address])["result"]
                    receipt = client.submit_extrinsic(
                        client.create_signed_extrinsic(call, signer, nonce=nonce), wait_for_inclusion=True
                    )
                    return free(client, key) if receipt.is_success else -1
                except SubstrateRequestException as error:
                    assert error.args[0]["code"] in (1010, 1013, 1014), error
            return -2
        finally:
            client.close()

    # One after another: the library's decoder classes are made on connecting, and that is not safe for threads.
    clients = [connect(devnet) for _ in range(6)]
    for client in clients:
        client.query("System", "Account", [ALICE.ss58_address])
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, range(6))) == [TAO] * 6


def test_bittensor_core_decodes_the_events_of_a_block(devnet, chain, raw):
    core = pytest.importorskip("bittensor_core")
    receipt = send(chain, batch(chain, "force_batch"))
    client = raw(devnet)
    reader = core.Runtime(bytes.fromhex(client.call("state_getMetadata")[2:]), devnet.ready["spec_version"], 1)
    key = chain.create_storage_key("System", "Events").to_hex()
    data = bytes.fromhex(client.call("state_getStorage", [key, receipt.block_hash])[2:])
    entry = reader.storage_entry("System", "Events")
    type_ = entry["value_type"] if isinstance(entry, dict) else entry.value_type
    events = reader.decode(type_ if isinstance(type_, str) else f"scale_info::{type_}", data)
    # By extrinsic: a block in which an epoch runs has events of its initialization as well.
    ours = [
        f"{e['event']['module_id']}.{e['event']['event_id']}"
        for e in events
        if e["extrinsic_idx"] == receipt.extrinsic_idx
    ]
    assert ours == [f"{e.value['module_id']}.{e.value['event_id']}" for e in receipt.triggered_events]
    assert len(ours) == 10


def test_chain_keeps_its_pace(devnet, raw):
    client = raw(devnet)
    first = int(client.call("chain_getHeader")["number"], 16)
    wait_until(lambda: int(client.call("chain_getHeader")["number"], 16) >= first + 4, 60, "four blocks of 0.25 s")
