"""The command on whole folders: bad input costs one line each, and a killed run continues."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import sounds
from click.testing import CliRunner

from pipelines.corpora import manifest
from pipelines.forge.__main__ import main
from pipelines.tables import ledger

CLIPS = Path(__file__).parents[2] / "data" / "grid" / "clips"


def forge(*args: object) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*map(str, args), "--workers", "1"])
    return done.exit_code, done.output


def test_bad_input_costs_a_line_each_and_nothing_else(tmp_path):
    real = tmp_path / "videos" / "real"
    real.mkdir(parents=True)
    (real / "good.mp4").symlink_to(CLIPS / "bbaf2n.mp4")
    (real / "text.mp4").write_text("no video")
    sounds.write(real / "mute.mp4", CLIPS / "lgas5a.mp4")
    nothing = np.zeros((1, 3 * sounds.RATE), np.float32)
    sounds.write(real / "silent.mov", CLIPS / "pbwj2n.mp4", sounds.Track(nothing))
    code, said = forge(
        "--corpus", f"folder:{tmp_path / 'videos'}", "--out", tmp_path / "out", "--methods", "time-shift,audio-swap"
    )
    assert code == 3, said
    assert "1 real and 1 forged clips" in said
    found = {
        Path(entry.path).stem + " " + entry.stage: entry.reason for entry in ledger.read(tmp_path / "out").values()
    }
    assert found == {
        "good done": "",
        "text real": "unreadable",
        "mute real": "no_audio",
        "silent real": "no_speech",
        "good audio-swap": "no_donor",
    }
    assert {row.method for row in manifest.load(f"csv:{tmp_path / 'out' / 'manifest.csv'}")} == {"", "time-shift"}


def test_a_finished_clip_that_cannot_be_read_costs_a_line_and_is_named(tmp_path):
    """Damage that keeps the size is found when the sheet is drawn."""
    out = tmp_path / "out"
    words = "--corpus", f"grid:{CLIPS.parent}", "--limit", 1, "--out", out, "--methods", "time-shift"
    assert forge(*words)[0] == 0
    (clip,) = (out / "time-shift").glob("*.mp4")
    whole, rows = clip.read_bytes(), (out / "manifest.csv").read_text()
    clip.write_bytes(b"x" * len(whole))
    code, said = forge(*words)
    assert code == 3, said
    (line,) = [line for line in said.splitlines() if line.startswith(f"time-shift/{clip.stem}: ")]
    assert re.search(rf": unreadable: .*{re.escape(str(clip))}.*; remove it, and the next run makes it again", line)
    assert "1 real and 0 forged clips" in said
    assert ledger.read(out)[f"time-shift/{clip.stem}"].reason == "unreadable"
    assert {row.method for row in manifest.read(out / "manifest.csv")} == {""}
    clip.unlink()
    assert forge(*words)[0] == 0
    assert (clip.read_bytes(), (out / "manifest.csv").read_text()) == (whole, rows)


def test_corpora_without_real_clips_and_unknown_methods_change_nothing(tmp_path):
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").symlink_to(CLIPS / "bbaf2n.mp4")
    code, said = forge("--corpus", f"folder:{tmp_path / 'videos'}", "--out", tmp_path / "out")
    assert code == 2
    assert "is known to be real" in said
    assert forge("--corpus", f"grid:{CLIPS.parent}", "--out", tmp_path / "out", "--methods", "magic")[0] == 2
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_corpus_is_refused(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.mp4").symlink_to(CLIPS / "bbaf2n.mp4")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for out in (tmp_path, tmp_path / "real" / "forged", tmp_path / "link" / "forged"):
        code, said = forge("--corpus", f"folder:{tmp_path}", "--out", out)
        assert (code, "lies in the corpus" in said) == (2, True)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.mp4", "link", "real"]


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_bytes(tmp_path):
    options = [
        "--corpus",
        f"grid:{CLIPS.parent}",
        "--limit",
        "2",
        "--methods",
        "audio-swap,mouth-rewrite,revoice-same",
        "--workers",
        "1",
    ]
    command = [sys.executable, "-m", "pipelines.forge", *options, "--out"]
    subprocess.run([*command, tmp_path / "calm"], check=True)
    running = subprocess.Popen([*command, tmp_path / "killed"], start_new_session=True)
    while not list((tmp_path / "killed").glob("audio-swap/*.mp4")) and running.poll() is None:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    made = list((tmp_path / "killed").glob("*/*.mp4"))
    assert 0 < len(made) < 8
    assert not (tmp_path / "killed" / "manifest.csv").exists()
    subprocess.run([*command, tmp_path / "killed"], check=True)
    calm, killed = (
        {
            p.relative_to(tmp_path / kind): hashlib.sha256(p.read_bytes()).digest()
            for p in (tmp_path / kind).glob("*/*.mp4")
        }
        for kind in ("calm", "killed")
    )
    assert calm == killed
    assert len(calm) == 8
    texts = [(tmp_path / kind / "manifest.csv").read_text().replace(kind, "") for kind in ("calm", "killed")]
    assert texts[0] == texts[1]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_at_once_with_one_line(tmp_path, number, code):
    command = [sys.executable, "-m", "pipelines.forge", "--corpus", f"grid:{CLIPS.parent}", "--methods", "audio-swap"]
    running = subprocess.Popen(
        [*command, "--seed", "1", "--out", tmp_path / "f"], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    while not list((tmp_path / "f").glob("real/*.mp4")) and running.poll() is None:
        time.sleep(0.02)
    running.send_signal(number)
    said = running.communicate(timeout=20)[1]
    assert running.returncode == code, said
    assert "Error" not in said
    assert said.strip().splitlines()[-1].startswith("stopped")


@pytest.mark.slow
def test_partial_counts_only_finished_files(tmp_path):
    """A note without its clip, as a kill leaves it, is not in the manifest."""
    corpus = "--corpus", f"grid:{CLIPS.parent}", "--limit", 1
    assert forge(*corpus, "--out", tmp_path / "out", "--methods", "time-shift")[0] == 0
    (clip,) = (tmp_path / "out" / "time-shift").glob("*.mp4")
    before = clip.read_bytes()
    clip.unlink()
    assert forge(*corpus, "--out", tmp_path / "out", "--methods", "portrait")[0] == 0
    assert {row.method for row in manifest.read(tmp_path / "out" / "manifest.csv")} == {"", "portrait"}
    assert forge(*corpus, "--out", tmp_path / "out", "--methods", "time-shift")[0] == 0
    assert clip.read_bytes() == before
    assert {row.method for row in manifest.read(tmp_path / "out" / "manifest.csv")} == {"", "portrait", "time-shift"}
