"""Clips that are mouth crops already: recognised, and on request taken as they are."""

from dataclasses import replace
from fractions import Fraction as F

import av
import cv2
import numpy as np
import pytest

import teachers
from pipelines.corpora.manifest import Row
from pipelines.errors import UsageError
from pipelines.job import opening, request
from pipelines.media.picture import Video
from pipelines.seeing import crops
from pipelines.workers.plan import Slot
from pipelines.workers.stages import FaceStage
from pipelines.workers.watch import Watcher
from pipelines.workers.work import Receipt, Work
from store import layout
from store.place import place
from teachers import TeacherError, blendshapes, lips
from teachers.face.tracker import NoFaceError


def write(path, pictures, sound, size, pix_fmt="yuv420p"):
    """A clip of grey pictures u1 [frames, 96, 96], scaled, with sound i2 [samples] at 16 kHz."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = *size, pix_fmt
        voice = out.add_stream("aac", rate=16_000, layout="mono")
        for k, picture in enumerate(pictures):
            colour = cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2RGB)
            frame = av.VideoFrame.from_ndarray(colour, format="rgb24")
            frame.pts, frame.time_base = k, F(1, 25)
            out.mux(video.encode(frame))
        for at in range(0, len(sound), 1024):
            part = av.AudioFrame.from_ndarray(sound[None, at : at + 1024].astype(np.float32) / 32768, "fltp", "mono")
            part.sample_rate, part.time_base, part.pts = 16_000, F(1, 16_000), at
            out.mux(voice.encode(part))
        out.mux(video.encode(None))
        out.mux(voice.encode(None))
    return path


@pytest.fixture(scope="module")
def whole(clips, watcher):
    return watcher.watch(clips / "clips" / "bbaf2n.mp4").clip


@pytest.fixture(scope="module")
def taking():
    """A watcher that takes mouth crops as they are."""
    return Watcher(mouth_crops=True)


SIZES = [(96, 96), (160, 160), (128, 104)]


@pytest.fixture(
    scope="module", params=[*SIZES, *(pytest.param(s, marks=pytest.mark.slow) for s in ((88, 88), (112, 112)))], ids=str
)
def cropped(request, whole, tmp_path_factory):
    size = request.param
    return write(tmp_path_factory.mktemp("crops") / "a.mp4", whole.mouth, whole.audio, size), size


def test_mouth_crops_are_recognised(cropped, watcher):
    path, (width, height) = cropped
    with pytest.raises(
        crops.MouthOnly,
        match=rf"looks like a mouth crop .{width}x{height}.; --mouth-crops takes it as it is.*--vsr avhubert",
    ):
        watcher.watch(path)


def test_mouth_crops_are_taken_as_they_are(cropped, whole, taking):
    path, (width, height) = cropped
    seen = taking.watch(path)
    clip = seen.clip
    assert clip.num_frames == whole.num_frames
    assert clip.mouth.shape == whole.mouth.shape
    assert np.corrcoef(clip.mouth.ravel(), whole.mouth.ravel())[0, 1] > 0.99
    assert (clip.flags & layout.FACE_DETECTED).all()
    assert not (clip.flags & layout.FACE_INTERPOLATED).any()
    assert not clip.lips.any()
    assert not clip.blendshapes.any()
    told = [fact.text for fact in seen.facts if fact.kind == "mouth_crops"]
    assert told == [f"its pictures ({width}x{height}) are taken as mouth crops, as they are"]


def test_grey_pictures_of_the_right_size_stay_to_the_bit():
    picture = np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8)
    assert (crops.grey(np.repeat(picture[..., None], 3, axis=-1)) == picture).all()


def test_whole_faces_are_no_mouth_crops(clips, taking):
    path = clips / "clips" / "bbaf2n.mp4"
    with pytest.raises(NoFaceError, match=r"360x288, which is no mouth crop .*leave --mouth-crops out"):
        taking.watch(path)


@pytest.mark.parametrize("side", [88, pytest.param(112, marks=pytest.mark.slow), 150])
def test_small_pictures_of_whole_faces_are_not_called_mouth_crops(clips, watcher, side):
    for path in sorted((clips / "clips").glob("*.mp4")):
        pictures = list(Video(path))[:50]
        height = 288 * side // 360
        tall = [cv2.resize(p[:, 36:324], (side, side), interpolation=cv2.INTER_AREA) for p in pictures]
        wide = [cv2.resize(p, (side, height), interpolation=cv2.INTER_AREA) for p in pictures]
        for small in (tall, wide):
            assert not crops.looks_like_mouths(small, watcher.tracker.faces), path.name


@pytest.fixture(scope="module")
def people(clips, watcher):
    """Of each clip the first pictures, their middle between the eyes and mouth, and the distance of the eyes, in pixels."""
    found = []
    for path in sorted((clips / "clips").glob("*.mp4")):
        pictures = list(Video(path))[:30:3]
        points = np.median(watcher.tracker.faces(pictures), axis=0) * pictures[0].shape[1::-1]
        eyes, mouth = points[[*crops.EYES]], points[[*crops.MOUTH]].mean(axis=0)
        found.append((path.name, pictures, eyes.mean(axis=0), mouth, np.hypot(*(eyes[1] - eyes[0]))))
    return found


def square(pictures, middle, side, size):
    """The square around a point, u1 [size, size, 3] each."""
    scale = size / side
    affine = np.float32([[scale, 0, size / 2 - middle[0] * scale], [0, scale, size / 2 - middle[1] * scale]])
    return [cv2.warpAffine(p, affine, (size, size), borderMode=cv2.BORDER_REPLICATE) for p in pictures]


@pytest.mark.parametrize("eyes_at", [0.25, 0.22, 0.18])
@pytest.mark.parametrize("width", [2.2, 2.9])
def test_whole_faces_that_fill_the_picture_are_not_called_mouth_crops(people, watcher, eyes_at, width):
    """Framed as in LRS2, where eyes are at .21 of the height and below, and closer."""
    for name, pictures, eyes, _, apart in people:
        side = width * apart
        small = square(pictures, (eyes[0], eyes[1] + (0.5 - eyes_at) * side), side, 160)
        assert len(watcher.tracker.faces(small)) >= crops.FEW, name
        assert not crops.looks_like_mouths(small, watcher.tracker.faces), name


def test_a_whole_face_at_the_top_of_a_small_picture_is_followed(people, whole, tmp_path, watcher):
    _, pictures, eyes, _, apart = people[0]
    side = 2.6 * apart
    small = square(pictures, (eyes[0], eyes[1] + 0.29 * side), side, 160)
    grey = [cv2.cvtColor(small[k * len(small) // 30], cv2.COLOR_RGB2GRAY) for k in range(30)]
    path = write(tmp_path / "high.mp4", grey, whole.audio[: 30 * 640], (160, 160))
    assert watcher.watch(path).quality == 1


@pytest.mark.parametrize(
    "size", [88, pytest.param(96, marks=pytest.mark.slow), pytest.param(112, marks=pytest.mark.slow), 160]
)
@pytest.mark.parametrize("width", [0.8, 1.0, 1.2])
def test_tight_and_loose_mouth_crops_are_recognised(people, watcher, width, size):
    """All but a few: where the lips and the nose pass for a whole face, a clip counts as one."""
    said = []
    for _, pictures, _, mouth, apart in people:
        small = square(pictures, mouth, width * apart, size)
        said.append(crops.looks_like_mouths(small, watcher.tracker.faces))
    assert sum(said) >= 0.9 * len(said)


def test_mouth_crops_of_other_people_are_recognised(clips, watcher):
    for path in sorted((clips / "clips").glob("*.mp4")):
        mouths = [np.repeat(m[..., None], 3, axis=-1) for m in watcher.watch(path).clip.mouth[:50]]
        assert crops.looks_like_mouths(mouths, watcher.tracker.faces), path.name


def test_noise_and_still_pictures_are_not_called_mouth_crops(watcher):
    noise = np.random.default_rng(0).integers(0, 256, (30, 96, 96, 3), np.uint8)
    assert not crops.looks_like_mouths(list(noise), watcher.tracker.faces)
    assert not crops.looks_like_mouths(list(np.zeros((30, 96, 96, 3), np.uint8)), watcher.tracker.faces)


def test_a_small_picture_without_a_face_is_told_of_the_option(whole, tmp_path, watcher):
    """It is refused all the same, so the word costs nothing."""
    path = write(tmp_path / "wall.mp4", [np.full((96, 96), 90, np.uint8)] * 30, whole.audio[: 30 * 640], (96, 96))
    with pytest.raises(
        NoFaceError, match=r"0 of 30 frames.*; if these 96x96 pictures are mouth crops, use --mouth-crops"
    ) as caught:
        watcher.watch(path)
    assert caught.value.reason == "no_face"


@pytest.fixture(scope="module")
def stages():
    """The face stage as it is by default, and one that takes mouth crops."""
    return FaceStage(), FaceStage(mouth_crops=True)


def test_the_stage_says_so_in_the_ledger(cropped, stages):
    path, _ = cropped
    row = Row(str(path), id="a")

    def work():
        return Work("b", [Slot(0, 0, 100, 75)], [row], [Receipt(0, "a", str(path))])

    failed = stages[0](work()).receipts[0]
    assert failed.reason == "mouth_only"
    assert "--mouth-crops" in failed.message
    done = stages[1](work()).receipts[0]
    assert done.ok
    assert done.quality == 1
    assert "mouth crops" in done.notes


class Pixels:
    """A teacher that sees pixels."""

    name, dim, stream = "pixels", 4, "video"

    def provenance(self):
        return {"name": self.name, "sha256": "0" * 64, "options": {}, "dim": self.dim}


@pytest.mark.parametrize("taken", [False, True])
def test_a_store_keeps_whether_its_clips_are_mouth_crops(tmp_path, monkeypatch, taken):
    monkeypatch.setattr(request, "_teacher", lambda config, side, name, attrs: sides[side])
    sides = {"asr": teachers.load("whisper:tiny.en@3"), "vsr": Pixels()}
    where = place(str(tmp_path / "a.zarr"))
    made = request.Request(request.Config(where), False, [], (), sides["asr"], sides["vsr"], taken)
    with opening.lock(where, False):
        writer = opening.create(made)
        options = writer.attrs["teachers"]["face"]["options"]
        assert options.get("mouth_crops", False) == taken
        config = request.Config(where)
        assert request.check(config).mouth_crops == taken
        if taken:
            assert request.check(replace(config, mouth_crops=True)).mouth_crops
        else:
            with pytest.raises(UsageError, match="was made of clips with whole faces"):
                request.check(replace(config, mouth_crops=True))


def test_teachers_of_landmarks_refuse(tmp_path, clips):
    for teacher in (lips.load("", "cpu"), blendshapes.load("", "cpu")):
        with pytest.raises(TeacherError, match=r"landmarks.*; name one$"):
            crops.check_teacher(teacher, "name one")
    config = request.Config(place(str(tmp_path / "a.zarr")), (f"folder:{clips / 'clips'}",), mouth_crops=True)
    with pytest.raises(
        TeacherError, match=r"lips reads landmarks.*--vsr, such as avhubert:PATH or deep_avsr-video:PATH"
    ):
        request.check(config)
    with pytest.raises(UsageError, match="--arrays face keeps whole faces"):
        request.check(replace(config, arrays=("face",)))
