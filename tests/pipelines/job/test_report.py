"""Last lines, exit codes, report.json and report.html, the timeline picture, and the one command in front of all."""

import json
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from small_store import make_store

import store
from pipelines.demo import timeline as picture
from pipelines.errors import UsageError
from pipelines.job import report, report_data, report_page, request
from pipelines.job.request import Config
from pipelines.job.usage import Summary, Usage
from pipelines.tables import ledger
from pipelines.tables.ledger import Entry
from pipelines.workers.work import Span
from store import layout, similarity
from store.place import place

ROOT = Path(__file__).parents[3]
FAILED = Entry("c/a.mp4", "/a.mp4", "decode", "truncated", "/a.mp4 is incomplete")


@pytest.mark.parametrize(("failed", "allowed", "code"), [(0, 0.0, 0), (1, 0.0, 3), (2, 0.02, 0), (3, 0.02, 3)])
def test_exit_code_is_3_for_more_failures_than_allowed(failed, allowed, code):
    assert report.exit_code(Summary(clips=100, done=100 - failed, failed=[FAILED] * failed), allowed) == code


def test_last_lines_count_what_was_noted_about_clips():
    still, two = "the picture stands still from {} s to 2.6 s", "the file has two sound tracks"
    notes = [still.format(1.2), f"{two}\n{still.format(0.4)}", two, two]
    said = report.text(Summary(clips=9, done=9, notes=notes), Config(Path("/s"))).splitlines()
    at = said.index("notes on 4 clips, all in the ledger:")
    assert said[at + 1 : at + 3] == [f"  3: {two}", f"  2: such as {still.format(1.2)}"]
    assert "notes" not in report.text(Summary(clips=9, done=9), Config(Path("/s")))


def test_last_lines_name_failures_and_where_all_are():
    said = report.text(
        Summary(clips=20, done=8, worked=8, seconds=4, video_seconds=24, failed=[FAILED] * 12), Config(Path("/s"))
    )
    assert "6.0 times real time" in said
    assert "12 failed: 12 decode/truncated" in said
    assert "c/a.mp4: /a.mp4 is incomplete" in said
    assert "2 more" in said
    assert "/s/ledger.parquet" in said


def test_nothing_to_do_is_said():
    assert "nothing to do" in report.text(Summary(clips=2, done=2), Config(Path("/s")))


HOSTILE = "/c/<img src=x onerror=alert(1)>/\u202egpj\x1b[31m\x00 \"'&amp;</code></li></script>.mp4"


@pytest.fixture
def ran(tmp_path):
    """A store of 10 clips whose last 4 are not done, its ledger, and what a run over it counted."""
    root = make_store(tmp_path / "s.zarr", {"train": 10}, frames=50, broken=4)
    ids = store.open(root).clips["id"].tolist()
    entries = [Entry(i, f"/c/{i}.mp4", "done", seconds=1.0 + k) for k, i in enumerate(ids)]
    entries[6] = Entry(ids[6], HOSTILE, "decode", "truncated", f"{HOSTILE}: cut <b>short</b>")
    entries[7] = Entry(ids[7], "/c/b.mp4", "decode", "truncated", "/c/b.mp4: cut short")
    entries[8] = Entry(ids[8], "/c/c.mp4", "asr", "memory", "/c/c.mp4: no memory", attempts=2)
    ledger.write(place(root), entries[:9])  # the last was not come to
    summary = Summary(worked=6, video_seconds=12.0)
    summary.usage.begun = time.time() - 1900
    spans = [
        ("face", "n:1", 500, 1500, 3),
        ("face", "n:2", 500, 1500, 3),
        ("asr", "n:3", 1500, 1600, 6),
        ("vsr", "n:4", 1600, 1700, 6),
    ]
    summary.usage.add(
        Span(stage, worker, summary.usage.begun + a, summary.usage.begun + b, clips, 50 * clips, 55 * clips)
        for stage, worker, a, b, clips in spans
    )
    summary.parts.seconds = {"start": 4.0, "headers": 1.0, "pass one": 18.0, "fit": 3.0, "labels": 2.0}
    summary.parts.jobs_s = dict(summary.parts.seconds)
    return summary, Config(place(root)), ledger.read(place(root))


def gathered(ran, state="ended", message=""):
    """What report.json holds."""
    return json.loads(json.dumps(report_data.to_json(report_data.gather(*ran, state, message)), allow_nan=False))


def page(ran, state="ended", message=""):
    return report_page.page(report_data.gather(*ran, state, message))


def test_the_report_has_the_fields_that_the_docs_name(ran):
    text = (ROOT / "docs" / "precompute.md").read_text().partition("## The report")[2].partition("\n## ")[0]
    told = {
        name for line in text.splitlines() if line.startswith("| `") for name in line.split("|")[1].split("`")[1::2]
    }
    data = gathered(ran)
    assert set(data) == told
    for name in data:
        line = next(line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line.split("|")[1])
        inner = data[name][0] if isinstance(data[name], list) else data[name]
        if name == "stages":
            inner = inner["face"]
        if isinstance(inner, dict) and name not in ("parts", "timeline"):
            assert set(inner) <= set(line.split("`")[1::2]), name


def test_counts_hours_and_what_is_left(ran):
    data = gathered(ran)
    assert data["version"] == 1
    assert {k: data["clips"][k] for k in ("total", "done", "failed", "left", "this_run")} == {
        "total": 10, "done": 6, "failed": 3, "left": 1, "this_run": 6,
    }  # fmt: skip
    assert data["clips"]["hours"] == pytest.approx(6 * 50 / 25 / 3600, rel=1e-5)
    assert data["run"]["state"] == "ended"
    assert data["parts"]["pass one"] == 18
    assert data["parts"]["other"] >= 0
    assert data["labels"] is None
    assert data["machine"]["nodes"] == 1


def test_floats_of_the_report_have_six_digits_and_those_that_are_not_finite_are_null(ran):
    ran[0].video_seconds, ran[0].parts.seconds["fit"] = 1 / 3, float("nan")
    data = gathered(ran)
    assert data["clips"]["hours"] == 0.00333333
    assert data["clips"]["this_run_hours"] == 9.25926e-05
    assert data["parts"]["fit"] is None


def test_stages_tell_speed_padding_and_which_one_limits(ran):
    data = gathered(ran)
    face = data["stages"]["face"]
    assert (face["workers"], face["clips"], face["utilisation"]) == (2, 6, 1)
    assert (face["share"], data["stages"]["asr"]["share"]) == pytest.approx((1 / 1.2, 0.1 / 1.2), rel=1e-4)  # of 1200 s
    assert face["clips_per_s_a_worker"] == pytest.approx(0.003)
    assert face["ms_a_frame"] == pytest.approx(2_000_000 / 300, rel=1e-5)
    assert face["padding"] == pytest.approx(0.1)
    assert data["limit"]["stage"] == "face"
    assert "2 workers were busy 83% of the time. More CPU cores" in data["limit"]["text"]
    assert sum(data["timeline"]["clips_per_s"]["face"]) * data["timeline"]["bin_s"] == pytest.approx(6)
    assert max(data["timeline"]["busy"]["face"]) == pytest.approx(2)


def test_a_teacher_or_nothing_may_limit_a_run():
    used = Usage(begun=0.0)
    used.add([Span("face", "a", 0, 1, 1, 9, 9), Span("face", "a", 9, 10, 1, 9, 9)], 1e9)
    assert "No stage was busy" in report_data.limit(used, 12).text
    used.add([Span("asr", "b", 1, 9, 2, 18, 18)], 1e9)
    assert "Raise --asr-workers" in report_data.limit(used, 12).text
    assert "had work for 8 of 60 s" in report_data.limit(used, 60).text
    assert report_data.limit(Usage(), 12) is None


def test_words_count_as_work(ran):
    summary, config, _ = ran
    at = summary.usage.begun + 1700
    summary.usage.add(Span("words", worker, at, at + 100, 3, 150, 150) for worker in ("n:5", "n:6"))
    data = gathered(ran)
    assert (data["stages"]["words"]["clips"], data["stages"]["words"]["workers"]) == (6, 2)
    assert data["stages"]["words"]["clips_per_s_a_worker"] == pytest.approx(0.03)
    rows = {row["name"]: row for row in data["cost"]["rows"]}
    assert rows["words"]["core_hours"] == pytest.approx(1000 * 200 / 12, rel=1e-5)
    assert rows["work"]["core_hours"] == pytest.approx(1000 * 2403 / 12, rel=1e-5)
    assert "Words" in page(ran)
    assert "  words" in report.text(summary, config)


def test_a_run_that_only_wrote_words_says_so():
    summary = Summary(clips=6, done=6, seconds=120)
    summary.usage.add([Span("words", "n:5", 0, 100, 6, 300, 300)])
    said = report.text(summary, Config(Path("/s"))).splitlines()
    assert said[0] == "no clip was missing; the words of 6 were written, in 120 s"
    assert "nothing to do" not in " ".join(said)
    assert "Writing words limits the run: its 1 worker was" in report_data.limit(summary.usage, 100).text


def test_failures_are_counted_by_reason_with_examples(ran):
    first, second = gathered(ran)["failures"]
    assert (first["stage"], first["reason"], first["clips"], first["again"]) == (
        "decode",
        "truncated",
        2,
        "--retry-failed",
    )
    assert first["examples"][0]["path"] == HOSTILE
    assert (second["reason"], second["again"]) == ("memory", "next run")
    many = [Entry(str(k), "/x", "face", "no_face", "m") for k in range(100)]
    assert [len(kind.examples) for kind in report_data.failures(many)] == [report_data.EXAMPLES]
    assert gathered(ran)["retries"] == {"again": 1, "crashed": 0, "breaks": 0}


def test_slowest_clips_come_first_with_their_length(ran):
    data = gathered(ran)["slowest"]
    assert [clip["seconds"] for clip in data] == [6, 5, 4, 3, 2, 1]
    assert data[0]["video_s"] == 2
    assert data[0]["per_video_s"] == 3


def test_cost_is_what_workers_were_busy_for_by_the_hour_of_video(ran):
    rows = {row["name"]: row for row in gathered(ran)["cost"]["rows"]}
    assert rows["face"]["core_hours"] == pytest.approx(1000 * 2000 / 12, rel=1e-5)
    assert rows["asr"]["core_hours"] == pytest.approx(1000 * 100 / 12, rel=1e-5)
    assert rows["headers and labels"]["core_hours"] == pytest.approx(1000 * 3 / 12, rel=1e-5)
    assert rows["work"]["core_hours"] == pytest.approx(1000 * 2203 / 12, rel=1e-5)
    assert rows["work"]["usd"] == pytest.approx(rows["work"]["core_hours"] * report_data.CORE_PRICE, rel=1e-5)
    on_gpu = report_data.cost(*ran[:2], report_page.Machine(nodes=1, cpus=4, gpus=1), 30.0)
    rows = {row.name: row for row in on_gpu.rows}
    assert (rows["face"].gpu_hours, rows["asr"].core_hours) == (0, 0)
    assert rows["asr"].gpu_hours == pytest.approx(1000 * 100 / 12 / 2)  # both teachers share the one
    assert rows["as this run went"].gpu_hours == pytest.approx(1000 * 27 / 12)
    assert report_data.cost(Summary(), ran[1], report_page.Machine(nodes=1, cpus=4), 30.0) is None


def test_secrets_on_the_command_line_stay_off_the_report():
    words = [
        "/x/precompute.py",
        "--corpus",
        "grid:/my clips",
        "--storage-option",
        "k=hunter2",
        "--storage-option=a=b=c",
    ]
    said = request.command(words)
    assert said == "precompute.py --corpus 'grid:/my clips' --storage-option k=... --storage-option=a=..."


class Outline(HTMLParser):
    """Checks that tags close in order, and keeps tags, attributes and text."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def outline(text: str) -> Outline:
    found = Outline()
    found.feed(text)
    assert found.open == []
    return found


def test_hostile_names_are_shown_and_do_nothing(ran):
    found = outline(page(ran))
    assert not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    assert not {name for name, _ in found.attributes if name.startswith("on") or name in ("src", "href")}
    text = "".join(found.text)
    assert "/c/<img src=x onerror=alert(1)>/\\u202egpj\\u001b[31m\\u0000 \"'&amp;</code></li></script>.mp4" in text
    assert "cut <b>short</b>" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_a_page_needs_no_network_and_follows_the_readers_colours(ran):
    text = page(ran)
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "prefers-color-scheme:dark" in text
    assert "width=device-width" in text


@pytest.mark.parametrize(
    ("state", "message", "head", "next_step"),
    [
        ("ended", "", "6 of 10 clips are done, 3 failed, 1 still to do", "--retry-failed"),
        ("stopped", "by Ctrl-C", "Stopped: 6 of 10 clips are done", "Stopped by Ctrl-C."),
        ("failed", "the node <b>went</b>", "The run failed: 6 of 10 clips are done", "The node <b>went</b>."),
        ("running", "", "Under way: 6 of 10 clips are done", "it was killed"),
    ],
)
def test_the_first_sentences_say_what_happened_and_what_to_do(ran, state, message, head, next_step):
    found = outline(page(ran, state, message))
    text = "".join(found.text)
    assert head in text
    assert next_step in text
    assert ("http-equiv", "refresh") in found.attributes or state != "running"


def test_a_complete_store_is_said_to_be_and_how_to_train_on_it(tmp_path):
    root = make_store(tmp_path / "s.zarr", {"train": 1}, fit=False)
    store.Writer.open(root).update_attrs({"similarity": {"kind": "cca", "fitted_on": {"clips": 1, "frames": 9}}})
    text = "".join(outline(page((Summary(), Config(place(root)), {}))).text)
    assert "The one clip is done" in text
    assert "student/train.py --store" in text
    assert "No clip was processed in this run" in text


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (KeyboardInterrupt(), "stopped", "by Ctrl-C"),
        (SystemExit(143), "stopped", "by signal 15"),
        (OSError("trace\nback\nno space left"), "failed", "no space left"),
    ],
)
def test_a_run_that_ends_early_leaves_a_report(ran, error, state, message):
    summary, config, entries = ran

    def run():
        with report_data.kept(summary, config, entries):
            raise error

    with pytest.raises(type(error)):
        run()
    data = json.loads((config.store / "report.json").read())
    assert (data["run"]["state"], data["run"]["message"]) == (state, message)
    assert summary.report == f"{config.store}/report.html"


def test_a_run_without_work_leaves_the_report_of_the_last_one(ran):
    _, config, entries = ran

    def refused():
        with report_data.kept(Summary(), config, entries):
            raise UsageError("no")

    with report_data.kept(Summary(), config, entries):
        pass
    with pytest.raises(UsageError):
        refused()
    assert not (config.store / "report.json").exists()
    assert not (config.store / "report.html").exists()


def test_a_report_is_there_while_the_run_goes_on(ran, monkeypatch):
    summary, config, entries = ran
    monkeypatch.setattr(report_data, "EVERY_S", 3600.0)
    with report_data.kept(summary, config, entries) as now:
        now()
        assert not (config.store / "report.json").exists()  # not that often
        monkeypatch.setattr(report_data, "EVERY_S", 0.0)
        now()
        assert json.loads((config.store / "report.json").read())["run"]["state"] == "running"
    assert json.loads((config.store / "report.json").read())["run"]["state"] == "ended"


def test_a_report_that_cannot_be_written_costs_a_warning(ran, caplog, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(report_data, "write", full)
    with report_data.kept(*ran):
        pass
    assert "no report was written: No space left" in caplog.text


def test_reports_go_into_buckets_too(ran, s3):
    report_data.write(place(s3), report_data.gather(*ran, "ended", ""))
    assert (place(s3) / "report.html").read().startswith(b"<!doctype html>")
    assert json.loads((place(s3) / "report.json").read())["version"] == 1


def test_last_lines_name_the_report():
    said = report.text(Summary(clips=1, done=1, worked=1, report="/s/report.html"), Config(Path("/s")))
    assert said.splitlines()[-1] == "report: /s/report.html"


@pytest.fixture
def small(tmp_path):
    """A store of one clip of noise, with a fit and two words."""
    rng = np.random.default_rng(0)
    attrs = {"teachers": {"asr": {"dim": 6}, "vsr": {"dim": 4}}, "similarity": {}, "corpora": ["c"]}
    writer = store.create(tmp_path / "s.zarr", {"asr": 6, "vsr": 4}, attrs)
    columns = {
        "id": ["c/x"],
        "corpus": ["c"],
        "label": [0],
        "offset": [0],
        "capacity": [75],
        "length": [75],
        "done": [1],
    }
    writer.append_clips(columns)
    writer.grow_rows(75)
    writer.ensure_projections(3)
    shard = writer.blank_shard()
    shard["mouth"][:75] = rng.integers(0, 255, (75, 96, 96))
    shard["audio"][:75] = rng.integers(-9000, 9000, (75, 640))
    shard["flags"][:75] = layout.IN_USE | layout.FACE_DETECTED
    shard["flags"][20:60] |= layout.VOICE_ACTIVE
    for name in layout.PROJECTIONS:
        shard[name][:75] = rng.standard_normal((75, 3))
    shard["similarity"][:75] = 0.5
    writer.write_shard(0, shard)
    zero, one = np.zeros(4), np.ones((4, 3))
    fit = similarity.Fit("cca", 0, zero, one, np.zeros(6), np.ones((6, 3)), np.ones(3)).calibrated(
        "c", {"5": (2.0, 0.0)}
    )
    writer.write_fit(fit.to_arrays())
    writer.write_words(
        {"clip": [0, 0], "start": [0.8, 1.2], "end": [1.1, 1.6], "text": ["hello", "you"], "probability": [1, 1]}
    )
    return store.open(tmp_path / "s.zarr")


def test_timeline_is_drawn(small, tmp_path):
    from matplotlib import image

    picture.timeline(small, 0, tmp_path / "t.png", "a clip")
    drawn = image.imread(tmp_path / "t.png")
    assert drawn.shape[1] > 1000
    colours = (255 * drawn[..., :3]).astype(int) @ [1, 256, 256**2]
    assert len(np.unique(colours)) > 100


@pytest.mark.parametrize("name", ["precompute", "train", "evaluate", "inspect"])
def test_every_command_has_help_with_an_example(name):
    done = subprocess.run([sys.executable, "-m", "concord", name, "--help"], capture_output=True, text=True, check=True)
    assert "Example" in done.stdout or "example" in done.stdout


def test_the_commit_that_a_store_records_is_the_checkouts():
    if not (ROOT / ".git").exists():
        assert request.commit() == ""
        return
    git = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert request.commit() == git.stdout.strip() != ""
