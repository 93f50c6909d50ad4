"""Submits one extrinsic per account concurrently; for set-up only, without a journal.

In: a client, signers and their calls. Out: what they cost; raises with the chain's reason for the first that failed.
Waits for: a block with each extrinsic, at most `timeout_s`. Nothing is sent again: use the chain writer for what must
survive a crash.
"""

import time

from raytensor.chain.calls import Call
from raytensor.chain.error_actions import action_for
from raytensor.chain.errors import dispatch_error_name
from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.rpc.events import fee, outcomes
from raytensor.chain.rpc.runtime import Era
from raytensor.chain.wallet import Signer
from raytensor.errors import ChainRefused, ChainUnavailable

BIRTH_S = 5.0  # how long a block is used as the first of eras; 64 blocks of the fastest chains take longer


class BulkSubmitter:
    """Collects calls by account, sends them together, and waits for all. fees_rao: fees that the chain took so far."""

    def __init__(self, client: ChainClient, timeout_s: float) -> None:
        self._client = client
        self._timeout_s, self.fees_rao = timeout_s, 0
        self._calls: dict[str, tuple[Signer, list[Call]]] = {}

    @property
    def waiting(self) -> int:
        return len(self._calls)

    def add(self, signer: Signer, *calls: Call | None) -> None:
        """Add calls of an account; None is ignored."""
        real = [call for call in calls if call is not None]
        if real:
            self._calls.setdefault(signer.ss58, (signer, []))[1].extend(real)

    def run(self) -> int:
        """Send one extrinsic per account (batch_all), and wait until a block has each.

        Returns the rao that left the accounts meanwhile, without the fees.
        """
        if not self._calls:
            return 0
        calls, self._calls = self._calls, {}
        client = self._client
        client.refresh_runtime()
        had_rao, fees_rao = self._balances(list(calls)), self.fees_rao
        first = born = client.finalized()
        read = time.monotonic()
        sent: dict[str, Call] = {}
        for signer, own in calls.values():
            if time.monotonic() > read + BIRTH_S:  # signing for a thousand accounts may take longer than an era
                born, read = client.finalized(), time.monotonic()
            nonce = client.account_next_index(signer.ss58)
            # A sudo call is not batched: only its event Sudid reports whether the inner call failed.
            batches = [[call] for call in own if call.module == "Sudo"]
            batches += [rest] if (rest := [call for call in own if call.module != "Sudo"]) else []
            for place, batch in enumerate(batches):
                call = batch[0] if len(batch) == 1 else Call("Utility", "batch_all", {"calls": batch})
                era = Era.mortal(born.number, 64)
                signed = client.sign(call, signer, nonce=nonce + place, era=era, birth_hash=born.hash)
                if refusal := client.submit(signed.data):
                    text = f"{signer.ss58} {_names(call)}: {refusal.text} ({refusal.name}); {refusal.action}"
                    raise ChainRefused(text, name=refusal.name, action=str(refusal.action))
                sent[signed.hash] = call
        self._wait(sent, first.number)
        return had_rao - self._balances(list(calls)) - (self.fees_rao - fees_rao)

    def _balances(self, addresses: list[str]) -> int:
        accounts = self._client.query_many([("System", "Account", [one]) for one in addresses])
        return sum(account["data"]["free"] + account["data"]["reserved"] for account in accounts)

    def _wait(self, sent: dict[str, Call], number: int) -> None:
        client, deadline = self._client, time.monotonic() + self._timeout_s
        while sent:
            try:
                client.wait_for_block(number + 1, max(0.0, deadline - time.monotonic()), poll_s=0.05)
            except ChainUnavailable as error:
                waiting = ", ".join(_names(call) for call in sent.values())
                raise ChainUnavailable(f"{waiting}: in no block after {self._timeout_s:g} s ({error})") from error
            number += 1
            block_hash = client.block_hash(number)
            _, hashes = client.block(block_hash)
            if not sent.keys() & set(hashes):
                continue
            events = client.events(block_hash)
            for place, hash in enumerate(hashes):
                if hash in sent:
                    own = [event for at, event in events if at == place]
                    self.fees_rao += fee(own)
                    self._judge(sent.pop(hash), own)

    def _judge(self, call: Call, events: list) -> None:
        for result in outcomes(call, events):
            if not result.ok:
                name = dispatch_error_name(result.error, self._client.runtime.module_error)
                action = str(action_for(name))
                raise ChainRefused(f"{_names(call)}: {name}; {action}", name=name, action=action)


def _names(call: Call) -> str:
    if "calls" in call.args:
        return f"{call.name}[{', '.join(sorted({_names(inner) for inner in call.args['calls']}))}]"
    return f"{call.name}({_names(call.args['call'])})" if "call" in call.args else call.name
