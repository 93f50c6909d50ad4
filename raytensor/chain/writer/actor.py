"""The writer of some keys as a named Ray actor: whoever asks for the same keys on the same network gets the same one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from raytensor.chain.wallet import KeyRef
from raytensor.chain.writer.lease import LEASE_S
from raytensor.chain.writer.writer import ChainWriter


def writer_actor(
    endpoints: Sequence[str] | str,
    signers: Mapping[str, KeyRef],
    journal_path: str | os.PathLike,
    *,
    name: str | None = None,
    namespace: str = "raytensor",
    options: Mapping[str, Any] | None = None,
    **settings: Any,
):
    """The one writer of these keys on this network, as a named Ray actor: made if it is not there, else found.

    name      by default made of the network and the keys, so that all who ask for the same get the same actor.
    options   more of Ray's actor options, as num_cpus or scheduling_strategy.
    settings  of `ChainWriter`. A restarted actor waits until the lease of the one that died has ended.
    """
    import ray

    delegate = settings.get("delegate")
    name = name or actor_name(endpoints, [*signers, *([delegate.ss58] if delegate else ())])
    settings = {"owner": f"Ray actor {name}", "lease_wait_s": settings.get("lease_s", LEASE_S) + 5, **settings}
    # An extrinsic is not repeatable, so no call is ever retried; a restarted writer looks at the chain first.
    given = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 8} | dict(options or {})
    actor = ray.remote(ChainWriter).options(name=name, namespace=namespace, get_if_exists=True, **given)
    return actor.remote(endpoints, dict(signers), str(journal_path), **settings)


def actor_name(endpoints: Sequence[str] | str, keys: Sequence[str]) -> str:
    """ "chain-writer:finney:5F...": the network, and the key, or a digest of several."""
    first = endpoints if isinstance(endpoints, str) else next(iter(endpoints))
    joined = "+".join(sorted(keys))
    return f"chain-writer:{first}:{joined if len(keys) == 1 else hashlib.sha256(joined.encode()).hexdigest()[:16]}"
