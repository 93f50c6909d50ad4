"""The behaviours of miners: one row for each.

In: nothing. Out: `BEHAVIOURS`, which the checks, the help texts, the miners and the plots read. To add a behaviour,
add a row here and a class in `miners/behaviours.py`. Knows nothing of models.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Behaviour:
    """What one behaviour is.

    help          what the miner does, for `--help`.
    mechanism     "": in every mechanism; "files": where miners submit checkpoints; "collab": where they train one
                  model together.
    trains_every  rounds between two trainings of a model of its own; 0: it trains none.
    copies        answers or submits what another miner did.
    colour        in plots.
    """

    help: str
    mechanism: str = ""
    trains_every: int = 0
    copies: bool = False
    colour: str = "#b07a55"

    @property
    def trains(self) -> bool:
        """Whether it trains a model of its own."""
        return self.trains_every > 0


BEHAVIOURS = {
    "honest": Behaviour("trains every round", trains_every=1, colour="#2b8cc4"),
    "lazy": Behaviour("trains every tenth round", trains_every=10, colour="#e69f00"),
    "copy": Behaviour("gives another miner's answers or file", copies=True, colour="#d55e00"),
    "constant": Behaviour("answers with the frequencies of the tokens", colour="#d0689f"),
    "random": Behaviour("guesses, or submits a model that was never trained", colour="#8f7be0"),
    "silent": Behaviour("gives no answer", colour="#8d8d8d"),
    "wrong_data": Behaviour("trains on text that it was not assigned", "collab"),
    "sign_flip": Behaviour("sends the negated update, ten times as large", "collab"),
    "stale": Behaviour("sends its last update again", "collab"),
    "huge": Behaviour("sends a million times its update", "collab"),
    "nan": Behaviour("sends values that are not numbers", "collab"),
    "copy_noise": Behaviour("submits another miner's file with a little noise", "files", copies=True),
}
_WHERE = {
    "collab": "with mechanism=collab also",
    "files": "with a mechanism that asks for files (mechanism=model_eval) also",
}


def help_text() -> str:
    """All behaviours with their help, for the setting `behaviour`."""
    parts = []
    for mechanism, lead in {"": "", **_WHERE}.items():
        rows = [f"{name} ({row.help})" for name, row in BEHAVIOURS.items() if row.mechanism == mechanism]
        parts.append(f"{lead} {' | '.join(rows)}".strip())
    return "; ".join(parts)
