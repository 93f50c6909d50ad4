"""The writer of some keys as a named Ray actor: the same keys on the same network give the same actor.

In: endpoints, key references, a journal path, settings. Out: a Ray actor handle of a `ChainWriter`, created or found.
Knows nothing of what is written.
"""

import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from raytensor.chain.wallet import KeyRef
from raytensor.chain.writer.database import NETWORK_ENV
from raytensor.chain.writer.settings import WriterSettings
from raytensor.chain.writer.writer import ChainWriter
from raytensor.clock import since_boot
from raytensor.errors import ChainRefused


def writer_actor(
    endpoints: Sequence[str] | str,
    signers: Mapping[str, KeyRef],
    journal_path: str | os.PathLike,
    settings: WriterSettings = WriterSettings(),
    *,
    delegate: KeyRef | None = None,
    name: str | None = None,
    namespace: str = "raytensor",
    exclusive_wait_s: float | None = None,
    options: Mapping[str, Any] | None = None,
) -> Any:
    """The one writer of these keys on this network, as a named Ray actor; created if it does not exist.

    name      by default made of the network and the keys, so that equal arguments give the same actor.
    exclusive_wait_s  for a caller that ends the actor when it ends: an actor that exists is refused, after this wait
              for its end (a job that was killed leaves one for some seconds). None: share it.
    options   further Ray actor options, such as num_cpus or scheduling_strategy.

    The other arguments are those of `ChainWriter`. A restarted actor waits until the lease of its predecessor has
    ended. Raises ChainRefused "KeyInUse" for an actor of another job that is not to be shared.
    """
    name = name or actor_name(endpoints, [*signers, *([delegate.ss58] if delegate else ())])
    wait_s = settings.lease_s + 5 if settings.lease_wait_s is None else settings.lease_wait_s
    settings = dataclasses.replace(settings, owner=settings.owner or f"Ray actor {name}", lease_wait_s=wait_s)
    if NETWORK_ENV in os.environ:  # an actor has the environment of its node, not of the driver
        options = {"runtime_env": {"env_vars": {NETWORK_ENV: os.environ[NETWORK_ENV]}}} | dict(options or {})
    # An extrinsic is not repeatable, so no call is ever retried; a restarted writer reconciles with the chain first.
    given = {"num_cpus": 0.1, "max_restarts": -1, "max_task_retries": 0, "max_concurrency": 8} | dict(options or {})
    shared = exclusive_wait_s is None
    if exclusive_wait_s is not None:
        _wait_until_free(name, namespace, exclusive_wait_s)
    actor = ray.remote(ChainWriter).options(name=name, namespace=namespace, get_if_exists=shared, **given)
    try:
        return actor.remote(endpoints, dict(signers), str(journal_path), settings, delegate=delegate)
    except ValueError as error:  # another job took the name in this moment
        raise _in_use(name) from error


def _wait_until_free(name: str, namespace: str, wait_s: float) -> None:
    """Return once no actor has the name. Raises ChainRefused after `wait_s` seconds."""
    end = since_boot() + wait_s
    while True:
        try:
            ray.get_actor(name, namespace=namespace)
        except ValueError:  # there is none
            return
        if since_boot() >= end:
            raise _in_use(name)
        time.sleep(0.2)


def _in_use(name: str) -> ChainRefused:
    what = f"another job of this cluster writes with these keys (its actor is {name!r})"
    fix = "fix: stop that job (`ray job list`, `ray job stop`), or give this one other hotkeys"
    return ChainRefused(f"{what}: two jobs would fight over their nonces\n  {fix}", name="KeyInUse", action=fix)


def actor_name(endpoints: Sequence[str] | str, keys: Sequence[str]) -> str:
    """ "chain-writer:finney:5F...": the network, and the key, or a digest of several keys."""
    first = endpoints if isinstance(endpoints, str) else next(iter(endpoints))
    joined = "+".join(sorted(keys))
    return f"chain-writer:{first}:{joined if len(keys) == 1 else hashlib.sha256(joined.encode()).hexdigest()[:16]}"
