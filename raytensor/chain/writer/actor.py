"""The writer of some keys as a named Ray actor: the same keys on the same network give the same actor.

In: endpoints, key references, a journal path, settings. Out: a Ray actor handle of a `ChainWriter`, created or found.
Knows nothing of what is written.
"""

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from raytensor.chain.wallet import KeyRef
from raytensor.chain.writer.database import NETWORK_ENV
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter


def writer_actor(
    endpoints: Sequence[str] | str,
    signers: Mapping[str, KeyRef],
    journal_path: str | os.PathLike,
    settings: WriterSettings = WriterSettings(),
    *,
    delegate: KeyRef | None = None,
    name: str | None = None,
    namespace: str = "raytensor",
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The one writer of these keys on this network, as a named Ray actor; created if it does not exist.

    name      by default made of the network and the keys, so that equal arguments give the same actor.
    options   further Ray actor options, such as num_cpus or scheduling_strategy.

    The other arguments are those of `ChainWriter`. A restarted actor waits until the lease of its predecessor has
    ended.
    """
    name = name or actor_name(endpoints, [*signers, *([delegate.ss58] if delegate else ())])
    wait_s = settings.lease_s + 5 if settings.lease_wait_s is None else settings.lease_wait_s
    settings = dataclasses.replace(settings, owner=settings.owner or f"Ray actor {name}", lease_wait_s=wait_s)
    if NETWORK_ENV in os.environ:  # an actor has the environment of its node, not of the driver
        options = {"runtime_env": {"env_vars": {NETWORK_ENV: os.environ[NETWORK_ENV]}}} | dict(options or {})
    # An extrinsic is not repeatable, so no call is ever retried; a restarted writer reconciles with the chain first.
    given = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 8} | dict(options or {})
    actor = ray.remote(ChainWriter).options(name=name, namespace=namespace, get_if_exists=True, **given)
    return actor.remote(endpoints, dict(signers), str(journal_path), settings, delegate=delegate)


def actor_name(endpoints: Sequence[str] | str, keys: Sequence[str]) -> str:
    """ "chain-writer:finney:5F...": the network, and the key, or a digest of several keys."""
    first = endpoints if isinstance(endpoints, str) else next(iter(endpoints))
    joined = "+".join(sorted(keys))
    return f"chain-writer:{first}:{joined if len(keys) == 1 else hashlib.sha256(joined.encode()).hexdigest()[:16]}"
