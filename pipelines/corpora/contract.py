"""The contract of corpus adapters, as tests that ship with the package: the author of an adapter inherits them.

A complete test file for an adapter whose entry point is installed (`pip install -e .` after a line in setup.cfg):

    # test_my_corpus.py; run it by: python -m pytest test_my_corpus.py
    from pipelines.corpora.contract import CorpusContract


    class TestMyCorpus(CorpusContract):
        kind = "my-corpus"  # the part before the colon in --corpus KIND:ROOT

        def make(self, root):
            (root / "fake").mkdir(parents=True)
            (root / "fake" / "a.mp4").touch()  # adapters read names and lists only: media may be empty

`make` writes a small corpus in its published layout: one or two files of each sort, and the known faults of the
release.
"""

from pathlib import Path

from pipelines.corpora import manifest
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import CATEGORIES, SPLITS, VIDEO_SUFFIXES, Row


class CorpusContract:
    """Subclass it as Test..., set `kind`, write `make`, and run pytest on the file."""

    kind: str
    not_clips: frozenset[str] = frozenset()  # video files below the root that correctly have no row, relative to it

    def make(self, root: Path) -> None:
        """Write a small corpus to the folder `root`, which does not exist yet."""
        raise NotImplementedError("write a small corpus in the published layout into `root`")

    def test_paths_are_absolute_and_lead_to_files(self, tmp_path: Path) -> None:
        for row in self._rows(tmp_path / "corpus"):
            for path in filter(None, (row.path, row.audio_path)):
                assert Path(path).is_absolute(), f"{row.id}: the path {path} is not absolute"
                assert Path(path).is_file() or row.faults, f"{row.id}: {path} does not exist, and no fault says so"

    def test_no_video_is_dropped_silently(self, tmp_path: Path) -> None:
        root = tmp_path / "corpus"
        named = {path for row in self._rows(root) for path in (row.path, row.audio_path)}
        files = [path for path in root.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
        lost = {path.relative_to(root).as_posix() for path in files if str(path) not in named}
        assert lost <= self.not_clips, f"no row has {', '.join(sorted(lost - self.not_clips))}"

    def test_ids_stay_when_the_corpus_is_read_again_or_moved(self, tmp_path: Path) -> None:
        rows = self._rows(tmp_path / "here" / "corpus")
        assert manifest.load(f"{self.kind}:{tmp_path / 'here' / 'corpus'}") == rows, "a second reading gave other rows"
        moved = self._rows(tmp_path / "there" / "corpus")
        assert [row.id for row in moved] == [row.id for row in rows], "ids depend on where the corpus is"

    def test_labels_agree_with_each_other(self, tmp_path: Path) -> None:
        for row in self._rows(tmp_path / "corpus"):
            streams = row.video_fake, row.audio_fake
            assert {row.label, *streams} <= {-1, 0, 1}, f"{row.id}: a label is not -1, 0 or 1"
            assert row.label != 0 or 1 not in streams, f"{row.id}: label 0 (real) with a forged stream"
            assert row.label != 1 or streams != (0, 0), f"{row.id}: label 1 (fake) with two real streams"
            assert row.split in ("", *SPLITS), f"{row.id}: the split is '{row.split}'"
            if row.category in CATEGORIES.values() and -1 not in streams:
                assert row.category == CATEGORIES[streams], (
                    f"{row.id}: {row.category} does not fit its labels {streams}"
                )

    def test_people_are_known_by_group_or_the_clip_is_alone(self, tmp_path: Path) -> None:
        groups: dict[str, str] = {}
        for row in self._rows(tmp_path / "corpus"):
            assert row.group, f"{row.id} has no group"
            for person in row.identities:
                assert groups.setdefault(person, row.group) == row.group, f"{person} is in two groups"

    def test_rows_survive_a_manifest_file(self, tmp_path: Path) -> None:
        rows = self._rows(tmp_path / "corpus")
        manifest.write(rows, tmp_path / "manifest.csv")
        assert manifest.read(tmp_path / "manifest.csv") == rows, (
            "rows change when written to a manifest file and read again"
        )

    def test_a_folder_without_the_corpus_is_refused_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        for root in (tmp_path / "empty", tmp_path / "missing"):
            error = _refusal(f"{self.kind}:{root}")
            assert error is not None, f"{self.kind}:{root} was read; expected a ManifestError"
            assert "\n" not in str(error), f"the error has several lines: {error}"

    def _rows(self, root: Path) -> list[Row]:
        """Rows of the small corpus, made at `root`."""
        root.parent.mkdir(parents=True, exist_ok=True)
        self.make(root)
        return manifest.load(f"{self.kind}:{root}")


def _refusal(corpus: str) -> ManifestError | None:
    try:
        manifest.load(corpus)
    except ManifestError as error:
        return error
    return None
