"""A server of a store's pages in a thread of the test."""

import threading
from contextlib import contextmanager


@contextmanager
def serving(server):
    """The address http://HOST:PORT of what `store.serve` would run, while it answers."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:  # from outside its loop ends where it has nothing to listen to
        left = list(server._map.values())
        server._map.clear()
        thread.join()
        server.task_dispatcher.shutdown()
        for one in left:
            one.close()
