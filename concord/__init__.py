"""Shared by all packages: the root of all errors, the exit of commands, and the handling of files, names and secrets.

Of this project, `teachers` and `store` import only this package; it imports none of the others, so it can be used
anywhere.
"""

from concord.errors import ConcordError

__version__ = "0.1.0"
__all__ = ["ConcordError", "__version__"]
