"""The pool of scorers: how it is made from the configuration, and how an answer is handed to it.

In: the `validators` section, the rules of each subnet, answers. Out: a `Pool` whose results are one `Score` or `Failure`
per task id. Any number of validators and subnets share it; answers of one subnet are packed into calls, subnets take
turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from raytensor import config
from raytensor.pool import Packing, Pool
from raytensor.types import Response, Submission, Task
from raytensor.validators.scorer import MechanismSpec, ScorerActor

MIB = 2**20
# A scorer may take this much longer than its limit before the whole actor counts as hung: the child is ended first.
GRACE_S = 10.0


def make_pool(
    rules: Mapping[str, MechanismSpec],
    cfg: config.Validators,
    torch_threads: int = 1,
    *,
    max_replacements: int | None = None,
) -> Pool:
    """The scorers of a configuration. rules: by the name that `submit` is given."""
    isolate = cfg.gpus_per_scorer == 0 if cfg.isolate is None else cfg.isolate
    # On a cluster that was there before us the workers know nothing of our environment. Without a GPU of its own a
    # scorer must not see one: since Ray 2.55 an actor with num_gpus=0 sees all of them.
    environment = {"OMP_NUM_THREADS": str(torch_threads), "TOKENIZERS_PARALLELISM": "false"}
    if cfg.gpus_per_scorer == 0:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    actor = ray.remote(ScorerActor).options(
        num_cpus=cfg.cpus_per_scorer,
        num_gpus=cfg.gpus_per_scorer,
        max_restarts=0,
        runtime_env={"env_vars": environment},
    )
    shared = ray.put(dict(rules))
    return Pool(
        lambda: actor.remote(shared, isolate, cfg.score_limit_s),
        "score_all",
        cfg.num_scorers,
        queue=cfg.scorer_queue,
        packing=Packing(cfg.pack_items, cfg.pack_mib * MIB),
        max_replacements=max_replacements,
    )


def submit(
    pool: Pool, name: str, cfg: config.Validators, task: Task, sealed: Any, answer: Response | Submission
) -> None:
    """Queue one answer under the rules of that name. Its result comes out under the task's id."""
    size = len(answer.payload) if isinstance(answer, Submission) else answer.ids.nbytes + answer.probs.nbytes
    deadline_s = cfg.score_limit_s + GRACE_S
    pool.submit(
        task.task_id,
        (name, task, sealed, answer),
        hotkey=task.hotkey,
        deadline_s=deadline_s,
        group=name,
        cost=task.tokens.nbytes + size + 1,
    )
