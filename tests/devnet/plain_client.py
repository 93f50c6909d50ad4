"""A client that knows nothing of RayTensor: plain substrate-interface reads maps, sends a transfer, a batch, weights
and a call that fails, all mortal, one watched until it is final; reads events and errors.

    python tests/devnet/plain_client.py ws://127.0.0.1:9944 NETUID VALIDATOR_URI MINER_UID

The validator's hotkey must hold a permit on the subnet. Prints one JSON object of what it saw.
"""

from __future__ import annotations

import json
import sys

from substrateinterface import Keypair, SubstrateInterface
from substrateinterface.exceptions import SubstrateRequestException


def main(endpoint: str, netuid: int, validator_uri: str, miner_uid: int) -> dict:
    chain = SubstrateInterface(url=endpoint)
    alice, bob = Keypair.create_from_uri("//Alice"), Keypair.create_from_uri("//Bob")
    validator = Keypair.create_from_uri(validator_uri)

    def send(call, signer, finalized=False):
        extrinsic = chain.create_signed_extrinsic(call, signer, era={"period": 64})
        receipt = chain.submit_extrinsic(extrinsic, wait_for_inclusion=not finalized, wait_for_finalization=finalized)
        names = [f"{e.value['module_id']}.{e.value['event_id']}" for e in receipt.triggered_events]
        return {
            "success": receipt.is_success,
            "events": names,
            "block": chain.get_block_number(receipt.block_hash),
            "error": receipt.error_message and receipt.error_message["name"],
            "fee": receipt.total_fee_amount,
        }

    def free(address: str) -> int:
        return chain.query("System", "Account", [address]).value["data"]["free"]

    before = free(bob.ss58_address)
    transfer = send(
        chain.compose_call("Balances", "transfer_keep_alive", {"dest": bob.ss58_address, "value": 123_456_789}), alice
    )
    arguments = {"netuid": netuid, "dests": [miner_uid], "weights": [65535], "version_key": 0}
    weights = send(chain.compose_call("SubtensorModule", "set_weights", arguments), validator)
    to_bob = {"dest": bob.ss58_address, "value": 1_000}
    calls = [chain.compose_call("Balances", "transfer_keep_alive", to_bob) for _ in range(3)]
    batch = send(chain.compose_call("Utility", "batch_all", {"calls": calls}), alice, finalized=True)
    # A batch of one subnet passes the pool; its call fails in the block.
    stranger = chain.compose_call("SubtensorModule", "set_weights", arguments)
    failed = send(chain.compose_call("Utility", "batch_all", {"calls": [stranger]}), alice)
    try:
        send(chain.compose_call("Balances", "transfer_keep_alive", to_bob), Keypair.create_from_uri("//Nobody"))
        refused = None
    except SubstrateRequestException as error:
        refused = error.args[0]
    hotkeys = {uid.value: hotkey.value for uid, hotkey in chain.query_map("SubtensorModule", "Keys", [netuid])}
    uid = chain.query("SubtensorModule", "Uids", [netuid, validator.ss58_address]).value
    return {
        "accounts": len(list(chain.query_map("System", "Account"))),
        "received": free(bob.ss58_address) - before,
        "transfer": transfer,
        "set_weights": weights,
        "batch": batch,
        "failed": failed,
        "refused": refused,
        "finalized": chain.get_block_number(chain.get_chain_finalised_head()),
        "hotkeys": hotkeys,
        "uid": uid,
        "stored": chain.query("SubtensorModule", "Weights", [netuid, uid]).value,
        "last_update": chain.query("SubtensorModule", "LastUpdate", [netuid]).value[uid],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))))
