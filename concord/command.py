"""The base of all commands: each ends with a documented exit code and a line or two, and prints no control characters
and no secrets.

`Command` extends click's: -h and --version everywhere; an unexpected error gives one line and exit code 1, with its
traceback if --debug was given; Ctrl-C gives 130, SIGTERM 143; a closed pipe (`| head`) ends it quietly. `say` prints,
`log_to_stderr` makes logs do the same, and `storage_options` is the pair of options for buckets.
"""

from __future__ import annotations

import errno
import functools
import io
import logging
import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from concord import __version__, early, extras, secrets
from concord.commands import as_called, logged
from concord.errors import ConcordError
from concord.text import plain, plain_lines

LONGEST = 1200  # characters of an error
INTERRUPTED, TERMINATED = 130, 128 + signal.SIGTERM

_debug = False


def say(text: str = "", err: bool = False, **style: Any) -> None:
    """Print one line, safe for a terminal and without secrets; `style` is click's (fg, bold)."""
    text = plain(secrets.redact(as_called(text)))
    put(click.style(text, **style) if style else text, err)


def say_lines(text: str, err: bool = False) -> None:
    """Print a trusted text of several lines."""
    put(plain_lines(secrets.redact(as_called(text))), err)


def put(text: str, err: bool = False) -> None:
    """Print a text unchanged, such as JSON. If standard output cannot be written, the command ends with exit code 1:
    silently for a closed pipe (`| head`), with a line for a full disk."""
    try:
        click.echo(text, err=err)
    except OSError as error:
        if err:  # there is no other way to report it
            return
        _give_up_stdout()
        if error.errno != errno.EPIPE:
            say(f"Error: standard output cannot be written: {error.strerror}", err=True)
        sys.exit(1)


def fail(text: str, code: int) -> NoReturn:
    """End the command with a line and an exit code; inside an `except` also with the traceback, if --debug was given.

    A long line is cut: some errors quote what they could not read.
    """
    if _debug and (error := sys.exc_info()[1]) is not None:
        say_lines("".join(traceback.format_exception(error)).rstrip(), err=True)
    say(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}", err=True)
    sys.exit(code)


def told(error: BaseException) -> str:
    """An unexpected error, or one of the operating system, in one line for the user."""
    if isinstance(error, MemoryError):
        return "there is not enough memory; end other programs, or ask for less"
    if isinstance(error, RecursionError):
        return "something is nested too deeply to be read"
    if isinstance(error, UnicodeEncodeError):
        piece = ascii(error.object[max(0, error.start - 40) : error.end + 20])
        return f"{piece} is not Unicode text and cannot be written"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, OSError):
        if error.strerror:
            name = error.filename if isinstance(error.filename, str | bytes) else ""
            text = f"{os.fsdecode(name)}: {error.strerror}" if name else error.strerror
        text += "; make room and run it again" if error.errno == errno.ENOSPC else ""
    elif type(error).__module__ == "builtins":  # their texts alone say little: KeyError's is only a name
        text = f"{type(error).__name__}: {text}"
    return text


def _show_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked and not context.resilient_parsing:
        say(f"concord-av {__version__}")
        context.exit()


class _Ends(click.Command):
    """Handles the end of a command, whatever happens in it; it has -h and --version."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {"help_option_names": ["-h", "--help"], **(kwargs.get("context_settings") or {})}
        super().__init__(*args, **kwargs)
        about: dict[str, Any] = {"is_flag": True, "is_eager": True, "expose_value": False, "callback": _show_version}
        self.params.append(click.Option(["--version"], help="Show the version and exit.", **about))

    def get_help(self, ctx: click.Context) -> str:
        return as_called(super().get_help(ctx))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        extra |= {"prog_name": prog_name, "complete_var": complete_var, "windows_expand_args": windows_expand_args}
        run = functools.partial(super().main, standalone_mode=False, **extra)
        if not standalone_mode:
            return run(args)
        global _debug
        words = list(sys.argv[1:] if args is None else args)
        _debug = "--debug" in words
        _open_streams()
        for stream in (sys.stdout, sys.stderr):  # write the code of a character that cannot be encoded
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        with _terminable():
            sys.exit(_ended(lambda: run(words)))


def _open_streams() -> None:
    """If standard streams were closed (`>&-`), open /dev/null for them. Otherwise the next opened files would get their
    numbers, and output of libraries would go into those files."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the command like Ctrl-C, so that it cleans up, but with its own exit code."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set it
        yield
        return
    before = {number: signal.getsignal(number) for number in early.SIGNALS}
    if before[signal.SIGTERM] in (signal.SIG_DFL, early.ended):
        signal.signal(signal.SIGTERM, _terminated)
    if before[signal.SIGINT] is early.ended:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminated(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _ended(run: Callable[[], object]) -> int:
    """The exit code of the command; its errors become lines."""
    try:
        answer = run()
        sys.stdout.flush()
        return answer if isinstance(answer, int) else 0
    except SystemExit as stop:
        if stop.code == TERMINATED:
            say("stopped", err=True)
        raise
    except click.ClickException as error:
        return _shown(error)
    except click.Abort as error:
        if isinstance(error.__cause__, EOFError):  # from a truncated file: click treats it like Ctrl-D
            return _unforeseen(error.__cause__)
        say("stopped", err=True)
        return INTERRUPTED
    except ConcordError as error:
        with suppress(SystemExit):
            fail(f"Error: {' '.join(str(error).split())}", error.exit_code)
        return error.exit_code
    except Exception as error:
        return _unforeseen(error)


def _shown(error: click.ClickException) -> int:
    """click's own lines for an error, which may hold words of the command line."""
    error.message = plain(secrets.redact(str(error.message)))  # type: ignore[misc]  # its own line, not several
    lines = io.StringIO()
    error.show(file=lines)
    say_lines(lines.getvalue().rstrip("\n"), err=True)
    return error.exit_code


def _unforeseen(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):
        _give_up_stdout()
    if isinstance(error, ImportError) and (missing := extras.told(error)):
        with suppress(SystemExit):
            fail(f"Error: {missing}", ConcordError.exit_code)
        return ConcordError.exit_code
    hint = "" if _debug or isinstance(error, OSError | MemoryError) else "; --debug shows where"
    with suppress(SystemExit):
        fail(f"Error: {told(error)}{hint}", 1)
    return 1


def _give_up_stdout() -> None:
    """Discard the rest of standard output; otherwise flushing it at exit would fail again."""
    with suppress(OSError, ValueError):  # there is none, or it is not a file
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class Command(_Ends):
    """A click command with this handling; it gets --debug unless it has one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not any(param.name == "debug" for param in self.params):
            self.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help="Show tracebacks."))


class Group(_Ends, click.Group):
    """A click group whose commands have this handling."""


class _Formatter(logging.Formatter):
    """One line a message, safe for a terminal and without secrets; tracebacks by line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = plain(secrets.redact(logged(record)))
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        return plain_lines(secrets.redact(super().formatException(ei)))


def log_to_stderr(form: str = "%(message)s", dates: str | None = None) -> None:
    """Log warnings and errors to standard error, as `logging.basicConfig` would, in lines safe for a terminal."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(form, dates))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class FloatRange(click.FloatRange):
    """click's FloatRange for finite numbers: it would accept NaN."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number", param, ctx)
        return number


def json_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--json FILE, as parameter `json_file`: a path or "-"."""
    path = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
    return click.option("--json", "json_file", type=path, metavar="FILE", help=help)


def storage_options(name: str = "options") -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--storage-option and --storage-options-file; the command gets all options, the environment's too, as parameter `name`."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def with_options(
            *args: Any, storage_option: Sequence[str], storage_options_file: str | None, **rest: Any
        ) -> Any:
            try:
                found = secrets.from_environment()
                if storage_options_file is not None:
                    found.update(secrets.from_file(storage_options_file))
                secrets.know(found)
                found.update(_given(storage_option))
            except secrets.OptionError as error:
                raise click.UsageError(str(error)) from None
            return function(*args, **rest, **{name: found})

        first = click.option(
            "--storage-option",
            multiple=True,
            metavar="KEY=VALUE",
            help="For buckets (s3://, gs://), in addition to the environment: aws_region=eu-west-1, skip_signature=true; no "
            "secrets, since others can read command lines.",
        )
        second = click.option(
            "--storage-options-file",
            metavar="FILE",
            help="The same from a file that you alone can read, secrets too: JSON, or lines of KEY=VALUE.  [env var: "
            f"{secrets.VARIABLE} holds such lines]",
        )
        return first(second(with_options))

    return decorate


def _given(pairs: Sequence[str]) -> dict[str, str]:
    """Options of the command line. Raises OptionError, which does not show possible secrets."""
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key.strip() or not separator:
            raise secrets.OptionError("--storage-option takes KEY=VALUE, such as aws_region=eu-west-1")
        secrets.check_shown(key.strip(), value)
        found[key.strip()] = value
    return found
