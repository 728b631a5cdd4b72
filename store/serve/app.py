"""The pages of a store as a web application: GET and HEAD alone, for this machine's own browser.

Nothing is written. Clips are asked for by their row in the table, never by a path. An answer is only given to a host
called 127.0.0.1 or localhost, since a page from elsewhere may have its own name point to this machine (DNS rebinding);
other sites can neither read nor embed an answer, and pages load nothing from elsewhere and run no script but the one of
this package. Names and texts are strangers': templates escape them (`concord.pages`), scripts show them as text.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from flask import Flask, Response, abort, jsonify, request
from werkzeug.exceptions import HTTPException, SecurityError
from werkzeug.wsgi import wrap_file

from concord.command import told
from concord.pages.environment import environment, source
from concord.secrets import redact
from store.layout import StoreError
from store.serve import playing, showing
from store.serve.browse import Query
from store.serve.showing import Shown

HOSTS = ["127.0.0.1", "localhost"]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",  # faces stay out of the browser's cache, and another store may come to this address
}
WAIT_S = 1.5  # that a list waits for all clips to be read before it is shown without some
AHEAD = 1 << 16  # bytes of sound that are read together: 2 s
MOST_NUMBERS = 20  # shortcuts of an audit that are shown at once
AGAIN_S = 3  # after which such a list is loaded again

View = Callable[..., Any]


def make_app(shown: Shown) -> Flask:
    """The application that shows a store."""
    app = Flask(__name__, static_folder="static", template_folder=None)
    app.config["TRUSTED_HOSTS"] = HOSTS
    app.json.sort_keys = False  # type: ignore[attr-defined]
    views = Views(shown)
    rules: dict[str, View] = {
        "/": views.clips,
        "/clip/<int:row>": views.clip,
        "/clip/<int:row>/words.json": views.words,
        "/clip/<int:row>/frames.json": views.frames,
        "/clip/<int:row>/mouth/<int:number>.jpg": views.mouth,
        "/clip/<int:row>/thumbnail.jpg": views.thumbnail,
        "/clip/<int:row>/sound.wav": views.sound,
        "/compare": views.compare,
        "/swap.json": views.swap,
        "/failures": views.failures,
        "/audit": views.audit,
        "/style.css": views.style,
    }
    for rule, view in rules.items():
        app.add_url_rule(rule, view_func=view, methods=["GET"], provide_automatic_options=False)

    @app.after_request
    def guarded(response: Response) -> Response:
        response.headers.update(HEADERS)
        return response

    @app.errorhandler(HTTPException)
    def wrong(error: HTTPException) -> Any:
        if isinstance(error, SecurityError):  # another host: it learns nothing of the store
            return Response("this page answers to 127.0.0.1 and localhost alone\n", 400, mimetype="text/plain")
        return views.problem(error.description or error.name, error.code or 500)

    @app.errorhandler(StoreError)
    @app.errorhandler(OSError)
    def unreadable(error: StoreError | OSError) -> tuple[Any, int]:
        return views.problem(redact(told(error) if isinstance(error, OSError) else str(error)), 500)

    return app


class Views:
    """One method for each address."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def clips(self) -> Any:
        """The list of clips, or the choice of a second one to compare with (`with`)."""
        query, shown = Query.of(request.args), self._shown
        progress = shown.agreement.gather(WAIT_S) if query.reads else None
        page = shown.browser.page(query)
        shown.agreement.read(page.rows)
        response = self._page(
            "clips",
            query=query,
            progress=progress,
            page=page,
            rows=[showing.line(shown, row) for row in page.rows],
            choices={name: shown.browser.names(name) for name in ("corpus", "split", "method", "category")},
            first=self._first(),
        )
        if progress is not None and not progress.complete:
            response.headers["Refresh"] = str(AGAIN_S)
        return response

    def clip(self, row: int) -> Any:
        """The player of one clip; of one that is not done, why."""
        shown = self._with(row)
        query = Query.of(request.args)
        before, after = shown.browser.neighbours(query, row)
        return self._page(
            "clip",
            query=query,
            before=before,
            after=after,
            **showing.about(shown, row),
            tracks=[showing.track(shown, row)],
        )

    def words(self, row: int) -> Any:
        """The transcript of a clip."""
        return jsonify(playing.words(self._with(row).reader, row))

    def frames(self, row: int) -> Any:
        """A part of a clip's frames as numbers."""
        start = request.args.get("start", "0")
        if not (start.isascii() and start.isdigit() and len(start) < 10):
            abort(400, "start is a number of frames")
        return jsonify(playing.part(self._with(row).reader, row, int(start)))

    def mouth(self, row: int, number: int) -> Any:
        """A sheet of mouth crops."""
        return Response(playing.sheet(self._with(row).reader, row, number), mimetype="image/jpeg")

    def thumbnail(self, row: int) -> Any:
        """The mouth in the middle of a clip."""
        return Response(playing.thumbnail(self._with(row).reader, row), mimetype="image/jpeg")

    def sound(self, row: int) -> Any:
        """The sound of a clip, or the range of it that the browser asks for."""
        sound = playing.Sound(self._with(row).reader, row)
        body = wrap_file(request.environ, io.BufferedReader(sound, AHEAD), AHEAD)
        response = Response(body, mimetype="audio/wav", direct_passthrough=True)
        response.content_length = sound.size
        response.make_conditional(request, accept_ranges=True, complete_length=sound.size)
        return response

    def compare(self) -> Any:
        """Two players side by side."""
        rows = [self._row(name) for name in ("a", "b")]
        shown = self._shown
        return self._page("compare", tracks=[showing.track(shown, row) for row in rows], swaps=shown.swaps(*rows))

    def swap(self) -> Any:
        """How well the lips of one clip agree with the sound of another, frame by frame."""
        rows = [self._row(name) for name in ("a", "b")]
        return jsonify(showing.swap(self._shown, *rows))

    def failures(self) -> Any:
        """What failed, and why."""
        page, reason, text = (request.args.get(name, "") for name in ("page", "reason", "text"))
        number = int(page) if page.isascii() and page.isdigit() and len(page) < 10 else 1
        ledger = self._shown.ledger
        found = ledger.failures(reason, text[:200], number)
        return self._page(
            "failures", found=found, reasons=ledger.reasons(), reason=reason, text=text[:200], fault=ledger.fault
        )

    def audit(self) -> Any:
        """What an audit found."""
        shown = self._shown
        return self._page(
            "audit",
            audit=shown.audit,
            histogram=showing.histogram,
            row_of=shown.row_of,
            methods=shown.browser.names("method"),
            most=MOST_NUMBERS,
        )

    def style(self) -> Any:
        """The look of all pages of the project, and what these need beside it."""
        sheets = source("concord.pages/style.css"), source("store.serve/serve.css")
        return Response("\n".join(sheets), mimetype="text/css")

    def problem(self, text: str, code: int) -> tuple[Any, int]:
        """What went wrong in a sentence: as JSON for scripts, else as a page."""
        if request.path.endswith(".json"):
            return jsonify({"error": text}), code
        return self._page("problem", text=text), code

    def _page(self, name: str, **values: object) -> Response:
        template = environment().get_template(f"store.serve/{name}.html.j2")
        return Response(template.render(shown=self._shown, here=name, link=link, **values), mimetype="text/html")

    def _with(self, row: int) -> Shown:
        """What is shown; ends the request where there is no such clip."""
        if row >= len(self._shown.reader):
            abort(404, f"there is no clip {row}: the store has {len(self._shown.reader)}, counted from 0")
        return self._shown

    def _row(self, name: str) -> int:
        value = request.args.get(name, "")
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            abort(400, "a comparison takes two clips: choose the first in the list, then the second")
        row = int(value)
        if not self._with(row).reader.clip(row).done:
            abort(404, f"clip {row} is not done, so there is nothing to compare")
        return row

    def _first(self) -> showing.Track | None:
        """The clip that waits for a second one."""
        return showing.track(self._shown, self._row("with")) if request.args.get("with") else None


def link(path: str, **parameters: object) -> str:
    """An address of these pages; parameters that are None or "" are left out."""
    given = {name.rstrip("_"): value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path
