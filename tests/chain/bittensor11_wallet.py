"""The other side of test_wallet_interop.py: run by an interpreter that has bittensor 11, told one JSON object by argv.

In: {"path", "password"} and folders made by us, or the names to make. Out: one JSON object of what bittensor sees.
"""

import json
import os
import sys

from bittensor import wallets
from bittensor.wallet import Wallet

asked = json.loads(sys.argv[1])
path, password = asked["path"], asked["password"]


def make(name, cold_password, hot_password):
    wallet = Wallet(name=name, hotkey="hot", path=path)
    wallet.create_new_coldkey(
        use_password=bool(cold_password), coldkey_password=cold_password, suppress=True, overwrite=False
    )
    wallet.create_new_hotkey(
        use_password=bool(hot_password), hotkey_password=hot_password, suppress=True, overwrite=False
    )


def look(name):
    os.environ["BT_WALLET_PASSWORD"] = password
    wallet = Wallet(name=name, hotkey="hot", path=path)
    encrypted = {"coldkey": wallet.coldkey_file.is_encrypted(), "hotkey": wallet.hotkey_file.is_encrypted()}
    cold = wallet.get_coldkey(password if encrypted["coldkey"] else None)
    hot = wallet.get_hotkey(password if encrypted["hotkey"] else None)
    return {
        "coldkey": cold.ss58_address,
        "coldkeypub": wallet.coldkeypub.ss58_address,
        "hotkey": hot.ss58_address,
        "encrypted": encrypted,
        "signature": bytes(cold.sign(b"from bittensor")).hex(),
        "listed": wallets.list_wallets(path).get(name),
    }


for name, cold_password, hot_password in asked.get("make", []):
    make(name, cold_password, hot_password)
print(json.dumps({name: look(name) for name in asked["look"]}))
