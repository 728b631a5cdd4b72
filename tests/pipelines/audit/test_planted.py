"""Corpora of real clips: planted faults are found by kind, clean ones give no finding."""

import dataclasses

import planted
import pytest

from pipelines.audit.found import audit, of_media
from pipelines.audit.leaks import Shared


@pytest.mark.slow
def test_a_copy_coded_anew_is_found_among_the_shipped_clips(tmp_path, clips):
    paths = sorted((clips / "clips").iterdir())
    rows = planted.corpus(tmp_path, paths, seed=0, num=4, fake_share=0)
    train, test = rows[0], dataclasses.replace(rows[1], split="test")
    rows = [
        dataclasses.replace(train, split="train"),
        test,
        *(dataclasses.replace(row, split="val") for row in rows[2:]),
    ]
    frames, sound = planted.frames_of(train.path), planted.sound_of(train.path)
    copy = planted.write(tmp_path / "copy", frames, sound, planted.OTHERS[0])
    more = dataclasses.replace(test, path=str(copy), id="c/copy")
    assert audit(rows, of_media(rows, workers=1)).leaks == []
    (leak,) = audit([*rows, more], of_media([*rows, more], workers=1)).leaks
    assert (leak.kind, leak.splits, leak.count) == ("content", ("train", "test"), 1)
    assert leak.examples == [Shared(copy.name, train.id, "c/copy")]


CORPORA = [pytest.param(0, 32, 0.05, False, marks=pytest.mark.golden), (1, 40, 0.3, True)]


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "num", "silence_s", "prepend"), CORPORA)
def test_planted_faults_are_found_and_clean_corpora_are_clean(tmp_path, grid, seed, num, silence_s, prepend):
    paths = sorted((grid / "clips").iterdir())
    options = {"num": num, "silence_s": silence_s, "prepend": prepend}
    clean = planted.corpus(tmp_path / "a", paths, seed, **options)
    assert planted.found_in(audit(clean, of_media(clean))) == set()
    rows = planted.corpus(tmp_path / "b", paths, seed, planted.KINDS, **options)
    found = audit(rows, of_media(rows))
    assert planted.found_in(found) >= set(planted.KINDS)
    leaks = {leak.kind: leak.count for leak in found.leaks}
    assert (leaks["file"], leaks["content"], leaks["identity"]) == (2, 2, 1)
