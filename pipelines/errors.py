"""The ways in which a run of precompute.py can fail as a whole; faults of single clips are in the ledger."""

from concord.errors import ConcordError


class UsageError(ConcordError):
    """The request cannot be fulfilled and nothing was changed; the text says what to do."""


class RunError(ConcordError):
    """The run itself failed after it had begun to write; running it again continues where it stopped."""

    exit_code = 1
