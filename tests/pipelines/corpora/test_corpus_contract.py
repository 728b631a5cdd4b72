"""The contract that ships for writers of corpus adapters, passed by this project's adapters, and the faults that it
finds."""

import shutil
from pathlib import Path

import pytest
import trees

from pipelines.corpora.contract import CorpusContract

GRID = Path(__file__).parents[2] / "data" / "grid"


class TestFolder(CorpusContract):
    kind = "folder"

    def make(self, root):
        trees.touch(root, "real/a.mp4", "real/deep/b.MKV", "c.webm")


class TestGrid(CorpusContract):
    kind = "grid"

    def make(self, root):
        shutil.copytree(GRID, root)


class TestFakeAVCeleb(CorpusContract):
    kind = "fakeavceleb"

    def make(self, root):
        trees.fakeavceleb(root)


class TestLavDF(CorpusContract):
    kind = "lavdf"

    def make(self, root):
        trees.lavdf(root)


class TestAVDeepfake1M(CorpusContract):
    kind = "avdeepfake1m"

    def make(self, root):
        trees.avdeepfake1m(root)


class TestCMDFD(CorpusContract):
    kind = "cmdfd"

    def make(self, root):
        trees.cmdfd(root)


class TestPolyglotFake(CorpusContract):
    kind = "polyglotfake"

    def make(self, root):
        trees.polyglotfake(root)


TOY = """
from pathlib import Path

from pipelines.corpora.manifest import Row

fault = ""

def rows(root):
    files = sorted(Path(root).rglob("*.mp4"))
    names = [path.relative_to(root).as_posix() for path in files]
    if fault == "drops":
        names = names[1:]
    if fault == "invents":
        names.append("c.mp4")
    if fault == "takes anything" and not names:
        names = ["a.mp4"]
    for name in names:
        yield Row(
            path=name,
            id=str(Path(root) / name) if fault == "moves" else "",
            label=1,
            **({"video_fake": 0, "audio_fake": 0} if fault == "disagrees" else {}),
        )
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A package with a toy adapter, installed as packages are; the module, whose `fault` tests set."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "toy_corpus.py").write_text(TOY)
    info = folder / "toy_corpus-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-corpus\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[concord.corpora]\ntoy = toy_corpus:rows\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        import toy_corpus

        yield toy_corpus


class Toy(CorpusContract):
    kind = "toy"

    def make(self, root):
        trees.touch(root, "a.mp4", "deep/b.mp4")


@pytest.mark.usefixtures("toy")
class TestToy(Toy):
    pass


@pytest.mark.parametrize(
    ("fault", "test"),
    {
        "drops": "test_no_video_is_dropped_silently",
        "invents": "test_paths_are_absolute_and_lead_to_files",
        "moves": "test_ids_stay_when_the_corpus_is_read_again_or_moved",
        "disagrees": "test_labels_agree_with_each_other",
        "takes anything": "test_a_folder_without_the_corpus_is_refused_in_one_line",
    }.items(),
)
def test_every_fault_is_found(toy, monkeypatch, tmp_path, fault, test):
    monkeypatch.setattr(toy, "fault", fault)
    with pytest.raises(AssertionError):
        getattr(Toy(), test)(tmp_path)
