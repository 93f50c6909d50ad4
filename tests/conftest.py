"""Fixtures that all tests share: one Ray session per worker, one cache of prepared text for all workers."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

# Set before anything imports ray: a local test cluster needs no token, and must not touch the user's.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# The processes that tests start compile the package once, not each one again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Models of a few thousand parameters: more threads only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import warm_workers

# The same examples on every machine, and none fails for being slow.
hypothesis.settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("same")

# Files that take longest, longest first: workers that end with a short file end together (--no-loadscope-reorder).
LONGEST = (
    "network/test_mine_job",
    "network/test_run",
    "devnet/test_bittensor11",
    "network/test_digests",
    "miners/test_fleet",
    "chain/test_chain_faults",
    "validate/test_validate_job",
    "sweep/test_sweep",
    "network/test_job",
    "network/test_kings",
    "miners/test_group",
    "devnet/test_node",
    "training/test_strategies",
    "network/test_deploy",
    "tests/test_pool",
    "validate/test_alarms",
    "miners/test_submissions",
    "chain/test_order_faults",
    "network/test_axons",
    "chain/test_seven_defects",
    "chain/test_connection",
    "validators/test_transport",
    "tests/test_config",
    "chain/test_handover",
    "devnet/test_nonsense",
    "chain/test_raise_everywhere",
    "training/test_pretrained",
    "chain/test_commit_reveal",
    "chain/test_wallet_interop",
    "chain/test_writer",
    "chain/test_one_writer",
    "devnet/test_restart",
    "training/test_damage",
    "validators/test_segments",
    "chain/test_renewal",
    "chain/test_wallet",
    "network/test_gateway",
    "devnet/test_subtensor_money",
    "miners/test_damaged_checkpoints",
)


gc.disable()  # while test files are imported, which leave next to no garbage; collections would take seconds


def pytest_collection_finish():
    """What was imported stays: no later collection looks at it."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """The longest files come first; slow tests are skipped unless RAYTENSOR_SLOW is set."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(f"{item.path.parent.name}/{item.path.stem}", len(ranks)))
    if not os.environ.get("RAYTENSOR_SLOW"):
        skip = pytest.mark.skip(reason="slow: set RAYTENSOR_SLOW=1 to run it")
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def ray_session(tmp_path_factory):
    """A real local Ray with four logical CPUs (tests ask for fractions, not for speed)."""
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    # Workers import the test modules by name, to find actor classes that are written in them.
    here = Path(__file__).parent
    folders = [here.parent, here, *(path for path in here.iterdir() if path.is_dir())]
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, folders))
    program, server = warm_workers.start(tmp_path_factory.mktemp("ray"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield ray
    ray.shutdown()
    server.communicate()  # closes its standard input, and so ends it


def _wait_idle(ray) -> None:
    end = time.monotonic() + 120
    while ray.available_resources().get("CPU", 0.0) < 4.0 and time.monotonic() < end:
        time.sleep(0.1)


@pytest.fixture
def idle_ray(ray_session):
    """The Ray session once no actor of an earlier test has CPUs, for tests that count them."""
    _wait_idle(ray_session)
    return ray_session


@pytest.fixture(scope="session")
def joining(ray_session):
    """Makes the environment of a command that joins the tests' Ray, once no actor of an earlier test has CPUs there.

    A Ray of its own would take some seconds to start and some to end.
    """

    def environment() -> dict[str, str]:
        _wait_idle(ray_session)
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "BT_", "RAYTENSOR_"))
        }
        address = ray_session.get_runtime_context().gcs_address
        more = {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled", "PYTHONUNBUFFERED": "1"}
        return clean | more | {"PYTHONPATH": str(Path(__file__).parents[1])}

    return environment


@pytest.fixture(scope="session", autouse=True)
def cache_dir(tmp_path_factory):
    """One cache of tokenizers and tokenized text for all workers; other processes find it in TEXT_CACHE."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "texts"
    folder.mkdir(exist_ok=True)
    os.environ["TEXT_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def s3_server():
    """URL of a real S3 server (moto's) on the loopback, in threads of this process, with one bucket, "tests"."""
    import logging
    import urllib.request

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    urllib.request.urlopen(urllib.request.Request(f"{url}/tests", method="PUT"), timeout=60).close()
    yield url
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """Gives a URL below the bucket for a name; this process and its children have the keys and the endpoint."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {"ENDPOINT_URL": s3_server, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"}
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return lambda name: f"s3://tests/{tmp_path.name}/{name}"


class SmallDisk:
    """A file system of 24 MiB in memory, at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Take all of its space."""
        with self._filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * size)

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def small_disk(tmp_path):
    """Skipped where this user may mount none."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield SmallDisk(folder)
    subprocess.run(["umount", "-l", str(folder)], check=True)
