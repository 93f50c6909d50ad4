"""Settings that `mine`, `validate` and `gateway` share: the jobs that use an operator's keys on any chain."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from raytensor.config.checks import ENVIRONMENT_NAME, NETWORK, Section, setting
from raytensor.config.groups import Paths


@dataclass
class Endpoints(Section):
    """How a chain is reached."""

    # finney, test, local or ws(s)://...; several, separated by commas, are tried in order. BT_NETWORK sets the default.
    network: str = setting("finney", form=NETWORK)
    # Seconds that any one request to the chain may take.
    timeout_s: float = 20.0

    @property
    def endpoints(self) -> list[str]:
        """The parts of `network`, in order of preference."""
        return [part.strip() for part in self.network.split(",") if part.strip()]


@dataclass
class Alerts(Section):
    """Where alarms go, and how often one that lasts is repeated."""

    # Seconds without an answer of the chain after which an alarm is raised: the state on it is then unknown.
    silent_s: float = 300.0
    # Name of an environment variable that holds a URL; alarms are POSTed there as JSON.
    webhook_env: str | None = setting(None, form=ENVIRONMENT_NAME)
    # Command to run on an alarm: the message is its last argument, the facts are JSON on its standard input.
    command: str | None = None
    # Seconds after which an alarm that still stands is repeated; the pause doubles up to repeat_most_s.
    repeat_s: float = 900.0
    # Longest pause between two repeats in seconds.
    repeat_most_s: float = 14400.0

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.repeat_most_s < self.repeat_s:
            yield "repeat_most_s", f"must be at least repeat_s ({self.repeat_s:g})"


@dataclass
class Operated(Section):
    """Whose keys a job uses, and where it writes."""

    # Folder of the wallets. BT_WALLET_PATH sets the default.
    wallet_path: str = "~/.bittensor/wallets"
    # File whose first line decrypts encrypted hotkeys (else BT_WALLET_PASSWORD_FILE or BT_WALLET_PASSWORD).
    password_file: str | None = None
    # Start although this process could read a coldkey of these wallets.
    allow_coldkey: bool = False
    # Print one JSON object per line instead of the view.
    json: bool = False
    # Folders.
    paths: Paths = field(default_factory=Paths)


def name_each_once(**lists: list) -> Iterator[tuple[str, str]]:
    """Conflicts of lists that must name something, and nothing twice; keys: names of the settings."""
    examples = {"hotkeys": "mywallet/myhotkey", "netuids": "1"}
    for name, values in lists.items():
        if not values:
            yield name, f"must name one or more: {name}=[{examples[name]}]"
        elif len(set(values)) < len(values):
            yield name, f"must name each once: {sorted(values)}"
