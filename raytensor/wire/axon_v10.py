"""The protocol of the axon and dendrite of bittensor 10, as a dialect of the wire.

A v10 validator asks a RayTensor miner with this synapse, and the client asks v10 axons that attached it:

    class NextToken(bittensor.Synapse):
        required_hash_fields: ClassVar[tuple[str, ...]] = (
            "task_id", "round", "netuid", "tokens", "lengths", "top_k", "deadline_s")
        task_id: str; round: int; netuid: int; tokens: list[list[int]]; lengths: list[int]
        top_k: int; deadline_s: float
        ids: list[list[int]] | None = None; probs: list[list[float]] | None = None; elapsed_s: float = 0.0

Request: POST /NextToken, the synapse as JSON, headers bt_header_dendrite_* (nonce, uuid, hotkey, signature),
bt_header_axon_hotkey, computed_body_hash. Signed text: "{nonce}.{dendrite hotkey}.{axon hotkey}.{uuid}.{body hash}",
sr25519; body hash: sha3-256 of the joined sha3-256 of str(field) for each field above.

Stricter than v10: a missing signature is refused; the body hash covers all fields and is always recomputed from the
body; nonces are unique and kept in the store that all replicas share; the time-out of the caller extends the window, as
in v10, but never beyond the retention of the store.
"""

import base64
import hashlib
import json
import uuid
from collections.abc import Mapping
from typing import Any

from raytensor.config.wire import Bounds, Freshness
from raytensor.errors import WireError
from raytensor.payload import Schemas
from raytensor.types import Response, Submission, Task
from raytensor.wire import auth, codec, errors, tensors
from raytensor.wire.auth import Caller, Claim, Signer
from raytensor.wire.dialect import ASK, Dialect, Draft
from raytensor.wire.epistula import UUID
from raytensor.wire.errors import BadSignature, MalformedAuth, PayloadError

SYNAPSE = "NextToken"
FIELDS = ("task_id", "round", "netuid", "tokens", "lengths", "top_k", "deadline_s")
VERSION = 10_005_000  # bittensor 10.5.0, in the notation of its headers
ECHO_BYTES = 65536  # terminals and other fields that a synapse carries back
WINDOW_S = 4.0  # bittensor.utils.axon_utils.ALLOWED_DELTA; the time-out of the caller is added


class AxonV10(Dialect):
    """Requests as bittensor 10's dendrite sends them."""

    name = "axon_v10"
    mark = "bt_header_dendrite_hotkey"
    receiver = "bt_header_axon_hotkey"

    # ---- server

    def speaks(self, headers: Mapping[str, str], path: str) -> bool:
        return self.mark in headers or path == f"/{SYNAPSE}"

    def route(self, path: str) -> str | None:
        return ASK if path == f"/{SYNAPSE}" else None

    def read(self, headers: Mapping[str, str], receiver: str, now_ns: int, fresh: Freshness) -> Claim:
        def need(name: str) -> str:
            value = headers.get(name)
            if not value:
                raise MalformedAuth(f"the header {name} is missing", fix="sign the request as bittensor 10.5 does")
            return value

        sender = need("bt_header_dendrite_hotkey")
        public_key = auth.public_key_of(sender)
        nonce_ns = auth.decimal(need("bt_header_dendrite_nonce"), "bt_header_dendrite_nonce")
        unique = need("bt_header_dendrite_uuid")
        if not UUID.fullmatch(unique):
            raise MalformedAuth("bt_header_dendrite_uuid must be a uuid")
        signature = auth.signature_of(need("bt_header_dendrite_signature"), "bt_header_dendrite_signature")
        body_hash = need("computed_body_hash")
        named = headers.get("bt_header_axon_hotkey") or None
        auth.check_receiver(named, receiver, required=True)
        most_s = max(fresh.max_age_s, min(WINDOW_S + _timeout_s(headers), fresh.retention_s - fresh.max_skew_s))
        auth.check_fresh(nonce_ns, now_ns, most_s, fresh.max_skew_s)
        return Claim(sender, public_key, "sr25519", nonce_ns, named, signature, unique, body_hash)

    def prove(self, claim: Claim, *, method: str, target: str, body: bytes) -> Caller:
        message = _message(claim.nonce_ns, claim.hotkey, claim.receiver or "", claim.unique, claim.body_hash)
        auth.check_signature(claim, message)
        return Caller(claim.hotkey, claim.nonce_ns, claim.scheme)

    def decode_task(
        self, claim: Claim, headers: Mapping[str, str], body: bytes, bounds: Bounds, schemas: Schemas
    ) -> Task:
        fields = tensors.load_object(body, "the body")
        values = {name: fields.get(name) for name in FIELDS}
        if isinstance(values["deadline_s"], int):
            values["deadline_s"] = float(values["deadline_s"])  # a float field of the synapse, hashed as such
        if _body_hash(values) != claim.body_hash:
            raise BadSignature("the body does not fit the hash that was signed")
        assert claim.receiver is not None
        values |= {"message": "task/1", "validator": claim.hotkey, "hotkey": claim.receiver}
        return codec.task_from(values, bounds)

    def encode_response(
        self, claim: Claim, headers: Mapping[str, str], task: Task, response: Response | Submission
    ) -> tuple[dict[str, str], bytes]:
        if not isinstance(response, Response):
            raise PayloadError(f"the synapse {SYNAPSE} carries no file")
        synapse = _synapse(task)
        synapse |= {"ids": response.ids, "probs": response.probs, "elapsed_s": float(response.elapsed_s)}
        return _reply_headers(200, "Success", task.hotkey), tensors.dump_object(synapse)

    def encode_error(self, error: WireError) -> tuple[dict[str, str], bytes]:
        message = json.loads(errors.to_json(error))
        message["message"] = f"{message['error']}: {error}"
        return _reply_headers(error.status, message["message"]), json.dumps(message).encode()

    # ---- client

    def draft(self, task: Task, body_format: str) -> Draft:
        if task.kind != "token":
            raise PayloadError(f"the synapse {SYNAPSE} carries questions of kind 'token', not {task.kind!r}")
        synapse = _synapse(task)
        return Draft(f"/{SYNAPSE}", tensors.dump_object(synapse), codec.JSON, task.deadline_s, _body_hash(synapse))

    def sign(self, signer: Signer, draft: Draft, receiver: str, nonce_ns: int) -> dict[str, str]:
        # A v10 axon requires increasing nonces per uuid; with a new uuid each, requests may arrive in any order.
        unique = str(uuid.uuid4())
        signature = signer.sign(_message(nonce_ns, signer.ss58, receiver, unique, draft.body_hash))
        headers = {
            "name": SYNAPSE,
            "timeout": str(draft.timeout_s),
            "bt_header_axon_hotkey": receiver,
            "bt_header_dendrite_version": str(VERSION),
            "bt_header_dendrite_nonce": str(nonce_ns),
            "bt_header_dendrite_uuid": unique,
            "bt_header_dendrite_hotkey": signer.ss58,
            "bt_header_dendrite_signature": "0x" + signature.hex(),
            "computed_body_hash": draft.body_hash,
        }
        return headers | _PLACEHOLDERS

    def answer_bound(self, draft: Draft, task: Task, content_type: str) -> int:
        if content_type != codec.JSON:
            raise PayloadError(f"the answer is {content_type or 'of no type'}, not {codec.JSON}")
        return codec.answer_bytes(task, codec.JSON) + 2 * len(draft.body) + ECHO_BYTES  # it repeats the question

    def decode_response(self, headers: Mapping[str, str], body: bytes, task: Task) -> Response:
        fields = tensors.load_object(body, "the answer")
        if fields.get("ids") is None or fields.get("probs") is None:
            raise PayloadError("the answer has no ids and probs")
        fields = {name: fields.get(name) for name in ("task_id", "ids", "probs", "elapsed_s")}
        fields |= {"message": "response/1", "hotkey": task.hotkey}
        return codec.response_from(fields, task)


def _synapse(task: Task) -> dict[str, Any]:
    return {
        "name": SYNAPSE,
        "timeout": float(task.deadline_s),
        "task_id": task.task_id,
        "round": int(task.round),
        "netuid": int(task.netuid),
        "tokens": task.tokens.tolist(),
        "lengths": task.lengths.tolist(),
        "top_k": int(task.top_k),
        "deadline_s": float(task.deadline_s),
    }


def _sha3(text: str) -> str:
    return hashlib.sha3_256(text.encode()).hexdigest()


def _body_hash(values: Mapping[str, Any]) -> str:
    """bittensor.core.synapse.Synapse.body_hash, for the fields above."""
    return _sha3("".join(_sha3(str(values[name])) for name in FIELDS))


def _message(nonce_ns: int, sender: str, receiver: str, unique: str, body_hash: str) -> bytes:
    return f"{nonce_ns}.{sender}.{receiver}.{unique}.{body_hash}".encode()


def _timeout_s(headers: Mapping[str, str]) -> float:
    """The time-out that the caller states; 0 if it is not a number."""
    try:
        timeout_s = float(headers.get("timeout", "0"))
    except ValueError:
        return 0.0
    return timeout_s if timeout_s > 0 else 0.0


def _reply_headers(status: int, message: str, hotkey: str = "") -> dict[str, str]:
    """The headers from which a dendrite reads the status."""
    headers = {
        "Content-Type": codec.JSON,
        "name": SYNAPSE,
        "bt_header_axon_status_code": str(status),
        "bt_header_axon_status_message": message.replace("\r", " ").replace("\n", " "),
    }
    return headers | ({"bt_header_axon_hotkey": hotkey} if hotkey else {})


def _placeholders() -> dict[str, str]:
    """An empty value of each required field: a v10 axon builds the synapse from headers before it reads the body."""
    empty = {"task_id": "", "round": 0, "netuid": 0, "tokens": [], "lengths": [], "top_k": 0, "deadline_s": 0.0}
    coded = {name: base64.b64encode(json.dumps(empty[name]).encode()).decode() for name in FIELDS}
    return {f"bt_header_input_obj_{name}": value for name, value in coded.items()}


_PLACEHOLDERS = _placeholders()
