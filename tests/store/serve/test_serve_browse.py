"""Filters, orders and pages of the list of clips, and the agreement that is gathered for them."""

import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from shown_store import EVIL, HELD, HOSTILE, UNSEEN

import store
from store import layout
from store.serve import agreement, browse
from store.serve.agreement import Agreement
from store.serve.browse import Browser, Query


@pytest.fixture(scope="module")
def known(reader):
    found = Agreement(reader)
    assert found.gather(60).complete
    return found


@pytest.fixture(scope="module")
def browser(reader, known):
    return Browser(reader, known)


def rows(browser, **given):
    return browser.order(Query.of(given)).tolist()


def test_agreement_is_the_mean_of_the_soft_labels(reader, known):
    for row in range(len(reader)):
        clip = reader.clip(row)
        if not clip.done:
            assert np.isnan(known.mean[row])
            continue
        got = reader.frames(row, 0, clip.length, ["similarity", "flags"])
        has = layout.labelled(got["flags"], got["flags"])
        assert known.labelled[row] == has.sum()
        assert known.mean[row] == pytest.approx(got["similarity"][has].astype(float).mean(), abs=1e-6)
    marks = {name: np.flatnonzero(values).tolist() for name, values in known.marks.items()}
    assert marks == {"held": [HELD], "unseen": [UNSEEN], "interpolated": [UNSEEN], "silent": [UNSEEN]}
    assert (known.marks["held"][HELD], known.marks["unseen"][UNSEEN], known.marks["interpolated"][UNSEEN]) == (20, 5, 4)


def test_read_clips_are_the_same_one_by_one_and_together(reader, known, monkeypatch):
    single = Agreement(reader)
    single.read([5, 3, 3, 35])
    assert single.progress().read == 2
    assert single.mean[[3, 5]].tolist() == known.mean[[3, 5]].tolist()
    monkeypatch.setattr(agreement, "AT_ONCE", 100)
    small = Agreement(reader)
    assert small.gather(60).complete
    np.testing.assert_array_equal(small.mean, known.mean)


def test_a_damaged_clip_leaves_its_neighbours(path, reader, known, tmp_path):
    here = shutil.copytree(path, tmp_path / "s.zarr")
    shard = next((here / "frames" / "similarity" / "c").rglob("*0"))
    data = bytearray(shard.read_bytes())
    data[0:4] = b"\xff" * 4
    shard.write_bytes(data)
    damaged = Agreement(store.open(here))
    progress = damaged.gather(60)
    assert progress.complete
    assert progress.lost == 1
    assert np.isnan(damaged.mean[0])
    np.testing.assert_array_equal(damaged.mean[1:], known.mean[1:])


def test_filters_choose_what_they_say(reader, browser):
    clips = reader.clips
    done = clips["done"] == 1
    assert rows(browser) == np.flatnonzero(done).tolist()
    for name, value in (("split", "test"), ("method", "other sound"), ("method", ""), ("corpus", "synthetic")):
        assert rows(browser, **{name: f"={value}"}) == np.flatnonzero(done & (clips[name] == value)).tolist()
    assert (
        rows(browser, label="fake", split="=train")
        == np.flatnonzero(done & (clips["label"] == 1) & (clips["split"] == "train")).tolist()
    )
    assert rows(browser, label="unknown") == rows(browser, method="=nothing") == []
    assert (
        rows(browser, method=f"={EVIL}")
        == rows(browser, group=f"={EVIL}")
        == rows(browser, text="ONERROR")
        == [HOSTILE]
    )
    assert rows(browser, text="train 05r") == [5]
    assert rows(browser, show="held") == [HELD]
    assert rows(browser, show="unseen") == [UNSEEN]


def test_orders_are_those_of_the_agreement_and_the_label(reader, browser, known):
    lowest = rows(browser, sort="lowest", label="real")
    assert np.all(np.diff(known.mean[lowest]) >= 0)
    assert rows(browser, sort="highest") == sorted(rows(browser), key=lambda row: -known.mean[row])
    against = rows(browser, sort="against")
    wrong = np.where(reader.clips["label"][against] == 0, 1 - known.mean[against], known.mean[against])
    assert np.all(np.diff(wrong) <= 0)
    longest = rows(browser, sort="longest")
    assert np.all(np.diff(reader.clips["length"][longest]) <= 0)


def test_clips_that_cannot_be_placed_come_last(reader):
    partly = Agreement(reader)
    partly.read([7, 9])
    first = Browser(reader, partly)
    assert set(rows(first, sort="lowest")[:2]) == {7, 9}
    before = rows(first, sort="lowest")
    partly.read([0])
    assert set(rows(first, sort="lowest")[:3]) == {0, 7, 9}
    assert sorted(before) == sorted(rows(first, sort="lowest"))


def test_neighbours_are_those_of_the_list(browser):
    query = Query.of({"sort": "lowest", "label": "real"})
    order = browser.order(query).tolist()
    assert browser.neighbours(query, order[0]) == (None, order[1])
    assert browser.neighbours(query, order[4]) == (order[3], order[5])
    assert browser.neighbours(query, order[-1]) == (order[-2], None)
    assert browser.neighbours(query, 35) == (None, None)


def test_names_are_counted_and_the_list_of_them_is_limited(reader, known, browser, monkeypatch):
    assert browser.names("split") == {"train": 24, "test": 10}
    assert list(browser.names("method"))[:2] == ["", "other sound"]
    monkeypatch.setattr(browse, "MOST_NAMES", 1)
    assert Browser(reader, known).names("split") == {"train": 24}


def test_a_query_goes_through_an_address_and_back():
    query = Query(corpus="=a&b=c", label="real", text="ö \x00", sort="against", page=3)
    assert Query.of(query.parameters) == Query(**{**vars(query), "page": 1})
    assert Query.of({"corpus": "a", "label": "x", "sort": "", "page": "٣"}) == Query()


def test_a_table_of_a_million_clips_is_paged():
    """The table alone: reading such a store's frames takes minutes, and a page reads the frames of its own clips."""
    count = 1_000_000
    number = np.arange(count)
    names = np.array(["a", "b", "c"], object)[number % 3]
    clips = dict.fromkeys(browse.NAMED, names)
    clips |= {"id": number.astype(str).astype(object), "path": names, "done": np.ones(count, np.uint8)}
    clips |= {"label": (number % 2).astype(np.int8), "length": np.full(count, 75, np.int32)}
    clips |= {"num_faces": np.ones(count, np.int16)}
    mean = ((number * 7919) % count / count).astype(np.float32)
    known = SimpleNamespace(mean=mean, marks={}, progress=lambda: SimpleNamespace(read=count))
    browser = Browser(SimpleNamespace(clips=clips), known)
    page = browser.page(Query.of({"sort": "lowest", "label": "real", "corpus": "=b", "page": "2"}))
    assert (len(page.rows), page.number, page.total) == (browse.PAGE, 2, 166_666)  # 4, 10, 16 ...
    assert mean[page.rows].tolist() == sorted(mean[page.rows].tolist())
    assert browser.page(Query.of({"text": "999999"})).rows == [999_999]
    assert browser.page(Query.of({"page": "999999999"})).number == count // browse.PAGE


def test_many_may_ask_at_the_same_time(browser):
    answers = []
    threads = [threading.Thread(target=lambda k=k: answers.append(rows(browser, text=str(k)))) for k in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 12
