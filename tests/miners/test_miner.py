"""A miner by itself: what each behaviour does, and that nothing but its own names decides it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raytensor import config
from raytensor.config import MinerProfile
from raytensor.data.text import Text, unigram
from raytensor.mechanisms.base import Ask, Item
from raytensor.mechanisms.evidence import State
from raytensor.mechanisms.query import QueryMechanism
from raytensor.miners import checkpoints
from raytensor.miners.host import MinerHost
from raytensor.miners.host_handle import HostHandle
from raytensor.miners.miner import Miner, heldout_questions
from raytensor.miners.model import top_tokens
from raytensor.miners.placement import num_hosts, place, victims
from raytensor.training import devices
from raytensor.types import Failure, Reason, Response, Score

V = 50
SMALL = {"hidden": 32, "layers": 1, "heads": 2, "steps": 3, "batch_size": 4}
CFG = config.RunConfig(
    miners=config.Miners(seq_len=16, warmup_rounds=2, heldout_rows=64, num_miners=6),
    mechanism=config.Mechanism(query=config.Query(rows=8, context=12, shortest=4, top_k=10)),
)


def words(n: int, seed: int) -> np.ndarray:
    """Text with something to learn: each token follows from the one before in three cases of four."""
    draw = np.random.default_rng(seed)
    out = np.zeros(n, dtype=np.uint16)
    for i in range(1, n):
        out[i] = (out[i - 1] * 7 + 3) % V if draw.random() < 0.75 else draw.integers(V)
    return out


@pytest.fixture(scope="module")
def text():
    train, heldout = words(6_000, 0), words(2_000, 1)
    return Text(train, heldout, np.array([0, 6_000]), np.array([0, 2_000]), unigram(train, V), V, 1.0)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def miner(text: Text, behaviour: str = "honest", hotkey: str = "a", **profile) -> Miner:
    return Miner(hotkey, MinerProfile(behaviour=behaviour, **SMALL | profile), CFG, text)


def task_for(text: Text, hotkey: str, round: int = 1):
    return QueryMechanism(CFG.mechanism, text.log_unigram, V).tasks(Ask(3, 1, "v", round, (hotkey,)), State(), text)[0]


def same(a: Response, b: Response) -> bool:
    return np.array_equal(a.ids, b.ids) and np.array_equal(a.probs, b.probs)


def test_an_honest_miner_learns_and_its_answers_keep_the_bounds(text):
    found, mechanism = miner(text, steps=30), QueryMechanism(CFG.mechanism, text.log_unigram, V)
    before = found.heldout_loss(heldout_questions(CFG, text))
    losses = [found.train(round) for round in range(1, 5)]
    after = found.heldout_loss(heldout_questions(CFG, text))
    assert losses[-1] < losses[0] and after < before - 0.3 and after < mechanism.table_loss
    assert found.engine.steps == 30 * (4 + 2)  # the first round comes with the warm-up
    task, sealed = task_for(text, "a")
    response = found.answer(task)
    assert response.ids.dtype == np.int32 and response.probs.dtype == np.float32 and response.ids.shape == (8, 10)
    assert isinstance(mechanism.score([Item(task, sealed, response)])[0], Score)


def test_everything_follows_from_seed_hotkey_and_profile(text):
    task, _ = task_for(text, "a")

    def trained(**change) -> Response:
        found = Miner(change.get("hotkey", "a"), MinerProfile(**SMALL), replace(CFG, seed=change.get("seed", 0)), text)
        for round in (1, 2):
            found.train(round)
        return found.answer(task)

    base = trained()
    assert same(base, trained())
    assert not same(base, trained(seed=1)) and not same(base, trained(hotkey="b"))


def test_a_lazy_miner_trains_every_tenth_round_and_does_not_warm_up(text):
    found = miner(text, "lazy")
    trained = [round for round in range(1, 31) if found.train(round) is not None]
    assert trained == [10, 20, 30] and found.engine.steps == 3 * SMALL["steps"]


def test_a_silent_miner(text):
    found = miner(text, "silent")
    assert found.engine is None and found.train(1) is None
    assert found.answer(task_for(text, "a")[0]) is None and found.heldout_loss(heldout_questions(CFG, text)) is None


def test_a_constant_miner_gives_the_frequency_table(text):
    found = miner(text, "constant")
    response = found.answer(task_for(text, "a")[0])
    assert len(np.unique(response.ids, axis=0)) == 1
    counts = np.bincount(text.train, minlength=V)
    assert (
        set(response.ids[0]) == set(np.argsort(-counts)[:10]) or counts[response.ids[0]].min() >= np.sort(counts)[-10]
    )
    np.testing.assert_allclose(response.probs[0], (counts[response.ids[0]] + 1) / (6_000 + V), rtol=1e-4)


def test_a_random_miner_is_in_bounds_and_different_each_time(text):
    found, mechanism = miner(text, "random"), QueryMechanism(CFG.mechanism, text.log_unigram, V)
    (one, sealed), (two, _) = task_for(text, "a", 1), task_for(text, "a", 2)
    assert isinstance(mechanism.score([Item(one, sealed, found.answer(one))])[0], Score)
    assert same(found.answer(one), found.answer(one)) and not same(found.answer(one), found.answer(two))


def test_a_copying_miner_sends_what_it_saw_under_its_own_name(text):
    victim, copier = miner(text), miner(text, "copy", hotkey="b")
    seen = victim.answer(task_for(text, "a")[0])
    task, _ = task_for(text, "b")
    response = copier.answer(task, seen)
    assert (response.hotkey, response.task_id) == ("b", task.task_id) and same(response, seen)
    assert copier.answer(task, None) is None and copier.heldout_loss(heldout_questions(CFG, text)) is None


def test_heldout_loss_is_the_loss_of_its_answers(text):
    found, questions = miner(text), heldout_questions(CFG, text)
    log_probs = found.engine.log_probs(questions.tokens, questions.lengths)
    total = 0.0
    for row, target in zip(log_probs, questions.targets, strict=True):
        named = np.argsort(-row)[:10]
        left = 1.0 - float(np.exp(row[named]).sum())
        total -= row[target] if target in named else np.log(left / (V - 10))
    assert found.heldout_loss(questions) == pytest.approx(total / len(log_probs), rel=1e-5)


def test_training_never_sees_a_heldout_token(text):
    marked = replace(text, train=np.where(np.arange(6_000) % 2, 1, 2).astype(np.uint16))
    batch = miner(marked).batches(5)
    assert batch.shape == (3, 4, 17) and set(np.unique(batch)) == {1, 2}


def test_top_tokens():
    log_probs = np.log(np.array([[0.1, 0.5, 0.2, 0.2], [0.4, 0.3, 0.2, 0.1]], dtype=np.float32))
    ids, probs = top_tokens(log_probs, 2)
    assert ids[0, 0] == 1 and ids[0, 1] in (2, 3) and ids[1].tolist() == [0, 1]
    np.testing.assert_allclose(probs, [[0.5, 0.2], [0.4, 0.3]], rtol=1e-6)
    assert top_tokens(log_probs, 4)[0][1].tolist() == [0, 1, 2, 3]


def members(*behaviours: str) -> list[tuple[str, MinerProfile]]:
    return [(f"m{i}", MinerProfile(behaviour=behaviour, **SMALL)) for i, behaviour in enumerate(behaviours)]


def test_hosts_do_not_change_what_their_miners_do(text):
    together = MinerHost(CFG, members("honest", "honest", "random"), text)
    alone = MinerHost(CFG, members("honest", "honest", "random")[1:2], text)
    for host in (together, alone):
        for round in (1, 2):
            host.train(round)
    task, _ = task_for(text, "m1")
    assert same(together.answer(task), alone.answer(task))
    assert together.heldout_losses()["m1"] == alone.heldout_losses()["m1"]


def test_the_failure_of_one_miner_is_its_own(text, monkeypatch):
    """Each round one miner's model runs out of memory; those beside it train as if it were not there."""
    cfg = replace(CFG, miners=replace(CFG.miners, stacked=False))
    host, undisturbed = (MinerHost(cfg, members("honest", "honest", "honest"), text) for _ in range(2))
    train = Miner.train

    def without_memory(miner: Miner, round: int) -> float | None:
        if miner.hotkey == "m0":
            raise torch.OutOfMemoryError("out of memory")
        return train(miner, round)

    for round in (1, 2):
        expected = undisturbed.train(round).losses
        with monkeypatch.context() as patch:
            patch.setattr(Miner, "train", without_memory)
            found = host.train(round)
        assert found.failures == {"m0": "out of memory"}
        assert found.losses == {name: loss for name, loss in expected.items() if name != "m0"}


def test_a_host_is_to_blame_for_many_errors_in_a_row_of_several_miners():
    def handle(*hotkeys: str) -> HostHandle:
        return HostHandle(0, [(hotkey, MinerProfile(**SMALL)) for hotkey in hotkeys])

    several, single = handle("a", "b", "c"), handle("a")
    assert [several.raised("a") for _ in range(9)] == [False] * 9  # one bad miner is no reason
    assert several.raised("b")
    assert [single.raised("a") for _ in range(8)] == [False] * 7 + [True]


@pytest.mark.parametrize(
    "error, lost",
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (ValueError("3 rows can't be shared"), False),
    ],
)
def test_which_errors_say_that_the_device_is_lost(error, lost):
    assert devices.is_lost(error) == lost


def test_stacked_miners_do_what_miners_with_engines_of_their_own_do(tmp_path, text):
    """The same losses to 1e-3 nats after three rounds, and a checkpoint of either goes on as the other."""
    who = [
        (f"m{i}", MinerProfile(**SMALL | {"lr": lr, "steps": steps, "hidden": hidden}))
        for i, (lr, steps, hidden) in enumerate([(3e-3, 3, 32), (1e-2, 5, 32), (3e-3, 2, 48), (1e-3, 4, 32)])
    ]
    who.append(("m4", MinerProfile(behaviour="lazy", **SMALL)))
    own, stacked = (
        MinerHost(replace(CFG, miners=replace(CFG.miners, stacked=choice)), who, text, tmp_path / str(choice))
        for choice in (False, True)
    )
    for round in (1, 2, 10):
        one, other = own.train(round).losses, stacked.train(round).losses
        assert one.keys() == other.keys() and ("m4" in one) == (round == 10)
        np.testing.assert_allclose([one[name] for name in one], [other[name] for name in one], atol=1e-3)
    np.testing.assert_allclose(list(own.heldout_losses().values()), list(stacked.heldout_losses().values()), atol=1e-3)
    for host in (own, stacked):
        host.checkpoint(10)
    crossed = MinerHost(
        replace(CFG, miners=replace(CFG.miners, stacked=False)), who, text, tmp_path / "True", resume_round=10
    )
    back = MinerHost(CFG, who, text, tmp_path / "False", resume_round=10)
    one, other = crossed.train(11).losses, back.train(11).losses
    np.testing.assert_allclose([one[name] for name in one], [other[name] for name in one], atol=1e-3)


def test_a_host_says_silent_as_a_value(text):
    host = MinerHost(CFG, members("silent", "copy"), text)
    assert host.train(1).losses == {}
    for hotkey in ("m0", "m1"):
        task, _ = task_for(text, hotkey)
        answer = host.answer(task)
        assert isinstance(answer, Failure) and (answer.item_id, answer.reason) == (task.task_id, Reason.SILENT)
    assert host.heldout_losses() == {"m0": None, "m1": None}


def test_a_host_goes_on_from_its_checkpoint_bit_for_bit(tmp_path, text):
    who = members("honest", "constant", "lazy")
    straight = MinerHost(CFG, who, text, tmp_path)
    for round in (1, 2):
        straight.train(round)
    straight.checkpoint(2)
    assert checkpoints.newest(tmp_path, [name for name, _ in who], up_to=9) == 2
    again = MinerHost(CFG, who, text, tmp_path, resume_round=2)
    one, other = straight.train(3), again.train(3)
    assert one.losses == other.losses and one.losses
    task, _ = task_for(text, "m0", 3)
    assert same(straight.answer(task), again.answer(task))
    assert straight.heldout_losses() == again.heldout_losses()


def test_only_whole_checkpoints_count_and_old_ones_go(tmp_path):
    for round in (3, 5, 8):
        for hotkey in ("a", "b"):
            checkpoints.path_of(tmp_path, round, hotkey).mkdir(parents=True)
            if (round, hotkey) != (8, "b"):
                checkpoints.mark(tmp_path, round, hotkey)
    assert checkpoints.newest(tmp_path, ["a", "b"], up_to=9) == 5 and checkpoints.newest(tmp_path, ["a"], up_to=9) == 8
    assert checkpoints.newest(tmp_path, ["a"], up_to=7) == 5 and checkpoints.newest(tmp_path, ["a"], up_to=2) is None
    assert checkpoints.newest(tmp_path, ["c"], up_to=9) is None and checkpoints.newest(None, ["a"], up_to=9) is None
    checkpoints.prune(tmp_path, 5)
    assert checkpoints.rounds(tmp_path) == [3, 5, 8]
    checkpoints.prune(tmp_path, 8)
    assert checkpoints.rounds(tmp_path) == [5, 8]


def test_placement_is_even_and_whole():
    profiles = {f"m{i}": MinerProfile(hidden=32 * (1 + i % 4), steps=4 + i) for i in range(16)}
    profiles |= {"quiet": MinerProfile(behaviour="silent")}
    hosts = place(profiles, 3)
    assert sorted(name for host in hosts for name, _ in host) == sorted(profiles)
    work = [
        sum(12 * p.layers * p.hidden**2 * p.steps * p.batch_size for _, p in host if p.behaviour == "honest")
        for host in hosts
    ]
    assert max(work) / min(work) < 1.2 and all(hosts)
    assert all(len(host) == 2 for host in place({f"m{i}": MinerProfile(behaviour="silent") for i in range(6)}, 3))


def test_victims_are_the_honest_before_in_a_circle():
    profiles = dict(members("copy", "honest", "silent", "copy", "copy", "honest"))
    assert victims(profiles) == {"m0": "m5", "m3": "m1", "m4": "m1"}
    assert victims(dict(members("copy", "copy", "random"))) == {}


@pytest.mark.parametrize(
    "cpus, asked, miners, hosts",
    [(1.4, None, 8, 2), (15.4, None, 8, 8), (2.4, None, 8, 4), (1.4, 3, 8, 3), (1.4, None, 1, 1), (0.4, None, 8, 1)],
)
def test_number_of_hosts(cpus, asked, miners, hosts):
    assert num_hosts(config.Mining(num_hosts=asked), miners, cpus) == hosts


def test_number_of_hosts_counts_gpus():
    half = config.Mining(gpus_per_host=0.5)
    assert num_hosts(half, 32, 64.0, 4.0) == 8
    half.profiles = [MinerProfile(), MinerProfile(engine="fsdp2", ranks=1, gpus_per_rank=1)]
    assert num_hosts(half, 4, 64.0, 4.0) == 2  # two sharded miners take two GPUs; two others share hosts
    assert num_hosts(half, 32, 64.0, 0.0) == 1


@pytest.mark.parametrize("behaviour", ["honest", "constant", "random"])
@pytest.mark.parametrize(("kind", "horizon"), [("phrase", 3), ("completion", 3)])
def test_phrases_and_completions_are_answered_within_bounds(text, behaviour, kind, horizon):
    found = miner(text, behaviour, steps=30)
    found.train(1)
    rule = config.Query(
        kind=kind, horizon=horizon, rows=8, context=15, shortest=4, top_k=10, control_variate=False, baseline=False
    )
    mechanism = QueryMechanism(config.Mechanism(query=rule), text.log_unigram, V)
    task, sealed = mechanism.tasks(Ask(3, 1, "v", 1, ("a",)), State(), text)[0]
    response = found.answer(task)
    assert response.ids.shape == ((8, 10, 1) if kind == "phrase" else (8, 4, 3))
    assert isinstance(mechanism.score([Item(task, sealed, response)])[0], Score)
    if (behaviour, kind) != ("honest", "completion"):
        return
    # The first completion by hand: the likeliest token, again and again, and the product of its probabilities.
    context, whole = task.tokens[0, : task.lengths[0]].tolist(), 1.0
    for token in response.ids[0, 0].tolist():
        shown = np.array([context[-16:]], np.int32)
        ids, probs = top_tokens(found.engine.log_probs(shown, np.array([shown.shape[1]], np.int32)), 1)
        assert ids[0, 0] == token
        context.append(token)
        whole *= probs[0, 0]
    assert response.probs[0, 0] == pytest.approx(whole, rel=1e-4)
