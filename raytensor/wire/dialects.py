"""The protocols of the wire by name, and btauth/1, the protocol of RayTensor and bittensor 11."""

from collections.abc import Mapping

from raytensor.config.wire import PROTOCOLS, Freshness
from raytensor.wire import auth
from raytensor.wire.auth import Caller, Claim, Signer
from raytensor.wire.axon_v10 import AxonV10
from raytensor.wire.dialect import Dialect, Draft
from raytensor.wire.epistula import Epistula


class BtAuth(Dialect):
    """btauth/1, as bittensor 11 has it."""

    name = "btauth"
    mark = "x-bittensor-version"
    receiver = "x-bittensor-receiver"

    def read(self, headers: Mapping[str, str], receiver: str, now_ns: int, fresh: Freshness) -> Claim:
        return auth.read_claim(headers, receiver=receiver, now_ns=now_ns, fresh=fresh)

    def prove(self, claim: Claim, *, method: str, target: str, body: bytes) -> Caller:
        return auth.prove(claim, method=method, path=target, body=body)

    def sign(self, signer: Signer, draft: Draft, receiver: str, nonce_ns: int) -> dict[str, str]:
        return auth.sign(
            signer, method=draft.method, path=draft.path, body=draft.body, receiver=receiver, nonce_ns=nonce_ns
        )


DIALECTS: dict[str, type[Dialect]] = {kind.name: kind for kind in (BtAuth, Epistula, AxonV10)}
assert set(DIALECTS) == set(PROTOCOLS)
