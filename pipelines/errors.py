"""How a run of precompute.py can fail as a whole; what is wrong with a single clip is in the ledger."""

from concord.errors import ConcordError


class UsageError(ConcordError):
    """The request cannot be carried out and nothing was changed; the text says what to do."""


class RunError(ConcordError):
    """The run itself failed after it had begun to write; running it again goes on where it stopped."""

    exit_code = 1
