"""Whether a journal belongs to the chain of a client: genesis is not enough, since a development chain can start anew.

In: a journal, a client. Out: nothing, or a refusal with the fix. The hash of block 1 is kept in the journal as soon as
that block is final; a chain with the same genesis and another block 1 is another chain, on which nothing of the journal
can land or has happened. Waits for: the answers of the node.
"""

from raytensor.chain.rpc.client import ChainClient
from raytensor.chain.writer.journal import Journal
from raytensor.errors import ConfigError

_FACT = "block 1"


def check_chain(journal: Journal, client: ChainClient) -> None:
    """Raises ConfigError if the chain was started anew since the journal was made."""
    if client.finalized().number < 1 or (now := client.find_block_hash(1)) is None:
        return
    rows = journal.rows("SELECT value FROM facts WHERE name = ?", (_FACT,))
    if not rows:
        with journal.transaction() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (_FACT, now))
    elif rows[0][0] != now:
        raise ConfigError(
            f"journal {journal.path} belongs to a chain that was started anew since: its block 1 was {rows[0][0][:18]} "
            f"and is {now[:18]} now. Nothing of it is open on this chain: move it aside, "
            f"mv {journal.path} {journal.path}.old"
        )
