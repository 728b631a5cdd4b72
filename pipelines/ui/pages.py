"""Pages of commands: files that open from a disk, without network access or scripts.

All but the demonstration's extend `pipelines.ui/base.html.j2`. The templates' environment and their look are
`concord.pages`'.
"""

from __future__ import annotations

from markupsafe import Markup

from concord.pages.environment import environment
from store import output


def render(template: str, command: str, **values: object) -> str:
    """A page of `command` (its name in `store.output.page`), from the template PACKAGE/FILE."""
    return environment().get_template(template).render(generator=Markup(output.head(command)), **values)
