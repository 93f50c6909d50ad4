"""The settings of a chain writer."""

import os
from dataclasses import dataclass

from raytensor.chain.writer.batcher import Limits
from raytensor.chain.writer.commit_book import HASH, TIMELOCKED
from raytensor.chain.writer.lease import LEASE_S
from raytensor.chain.writer.policy import Policy
from raytensor.errors import ConfigError


@dataclass(frozen=True, slots=True)
class WriterSettings:
    """How a `ChainWriter` works.

    timeout_s            bound of each request to an endpoint.
    inclusion_timeout_s  how long `submit` waits for blocks.
    era_blocks           blocks in which an extrinsic is valid.
    limits               of one extrinsic; None reads them from the chain.
    policy               what may be done with funds; by default no transfers and no unstaking.
    audit_path           file of the audit log; None writes none.
    owner                name of this writer in the lease.
    lease_folder         where the leases are kept; None: beside the journal.
    lease_s              length of the lease.
    lease_wait_s         how long to wait for another holder's lease to end; None: 5 s, of a Ray actor `lease_s` + 5 s.
    commit_kind          "hash" or "timelocked" on subnets with commit-reveal; None: what the chain can open.
    stop_on_foreign      stop a key when the chain has weights or money of it that this writer did not send.
    look_back_blocks     refuse to start when so many last blocks have weights or money of a key that the journal does
                         not have: another program uses it. `raytensor weights take-over` allows the start. 0: none.
    renewal              what is set before the last weights of a subnet fall out of the activity cutoff, when no new
                         ones come: "renew" sets them again, "burn" gives all to the owner, "hold" sets nothing.

    Raises ConfigError for an unknown `commit_kind` or `renewal`.
    """

    timeout_s: float = 20.0
    inclusion_timeout_s: float = 30.0
    era_blocks: int = 64
    limits: Limits | None = None
    policy: Policy = Policy()
    audit_path: str | os.PathLike | None = None
    owner: str = ""
    lease_folder: str | os.PathLike | None = None
    lease_s: float = LEASE_S
    lease_wait_s: float | None = None
    commit_kind: str | None = None
    stop_on_foreign: bool = True
    look_back_blocks: int = 0
    renewal: str = "renew"

    def __post_init__(self) -> None:
        if self.commit_kind not in (None, HASH, TIMELOCKED):
            raise ConfigError(
                f"commit_kind {self.commit_kind!r}: write {HASH!r}, {TIMELOCKED!r}, or None for what the chain can open"
            )
        if self.renewal not in ("renew", "hold", "burn"):
            raise ConfigError(f"renewal {self.renewal!r}: write 'renew', 'hold' or 'burn'")
