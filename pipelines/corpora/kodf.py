"""KoDF (Kwon et al. 2021, arXiv 2103.10094): original_videos/, synthesized_videos/METHOD/, or the method folders flat in ROOT.

Read from the folders only; there is no list. The fsgan fakes are published without sound (fault `no_audio`), and for
the audio-driven ones it is not published whether their sound is forged (-1). Identity: the clip's folder, unless that
is the top or a method; other parts of names are not used.
"""

from collections.abc import Iterator
from pathlib import Path

from pipelines.corpora.join import fault, files
from pipelines.corpora.manifest import Row

METHODS = ("audio-driven", "dffs", "dfl", "fo", "fsgan")


def rows(root: Path) -> Iterator[Row]:
    """One row for every video; one outside the known folders has no label and the fault `label_unknown`."""
    for path in files(root):
        folders = [name.lower() for name in path.split("/")[:-1]]
        method = next((name for name in METHODS if name in folders), "")
        known = {"original_videos", "synthesized_videos", "kodf_release", *METHODS}
        person = tuple(path.split("/")[-2:-1]) if folders and folders[-1] not in known else ()
        if method or "synthesized_videos" in folders:
            sound = -1 if method in ("audio-driven", "") else 0
            row = Row(path, label=1, video_fake=1, audio_fake=sound, method=method or "unknown", identities=person)
            yield (
                fault(row, "no_audio", f"{path} is an fsgan fake, published without sound")
                if method == "fsgan"
                else row
            )
        elif "original_videos" in folders:
            yield Row(path, label=0, identities=person)
        else:
            yield fault(Row(path), "label_unknown", f"{path} is in no folder of originals or of a method")
