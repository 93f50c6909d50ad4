"""The pytest plugin of RayTensor: a chain, wallets and served miners for the tests of a subnet package.

    [tool.pytest.ini_options]
    raytensor_subnet = "mysubnet"        # what `subnet=` names

    def test_an_honest_miner_earns(served_miner):
        assert served_miner.play() and served_miner.weights[served_miner.hotkeys[0]] == 1.0

Every pytest loads it where RayTensor is installed, so it imports the rest for tests with its fixtures only.
"""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

INI = "raytensor_subnet"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini(INI, "the subnet package under test, as in `raytensor run subnet=NAME`", default="")


@pytest.fixture(scope="session")
def devnet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `raytensor.subnets.served.Devnet` for the session: the embedded chain, ten blocks a second."""
    chain = importlib.import_module("raytensor.subnets.served").Devnet(tmp_path_factory.mktemp("devnet"))
    yield chain
    chain.close()


@pytest.fixture
def funded_wallet(devnet: Any) -> Any:
    """(coldkey, hotkey) of a new wallet with 1000 TAO on the devnet, `WalletKey`s."""
    return devnet.wallet()


@pytest.fixture
def subnet_name(request: pytest.FixtureRequest) -> str:
    """The subnet under test, from the ini option; a test module with another one defines this fixture itself."""
    name = request.config.getini(INI)
    if not name:
        raise pytest.UsageError(f'served_miner: set {INI} = "NAME" in [tool.pytest.ini_options] of pyproject.toml')
    return name


@pytest.fixture
def served_miner(request: pytest.FixtureRequest, devnet: Any, subnet_name: str) -> Iterator[Any]:
    """A `raytensor.subnets.served.ServedMiner` of the subnet under test, with one honest miner; of other behaviours by
    `@pytest.mark.parametrize("served_miner", [("honest", "silent")], indirect=True)`."""
    behaviours = getattr(request, "param", ("honest",))
    miner = importlib.import_module("raytensor.subnets.served").ServedMiner(devnet, subnet_name, behaviours)
    yield miner
    miner.close()
