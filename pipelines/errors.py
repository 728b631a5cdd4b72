"""How a run of precompute.py can fail as a whole; what is wrong with one clip stands in the ledger."""


class UsageError(Exception):
    """The request cannot be carried out and nothing was changed; the text says what to do."""


class RunError(Exception):
    """The run itself failed after it had begun to write; running it again goes on where it stopped."""
