"""Forged clips of real GRID clips: what changes and what must not, where the labels lie, and the same bytes each time."""

import hashlib
import json
from pathlib import Path

import av
import numpy as np
import pytest

from pipelines.corpora import manifest
from pipelines.forge import folder, plan, run, sheet
from pipelines.forge.work import Forge, Task
from pipelines.forging.mesh import Face, warped, with_ring
from pipelines.forging.reading import Clip, pictures
from pipelines.media.picture import Video
from pipelines.media.sound import decode_sound
from pipelines.workers.pack import frame_labels
from store.layout import SAMPLES_PER_FRAME

CLIPS = Path(__file__).parents[2] / "data" / "grid"
METHODS = ("audio-swap", "time-shift", "mouth-rewrite", "portrait", "self-reenact", "partial")


def wanted(seed: int = 0) -> plan.Request:
    return plan.Request(plan.sources([f"grid:{CLIPS}"], 2), seed, METHODS)


def make(root: Path, request: plan.Request, tasks: list[tuple[int, str]]) -> None:
    """Outputs of clips by number, in this order and in this process, after the real ones; the donor is the other clip."""
    folder.prepare(root, request)
    forge = Forge(root, request.seed)
    for source in request.sources:
        assert forge(Task(source, plan.REAL)).reason == ""
    for k, method in tasks:
        assert forge(Task(request.sources[k], method, request.sources[1 - k])).message == ""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Every method that needs no synthetic voice, on the first clip; partial forgeries of both."""
    root = tmp_path_factory.mktemp("forge") / "out"
    make(root, wanted(), [*((0, method) for method in METHODS), (1, "partial")])
    run.write_manifest(root, wanted())
    return root


def name(k: int = 0) -> str:
    return wanted().sources[k].name


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(**{kind: 0}) if packet.size]


def facts(path: Path) -> tuple:
    """What players and probes see of a file, but for its bytes."""
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        about = video.codec_context, audio.codec_context
        return (
            container.format.name,
            [(c.name, c.profile) for c in about],
            (about[0].pix_fmt, about[0].width, about[0].height, about[0].color_range, about[0].colorspace),
            (about[1].sample_rate, about[1].layout.name),
            *((s.start_time, s.duration, s.time_base, s.frames) for s in (video, audio)),
        )


def seen(path: Path) -> np.ndarray:
    return np.stack(list(Video(path)))


def heard(path: Path) -> np.ndarray:
    video = Video(path)
    num_frames = len(list(video))
    return decode_sound(path, video.start_s, num_frames).samples.astype(float)


def test_real_and_forged_files_are_alike(made):
    found = {method: facts(plan.place(made, method, name())) for method in (plan.REAL, *METHODS)}
    assert set(map(str, found.values())) == {str(found[plan.REAL])}


def test_a_browser_can_play_them(made):
    data = plan.place(made, "portrait", name()).read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(plan.place(made, "portrait", name()))) as container:
        assert (container.streams.video[0].codec_context.name, container.streams.audio[0].codec_context.name) == (
            "h264",
            "aac",
        )
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_forged_is_the_real_clips_to_the_bit(made, method):
    about = folder.read_note(folder.note(made, method, name()))
    real, forged = (plan.place(made, kind, name()) for kind in (plan.REAL, method))
    assert (packets(real, "video") == packets(forged, "video")) == (about["video_fake"] == 0)
    assert (packets(real, "audio") == packets(forged, "audio")) == (about["audio_fake"] == 0)


def test_time_shift_is_the_shift_that_is_noted(made):
    note = folder.read_note(folder.note(made, "time-shift", name()))["note"].split()
    frames = int(note[1]) * (1 if note[3] == "late" else -1)
    real, forged = heard(plan.place(made, plan.REAL, name())), heard(plan.place(made, "time-shift", name()))
    moved = frames * SAMPLES_PER_FRAME
    a, b = (real[: len(real) - moved], forged[moved:]) if moved > 0 else (real[-moved:], forged[:moved])
    assert 5 <= abs(frames) <= 15
    assert np.corrcoef(a[800:-800], b[800:-800])[0, 1] > 0.98


def test_swapped_speech_has_the_rhythm_and_not_the_sound(made):
    from pipelines.forging.stretch import envelope

    real, forged = heard(plan.place(made, plan.REAL, name())), heard(plan.place(made, "audio-swap", name()))
    assert np.corrcoef(envelope(real), envelope(forged))[0, 1] > 0.7
    assert abs(np.corrcoef(real, forged)[0, 1]) < 0.2
    assert forged.std() == pytest.approx(real.std(), rel=0.1)


def opening(root: Path, method: str) -> np.ndarray:
    """How far the lips are open, read anew from a file."""
    from pipelines.forging.reading import Reader, _followed

    points, found, _, _ = _followed(Reader().backend, Video(plan.place(root, method, name())))
    assert found.all()
    return Face(points.astype(np.float32)).opening


def test_lips_move_as_the_method_says(made):
    real = opening(made, plan.REAL)
    same = {
        method: np.corrcoef(real, opening(made, method))[0, 1]
        for method in ("self-reenact", "portrait", "mouth-rewrite")
    }
    assert same["self-reenact"] > 0.9
    assert same["portrait"] > 0.85
    assert same["mouth-rewrite"] < 0.6


def test_a_portrait_stands_still_but_for_its_face(made):
    found = seen(plan.place(made, "portrait", name())).astype(int)
    left, top, right, bottom = folder.read_note(folder.note(made, "portrait", name()))["face"]
    moving = found.std(0).mean(2)
    assert moving[top:bottom, left:right].max() > 10
    face = moving[top:bottom, left:right].copy()
    moving[top:bottom, left:right] = 0
    assert np.quantile(moving, 0.99) < 1.5  # what the coder does, which differs between machines
    assert moving.max() < face.max() / 2


@pytest.mark.parametrize("k", [0, 1])
def test_the_labels_of_a_partial_forgery_are_at_its_frames(made, k):
    (row,) = [r for r in manifest.read(made / "manifest.csv") if r.path == f"partial/{name(k)}.mp4"]
    files = [plan.place(made, kind, name(k)) for kind in (plan.REAL, "partial")]
    if row.video_fake:
        real, forged = map(seen, files)
        apart = np.quantile(np.abs(real.astype(int) - forged), 0.999, axis=(1, 2, 3))  # of the mouth
    else:
        real, forged = map(heard, files)
        apart = np.abs(real - forged).reshape(-1, SAMPLES_PER_FRAME).mean(1) / np.abs(real).max()
    labels = frame_labels(row, len(apart))
    assert 10 <= labels.sum() <= 30
    inside = apart[labels == 1]
    outside = apart[np.convolve(labels, np.ones(5), "same") == 0]  # the codecs carry a little over
    assert np.median(inside) > 3 * np.median(outside)
    assert (row.audio_fake, row.video_fake) in ((0, 1), (1, 0))


def test_the_manifest_reads_as_a_corpus(made):
    rows = manifest.load(f"csv:{made / 'manifest.csv'}")
    assert {(r.method, r.label, r.video_fake, r.audio_fake) for r in rows if r.method != "partial"} == {
        ("", 0, 0, 0),
        ("audio-swap", 1, 0, 1),
        ("time-shift", 1, 0, 1),
        ("mouth-rewrite", 1, 1, 0),
        ("portrait", 1, 1, 0),
        ("self-reenact", 1, 1, 0),
    }
    assert all(Path(row.path).is_file() for row in rows)
    records = manifest.records(made / "manifest.csv")
    (swapped,) = [record for record in records if record["method"] == "audio-swap"]
    assert swapped["made_from"] == wanted().sources[0].row.id
    assert swapped["taken_from"] == wanted().sources[1].row.id


def test_each_method_has_a_sheet(made):
    for method in ("partial", "time-shift"):
        sheet.write(made, method, [name(0), name(1)])
        assert (made / "sheets" / f"{method}.png").read_bytes().startswith(b"\x89PNG")
    red = np.array(sheet.MARKED)
    import cv2

    shown = cv2.cvtColor(cv2.imread(str(made / "sheets" / "partial.png")), cv2.COLOR_BGR2RGB)
    assert (shown == red).all(2).sum() > 100


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.suffix in (".mp4", ".json", ".csv")
    }


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_any_order_and_another_does_not(made, tmp_path):
    again = tmp_path / "out"
    make(again, wanted(), [(0, "mouth-rewrite"), (0, "time-shift")])
    other, before = digests(again), digests(made)
    assert {path: before[path] for path in other if path.endswith(".mp4")} == {
        path: digest for path, digest in other.items() if path.endswith(".mp4")
    }
    make(tmp_path / "other", wanted(7), [(0, "mouth-rewrite")])
    path = f"mouth-rewrite/{name()}.mp4"
    assert digests(tmp_path / "other")[path] != before[path]


def test_what_is_finished_is_kept_and_what_is_missing_made_again(made):
    before = digests(made)
    gone = plan.place(made, "partial", name())
    kept = {path: path.stat().st_mtime_ns for path in made.rglob("*.mp4") if path != gone}
    gone.unlink()
    make(made, wanted(), [(0, method) for method in METHODS])
    assert digests(made) == before
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.parametrize("left", [0, 1000])
@pytest.mark.parametrize("what", ["real", "partial", "points"])
def test_what_was_emptied_or_cut_is_made_again(made, what, left):
    before = digests(made)
    path = folder.points(made, name()) if what == "points" else plan.place(made, what, name())
    path.write_bytes(path.read_bytes()[:left])
    make(made, wanted(), [(0, "partial")])
    assert digests(made) == before
    Clip.load(folder.points(made, name()))


def test_a_note_of_an_earlier_release_knows_no_size(made):
    path, about = plan.place(made, "partial", name()), folder.note(made, "partial", name())
    kept = about.read_bytes()
    folder.write_note(about, {key: value for key, value in json.loads(kept).items() if key != "bytes"})
    try:
        assert folder.is_finished(made, "partial", name())
        data = path.read_bytes()
        path.write_bytes(b"")
        assert not folder.is_finished(made, "partial", name())
        path.write_bytes(data)
    finally:
        about.write_bytes(kept)


def test_a_face_on_itself_is_the_same_picture(made):
    source = wanted().sources[0]
    clip = Clip.load(folder.points(made, source.name))
    picture = pictures(source.row, clip)[5]
    face = Face(clip.points)
    places = with_ring(clip.points[5])
    found = warped(picture, places, places, face.triangles, np.ones(len(places)), picture)
    assert np.abs(found.astype(int) - picture).max() <= 2
