"""Shows a store in the browser of this machine: its clips, what they sound and look like, failures, and the audit.

    python -m store.serve demo.zarr
    python -m store.serve s3://bucket/demo.zarr --port 0 --audit audit.json

It listens on 127.0.0.1 alone, answers until Ctrl-C, and writes nothing. Exit code 2 if the path is not a store, the
audit is none, or the port is taken; 130 or 143 when it is stopped.
"""

from __future__ import annotations

from concord.early import end_on_signals

if __name__ == "__main__":
    end_on_signals()

import errno
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import click

from concord import command, extras
from concord.errors import ConcordError
from store.place import place
from store.reader import Reader

HOST = "127.0.0.1"
PORT = 8520
THREADS = 6  # a player asks for pictures, sound and frames at the same time
# Idle connections are few bytes each, but whoever holds all of them would shut out the browser. The usual limit of open
# files is 1,024, and stores need some.
CONNECTIONS = 600
IDLE_S, LOOK_S = 30, 5  # how long a connection may be idle, and how often that is looked at


@click.command(cls=command.Command, epilog="Example: python -m store.serve demo.zarr")
@click.argument("path", metavar="STORE")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="Port on 127.0.0.1; 0: any free one."
)
@click.option(
    "--audit",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="JSON of an audit to show, instead of the store's own audit.json.",
)
@command.storage_options()
def main(path: str, port: int, audit: Path | None, options: dict[str, str]) -> None:
    """Show the clips of STORE in a browser on this machine."""
    extras.need("serve", "flask", "waitress")
    from store.serve.app import make_app
    from store.serve.showing import Shown

    command.log_to_stderr()
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns where a page asks for many pictures
    reader = Reader(path, options)
    shown = Shown(reader, place(audit) if audit else None)
    server = bound(make_app(shown), port)
    clips = f"{len(reader):,} clip{'' if len(reader) == 1 else 's'}"
    command.say(f"http://{HOST}:{server.effective_port}/ shows {shown.name}, {clips}; Ctrl-C ends it")
    # In a thread of its own: waitress takes signals for its own end, and then says nothing of them.
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    thread.join()


def bound(app: Any, port: int) -> Any:
    """A server of an application, listening on this machine alone; its `run` answers. Raises ConcordError for a port that it
    cannot have."""
    from waitress.server import create_server

    try:
        here = socket.create_server((HOST, port))
    except OSError as error:
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had ({error.strerror})"
        raise ConcordError(f"port {port} {why}; give another one, or --port 0 for any that is free") from error
    return create_server(
        app,
        sockets=[here],
        threads=THREADS,
        ident=None,
        clear_untrusted_proxy_headers=True,
        connection_limit=CONNECTIONS,
        channel_timeout=IDLE_S,
        cleanup_interval=LOOK_S,
        asyncore_use_poll=True,  # select takes no socket whose number is above 1,023
    )


if __name__ == "__main__":
    main()
