"""What every package here shares: the root of all errors, how commands end, and how files, names and secrets are treated.

`teachers` and `store` import nothing else of ours; this package imports none of them, so it can be used anywhere.
"""

from concord.errors import ConcordError

__version__ = "0.1.0"
__all__ = ["ConcordError", "__version__"]
