"""How commands end: with a documented exit code and a line or two, whatever they read and wherever they write."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from concord import command
from pipelines.audit import __main__ as audit
from pipelines.manifest import __main__ as manifest_command

ROOT = Path(__file__).parents[2]
TWO_LINES = 2


def ran(main, *words):
    return CliRunner().invoke(main, [str(word) for word in words])


def broken(what):
    """A command in which that happens."""

    @click.command(cls=command.Command)
    def main():
        what()

    return main


def raising(error):
    def what():
        raise error

    return what


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyError("x"), 1, "Error: KeyError: 'x'; --debug shows where"),
        (MemoryError(), 1, "not enough memory"),
        (RecursionError("maximum recursion"), 1, "nested too deeply"),
        (OSError(28, "No space left on device", "/x/y"), 1, "/x/y: No space left on device; make room"),
        (PermissionError(13, "Permission denied", b"/\xff"), 1, "/\\udcff: Permission denied"),
        (UnicodeEncodeError("utf-8", "a\ud800", 1, 2, "no"), 1, "'a\\ud800' is not Unicode text"),
        (EOFError("the file ended"), 1, "EOFError: the file ended"),
        (ValueError("a\nb\x1b[2J"), 1, "ValueError: a b\\x1b[2J"),
        (ValueError("x" * 10_000), 1, " ... "),
        (click.UsageError("\x1b[2J\nb"), 2, "Error: \\x1b[2J\\nb"),
        (KeyboardInterrupt(), 130, "stopped"),
        (SystemExit(3), 3, ""),
    ],
)
def test_whatever_happens_is_a_line_and_a_code(error, code, says):
    done = ran(broken(raising(error)))
    assert done.exit_code == code
    assert says in done.stderr
    assert "Traceback" not in done.output
    assert all(line.isprintable() for line in done.stderr.split("\n"))
    assert len(done.stderr) < 2 * command.LONGEST
    again = ran(broken(raising(error)), "--debug")
    assert again.exit_code == code
    assert ("Traceback" in again.stderr) == (code == 1)


def test_a_group_ends_the_same_way():
    @click.group(cls=command.Group)
    def group():
        pass

    group.add_command(broken(raising(KeyError("\x1b"))), "one")
    assert ran(group, "one").stderr == "Error: KeyError: '\\x1b'; --debug shows where\n"
    assert ran(group, "\x1b[2J").exit_code == 2
    assert "\x1b" not in ran(group, "\x1b[2J").output


CHILD = """
import sys, logging, time
import click
from concord.command import Command, say, put, log_to_stderr
@click.command(cls=Command)
@click.argument("what")
def main(what):
    log_to_stderr()
    logging.getLogger("x").warning("%s", "\\x1b[2J\\nsecond https://u:hunter2@h/")
    if what == "wait":
        say("ready")
        time.sleep(60)
    for _ in range(3000):
        say("\\x1b[31m\\x9b\\u202e\\r " + what) if what != "json" else put('{"a": 1}')
main()
"""


@pytest.mark.parametrize("what", ["lines", "json"])
@pytest.mark.parametrize("where", ["gone", "full"])
def test_a_reader_that_went_away_is_quiet_and_a_full_disk_one_line(what, where):
    if where == "gone":
        read, out = os.pipe()
        os.close(read)
    else:
        out = os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", CHILD, what], stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    os.close(out)
    assert done.returncode == 1
    logged, *lines = done.stderr.splitlines()
    assert logged == "\\x1b[2J\\nsecond https://...@h/"
    full = ["Error: standard output cannot be written: No space left on device"]
    assert lines == (full if where == "full" else [])


def test_standard_error_that_is_full_and_a_terminal_of_letters_alone_change_no_exit_code():
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, stderr=full, cwd=ROOT)
    assert done.returncode == 2
    plain = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", CHILD, "é"], capture_output=True, cwd=ROOT, env=plain)
    assert done.returncode == 0
    assert done.stdout.startswith(b"\\x1b[31m\\x9b\\u202e\\r ")


def test_ctrl_c_is_130():
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as run:
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 130
    assert errors.splitlines()[-1] == "stopped"


ROOT = str(Path(__file__).parents[2])


def manifests(folder):
    """Files that are invalid or strange manifests, by name."""
    texts = {
        "empty.csv": "",
        "deep.csv": "path,identities\n/x/a.mp4," + "[" * 100_000 + "]" * 100_000 + "\n",
        "segments.csv": "path,audio_segments\n/x/a.mp4," + "[" * 100_000 + "\n",
        "infinite.csv": 'path,audio_segments\n/x/a.mp4,"[[0, Infinity]]"\n',
        "half.csv": 'path,label,identities\n/x/a.mp4,1,"[""\\ud800""]"\n/x/b.mp4,0,\n',
        "long.csv": "path,label\n/x/a.mp4," + "9" * 50_000 + "\n",
        "ragged.csv": "path,label\n/x/a.mp4,0,1,2,3\n",
        "quote.csv": 'path,label\n"/x/a.mp4,0\n',
        "double.csv": "path,id\n/x/a.mp4,a\n/x/b.mp4,a\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "latin.csv").write_bytes(b"path\n\xfc.mp4\n")
    (folder / "noise.csv").write_bytes(np.random.default_rng(0).bytes(3000))
    (folder / "noise.parquet").write_bytes(b"PAR1" + np.random.default_rng(1).bytes(500) + b"PAR1")
    pd.DataFrame({"path": ["/x/a.mp4"], "label": [[1, 2]]}).to_parquet(folder / "lists.parquet")
    pd.DataFrame({"path": ["/x/a.mp4"], "split": [{"a": 1}]}).to_parquet(folder / "dicts.parquet")
    pd.DataFrame({"path": [1, 2.5], "label": [True, None]}).to_parquet(folder / "numbers.parquet")
    pd.DataFrame({"nothing": [1]}).to_parquet(folder / "nothing.parquet")
    (folder / "folder.csv").mkdir()
    return [*sorted(path.name for path in folder.iterdir()), "missing.csv", "empty.csv/x.csv"]


def test_no_manifest_makes_a_command_print_more_than_two_lines(tmp_path):
    for name in manifests(tmp_path):
        file, out = tmp_path / name, tmp_path / "out"
        for main, words in (
            (manifest_command.main, ["--validate"]),
            (manifest_command.main, ["-o", out / "rows.csv", "--overwrite"]),
            (manifest_command.main, ["-o", out / "rows.parquet", "--overwrite"]),
            (audit.main, ["--json", out / "a.json", "--html", out / "a.html"]),
        ):
            done = ran(main, "--manifest", file, *words)
            assert done.exit_code in (0, 2, 3), (name, words, done.output[-500:])
            assert len(done.stderr.splitlines()) <= TWO_LINES, (name, done.stderr)
            assert done.exit_code != 2 or done.stderr
            assert "Traceback" not in done.output
            assert "--debug" not in done.output


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "rows.csv").write_text("path,label,split\n/x/a.mp4,0,train\n/x/b.mp4,1,test\n")
    return tmp_path / "rows.csv"


def test_what_cannot_be_written_is_named(rows, tmp_path):
    (tmp_path / "a.csv").mkdir()
    full = os.stat("/dev/full").st_rdev
    for place in (tmp_path / "a.csv", "/dev/full", rows / "x.csv", "/proc/x.csv", tmp_path / ("n" * 300), "s3://a b/x"):
        for main, option in (
            (manifest_command.main, "-o"),
            (audit.main, "--json"),
            (audit.main, "--html"),
        ):
            done = ran(main, "--manifest", rows, option, place)
            assert done.exit_code in (1, 2), (place, option, done.output)
            assert len(done.stderr.splitlines()) <= 4, done.stderr  # click's usage has four
            assert "Traceback" not in done.output
    assert os.stat("/dev/full").st_rdev == full  # a device, not a file in its place


def test_devices_and_pipes_are_written_to_and_stay(rows, tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    reading = os.open(tmp_path / "pipe.csv", os.O_RDONLY | os.O_NONBLOCK)
    done = ran(manifest_command.main, "--manifest", rows, "-o", tmp_path / "pipe.csv")
    assert done.exit_code == 0, done.output
    assert os.read(reading, 1000).startswith(b"path,audio_path")
    os.close(reading)
    os.mkfifo(tmp_path / "pipe.json")
    reading = os.open(tmp_path / "pipe.json", os.O_RDONLY | os.O_NONBLOCK)
    assert ran(audit.main, "--manifest", rows, "--json", tmp_path / "pipe.json").exit_code == 0
    assert json.loads(os.read(reading, 65536))["rows"] == 2
    os.close(reading)
    assert (tmp_path / "pipe.csv").is_fifo()
    assert (tmp_path / "pipe.json").is_fifo()


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_no_number_is_not_in_a_range(rows, number):
    done = ran(audit.main, "--manifest", rows, "--allow", number)
    assert done.exit_code == 2
    assert "Invalid value for '--allow'" in done.stderr


CLOSED = ("<&-", ">&-", "2>&-", "<&- >&- 2>&-")
SMALL = "import os, click; from concord.command import Command\n"
SMALL += "@click.command(cls=Command)\ndef main():\n    assert os.open('/dev/zero', os.O_RDONLY) > 2\nmain()"
MANIFEST, AUDIT = ("-m", "pipelines.manifest"), ("-m", "pipelines.audit")


@pytest.mark.parametrize(
    ("words", "closed"),
    [
        *((("-c", SMALL), closed) for closed in CLOSED),
        *((MANIFEST, closed) for closed in CLOSED[::3]),
        *((AUDIT, closed) for closed in CLOSED[1::2]),
        *(pytest.param(MANIFEST, closed, marks=pytest.mark.slow) for closed in CLOSED[1:3]),
        *(pytest.param(AUDIT, closed, marks=pytest.mark.slow) for closed in CLOSED[::2]),
    ],
)
def test_closed_standard_streams_change_nothing(rows, tmp_path, words, closed):
    """And no file that a command opens gets their numbers, to which libraries print."""
    if words[0] == "-m":
        words = (*words, "--manifest", rows, *(("--json", tmp_path / "a.json") if words == AUDIT else ()))
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, *words]
    done = subprocess.run(shell, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


# Short waits: a signal that comes just before a long one would be looked at only after it.
STUCK = "import sys, time; print('here', flush=True)\nfor _ in range(600): time.sleep(0.1)"
EARLY = ["precompute.py", "-m concord", "-m store.inspect", "-m pipelines.audit", "-m pipelines.manifest"]
EARLY += ["-m pipelines.doctor", "-m pipelines.default_fit", "-m pipelines.demo", "-m student.predict"]
EARLY += ["-m student.evaluate", "-m student.export", "-m student.check", "-m student.train"]


@pytest.mark.parametrize("words", EARLY)
def test_a_signal_while_a_command_is_imported_has_its_exit_code(tmp_path, words):
    (tmp_path / "click.py").write_text(STUCK)  # what every command imports, and what takes its time here
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    words = [str(os.path.join(ROOT, word)) if word.endswith(".py") else word for word in words.split()]
    for number in (signal.SIGINT, signal.SIGTERM):
        with subprocess.Popen(
            [sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=env
        ) as run:
            assert run.stdout.readline() == "here\n"
            run.send_signal(number)
            _, errors = run.communicate(timeout=60)
        assert run.returncode == 128 + number
        assert errors in ("stopped\n", "")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As under nohup."""
    code = "import signal; signal.signal(2, signal.SIG_IGN); from concord import early; early.end_on_signals()\n"
    code += "import os; os.kill(os.getpid(), 2); print('goes on')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "goes on\n"


def test_sigterm_clears_up_and_is_143():
    waiting = '        say("ready")\n        time.sleep(60)\n'
    assert waiting in CHILD
    code = CHILD.replace(
        waiting,
        "        try:\n"
        + waiting.replace("  say", "      say").replace("  time", "      time")
        + "        finally: say('cleared')\n",
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as run:
        assert run.stdout.readline() == "ready\n"
        run.send_signal(signal.SIGTERM)
        said, errors = run.communicate(timeout=60)
    assert run.returncode == 143
    assert said == "cleared\n"
    assert errors.splitlines()[-1] == "stopped"


# -- before the packages are there -----------------------------------------------------------------------------------------


def bare(*words):
    """What Python says that sees no installed package."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [sys.executable, "-S", *words]
    return subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True)


@pytest.mark.parametrize(
    "words",
    [
        "precompute.py",
        "student/train.py",
        "-m store.inspect",
        "-m teachers.fetch",
        "-m student.predict",
        "-m concord train",
    ],
)
def test_started_without_the_environment_a_command_says_in_a_line_what_to_do(words):
    done = bare(*words.split(), "--help")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"Error: click is not installed for {sys.executable}: ")
    assert re.search(r"source \S*\.venv/bin/activate|make install", line)


def test_a_python_that_is_too_old_and_an_extra_have_lines_too_and_our_own_faults_a_traceback():
    begin = "from concord import early; early.OLDEST = {}; early.explain_missing(); import {}"
    done = bare("-c", begin.format((99, 0), "concord"))
    assert (done.returncode, "Error: Python 99.0 or later is needed, and this is 3." in done.stderr) == (2, True)
    done = bare("-c", begin.format((3, 11), "whisper"))
    expected = "Error: this needs whisper, which the extra 'predict' brings: pip install 'concord-av[predict]'\n"
    assert (done.returncode, done.stderr) == (2, expected)
    done = bare("-c", begin.format((3, 11), "concord.nosuch"))
    assert (done.returncode, "Traceback" in done.stderr) == (1, True)
