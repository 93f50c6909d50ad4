"""bittensor 11's http_auth, asked line by line: runs in a Python that has bittensor 11, imports nothing of ours.

In, as JSON lines: {"do": "sign" | "verify", ...}.
Out: {"headers": ...} | {"caller": ..., "nonce": ...} | {"error": ...}.
"""

import json
import sys

from bittensor import http_auth
from bittensor.sp_core import Keypair

for line in sys.stdin:
    asked = json.loads(line)
    body, where = bytes.fromhex(asked["body"]), {"method": asked["method"], "path": asked["path"]}
    if asked["do"] == "sign":
        keypair = Keypair.create_from_seed(bytes.fromhex(asked["seed"]), asked["crypto_type"])
        headers = http_auth.sign(
            keypair, body=body, receiver_ss58=asked["receiver"], nonce_ns=asked["nonce_ns"], **where
        )
        told = {"headers": headers, "ss58": keypair.ss58_address}
    else:
        try:
            caller = http_auth.verify(
                asked["headers"], body, self_hotkey_ss58=asked["receiver"], now_ns=asked["now_ns"], **where
            )
            told = {"caller": caller.hotkey_ss58, "nonce": caller.nonce_ns, "crypto_type": caller.crypto_type}
        except http_auth.AuthError as error:
            told = {"error": type(error).__name__}
    print(json.dumps(told), flush=True)
