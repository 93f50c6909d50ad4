"""A synthetic run with the shape of a real one: eight miners that learn at their own pace, three validators."""

from __future__ import annotations

import math
import random

import pytest

from raytensor.telemetry import events as ev

BEHAVIOURS = ["honest"] * 6 + ["copy", "silent"]


def synthetic_events(
    num_miners: int = 8, num_validators: int = 3, rounds: int = 12, start: float = 1_700_000_000.0, seed: int = 1
) -> list[ev.Event]:
    """The events of a whole run; uid 0 owns the subnet, then validators, then miners."""
    noise = random.Random(seed)
    validators = [f"5Val{n:02d}" + "V" * 42 for n in range(num_validators)]
    miners = [f"5Min{n:02d}" + "M" * 42 for n in range(num_miners)]
    neurons = [ev.NeuronInfo(0, "5Owner" + "O" * 42, "owner", "", "owner")]
    neurons += [ev.NeuronInfo(1 + n, key, "validator", "", f"validator-{n}") for n, key in enumerate(validators)]
    neurons += [
        ev.NeuronInfo(1 + num_validators + n, key, "miner", BEHAVIOURS[n % len(BEHAVIOURS)], f"miner-{n}")
        for n, key in enumerate(miners)
    ]
    t = start
    out: list[ev.Event] = [ev.Started(name="demo", rounds=rounds, seed=0, version="0.1.0", t=t)]
    out += [ev.Phase(text="starting Ray (about 7 s)", t=t + 0.5), ev.Phase(text="starting the chain", t=t + 7.5)]
    out += [
        ev.NetworkUp(
            endpoint="ws://127.0.0.1:40113", netuid=1, spec_version=318, tempo=20, neurons=tuple(neurons), t=t + 12
        )
    ]
    t += 14.0
    out.append(ev.Phase(text="playing rounds", t=t))
    block, sent, included = 30, 14, 14
    for number in range(1, rounds + 1):
        wall = 6.0 + noise.random()
        losses, values = {}, {}
        for n, key in enumerate(miners):
            behaviour = BEHAVIOURS[n % len(BEHAVIOURS)]
            if behaviour == "silent":
                continue
            floor = 4.0 + 0.12 * (n % 16) + (1.0 if behaviour == "copy" else 0.0)
            losses[key] = floor + 2.5 * math.exp(-number / 5) + 0.03 * noise.random()
            values[key] = max(0.0, 5.6 - losses[key]) ** 2
        for step in range(1, 13):
            block += 1
            now = t + wall * step / 13
            out.append(ev.BlockSeen(block=block, tempo=20, blocks_until_epoch=20 - block % 20, t=now))
            if block % 20 == 0:
                total = sum(values.values()) or 1.0
                paid = {key: value / total for key, value in values.items()}
                stake = {key: 0.7**n / sum(0.7**m for m in range(num_validators)) for n, key in enumerate(validators)}
                rao = {key: int(4_100_000_000 * share) for key, share in (paid | stake).items()}
                out.append(ev.EpochSeen(block=block, incentive=paid, dividends=stake, emission_rao=rao, t=now))
        for key in validators:
            made = {miner: value * (1 + 0.1 * noise.random()) for miner, value in values.items()}
            out.append(ev.WeightsMade(round=number, hotkey=key, values=made, t=t + wall - 0.5))
            out.append(
                ev.ReceiptSeen(
                    call="SubtensorModule.set_weights", signer=key, fate="included", block=block, t=t + wall - 0.1
                )
            )
        sent += num_validators
        included += num_validators
        out.append(ev.Extrinsics(submitted=sent, included=included, failed=0, t=t + wall - 0.05))
        t += wall
        silent = num_miners - len(losses)
        out.append(
            ev.RoundDone(
                round=number,
                rounds=rounds,
                wall_s=wall,
                train_s=wall * 0.6,
                ask_s=wall * 0.1,
                score_s=wall * 0.15,
                chain_s=wall * 0.1,
                idle_s=wall * 0.05,
                scored=len(losses) * num_validators,
                failures={"silent": silent * num_validators} if silent else {},
                losses=losses,
                values=values,
                t=t,
            )
        )
    out.append(ev.Stopped(reason="finished", t=t + 1.0))
    return out


@pytest.fixture
def make_events():
    return synthetic_events


@pytest.fixture
def run_events():
    return synthetic_events()
