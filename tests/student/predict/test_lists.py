"""Lists of pages, and what pages draw: sorted by a script alone, escaped, no word over another, told apart without colours."""

import base64
import hashlib
import html
import re
import shutil
import subprocess
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from concord import commands
from concord.pages import environment as pages
from store.formats.table import read_csv
from student.predict import __main__ as command
from student.predict import page, plot, words
from student.predict.__main__ import _pages, line, main
from student.predict.answer import refusal
from student.predict.records import Answer, Calibration, HeardWord, Moment, Ranking, Teachers

BASIS = {"teachers": {}, "fit": {"kind": "cca", "from": "here"}, "student": None}
CALIBRATION = Calibration(["c"], True, "", True, 30, "calibrated on c")
HOSTILE = "/v/=1+1 \"<script>alert(1)</script>\u202e'\udcff.mp4".replace("</", "<\u2215")


def said(path, decision, probability=None, reason="", **more):
    teachers = Teachers(0.5, probability)
    return Answer(path, decision, reason, "", probability, teachers=teachers, calibration=CALIBRATION, **more)


ANSWERS = {
    "real": said("/v/a.mp4", "real", 0.02),
    "probably real": said("/v/b.mp4", "real", 0.3),
    "undecided": said("/v/c.mp4", "cannot decide", reason="no face"),
    "unclear": said("/v/d.mp4", "real", 0.2, passages=[]),
    "probably fake": said(HOSTILE, "fake", 0.7),
    "fake": said("/v/f.mp4", "fake", 0.99),
}
ANSWERS["undecided"] = replace(ANSWERS["undecided"], ranking=Ranking("similarity", 0.125))
ANSWERS["unclear"] = replace(ANSWERS["unclear"], teachers=Teachers(0.1, 0.9))  # they contradict the detector
LISTED = [page.Listed(one, f"page #{k}?%.html") for k, one in enumerate(ANSWERS.values())]


def test_every_answer_has_its_word_sign_and_tone():
    assert [one.short for one in LISTED] == list(ANSWERS)
    for name, one in ANSWERS.items():
        assert words.SHORT[name][0] == words.headline(one)[0]
    assert len(set(words.SHORT.values())) == len(words.SHORT)


def test_the_list_links_to_its_pages_and_runs_no_other_script():
    text = page.index(LISTED, 8, BASIS)
    assert "6 videos: 1 fake, 1 probably fake, 1 unclear, 1 undecided, 1 probably real, 1 real" in text
    assert "2 videos more were to be judged" in text
    assert re.findall(r'<a href="([^"]*)"', text)[:2] == ["page%20%230%3F%25.html", "page%20%231%3F%25.html"]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html.unescape(text.partition("<style>")[0])
    assert "default-src 'none'" in text
    assert "alert(1)<" not in text
    assert "\u202e" not in text
    assert "://" not in text
    keys = re.findall(r'<tr><td data-key="(\d)">', text)
    assert [list(words.SHORT)[int(key)] for key in keys] == list(ANSWERS)


def test_a_video_called_like_a_command_keeps_its_name_and_link(monkeypatch):
    monkeypatch.setattr(commands, "by_name", lambda: True)
    names = ("precompute.py.mp4", "run precompute.py", "python -m store.inspect")
    listed = [page.Listed(said(f"/v/{name}", "cannot decide", reason="mouth only"), f"{name}.html") for name in names]
    text = page.index(listed, 3, BASIS)
    assert [html.unescape(found) for found in re.findall(r"<bdi>(.*?)</bdi></a>", text)] == list(names)
    assert re.findall(r'<a href="([^"]*)"', text)[:3] == [one.link for one in listed]
    own = page.page(listed[1].said, BASIS, [], None)
    assert "<bdi>run precompute.py</bdi>" in own
    assert "(concord precompute --mouth-crops --vsr avhubert:PATH makes one)" in own
    assert "<code>concord predict VIDEO --teacher-only --mouth-crops --fit-from STORE</code>" in own


def test_the_table_beside_it_reads_back_and_holds_no_formula():
    table = page.table(LISTED)
    assert table.startswith(",".join(page.COLUMNS).encode())
    read = read_csv(table)
    assert list(read["answer"]) == list(ANSWERS)
    assert read["file"][4] == "=1+1 \"<script>alert(1)<\u2215script>\u202e'\\udcff.mp4"
    assert "\n'=1+1" in table.decode().replace('\n"', "\n")
    assert list(read["probability"]) == ["0.02", "0.3", "", "0.2", "0.7", "0.99"]
    assert read["reason"][2] == "no face"
    assert (read["ranking"][2], read["ranked_by"][2], read["ranking"][0]) == ("0.125", "similarity", "")
    assert '<td class="n rank" data-key="0.125">0.125</td>' in page.index(LISTED, 6, BASIS)


@pytest.mark.slow
def test_a_click_on_a_heading_sorts_and_a_second_turns_the_order_round(tmp_path):
    browser = shutil.which("chromium") or pytest.skip("chromium is not installed")
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.index(LISTED, 6, BASIS))  # so that a script of the test may click
    for clicks, expected in (
        (1, ["0.02", "0.2", "0.3", "0.7", "0.99", ""]),
        (2, ["0.99", "0.7", "0.3", "0.2", "0.02", ""]),
    ):
        click = "document.querySelectorAll('.answers button')[1].click();" * clicks
        (tmp_path / "list.html").write_text(text.replace("</main>", f"<script>{click}</script></main>"))
        shown = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", (tmp_path / "list.html").as_uri()],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert re.findall(r'<td class="n" data-key="([^"]*)"', shown.stdout) == expected


# -- colours ---------------------------------------------------------------------------------------------------------------

# Machado, Oliveira and Fernandes 2009, severity 1: how people without one kind of cone see linear RGB
SEEN = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour):
    full = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
    x = np.array([int(full[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    x = TO_XYZ @ np.clip(rgb, 0, 1) / TO_XYZ.sum(1)
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.fixture(scope="module", params=[0, 1], ids=["light", "dark"])
def colours(request):
    style = pages.environment().get_template("concord.pages/style.css").render()
    return dict(re.findall(r"--([\w-]+):(#\w+)", style.split("prefers-color-scheme:dark")[request.param]))


@pytest.mark.parametrize("eyes", SEEN)
def test_both_kinds_of_probably_are_told_apart_by_everyone(colours, eyes):
    """A distance of 2 in CIELAB can just be seen; a dozen is another colour."""
    first, second = (lab(np.array(SEEN[eyes]) @ linear(colours[f"likely-{side}"])) for side in ("good", "bad"))
    assert np.linalg.norm(first - second) > 40


def test_answers_are_legible_and_of_different_colours(colours):
    tones = {name: linear(colours[name]) for name in ("good", "likely-good", "warn", "likely-bad", "bad")}
    card = linear(colours["card"]) @ TO_XYZ[1]
    for name, rgb in tones.items():
        light, dark = sorted([rgb @ TO_XYZ[1], card], reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name  # WCAG 2, level AA
    for a, b in combinations(tones, 2):
        assert np.linalg.norm(lab(tones[a]) - lab(tones[b])) > 12, (a, b)


# -- words ------------------------------------------------------------------------------------------------------------------

SPOKEN = st.lists(
    st.tuples(st.floats(0, 6), st.floats(0, 2), st.text(min_size=1, max_size=40), st.sampled_from(list(plot.MARKS))),
    max_size=30,
)


@given(SPOKEN, st.sampled_from(sorted(plot.WIDTHS.values())))
def test_no_box_lies_on_another_or_runs_out_of_the_row(spoken, wide):
    heard = [HeardWord(start, start + lasts, text, 1.0, 0.5, verdict) for start, lasts, text, verdict in sorted(spoken)]
    boxes = plot._boxes(heard, plot.Strip(0, 150, (wide - plot.LEFT - plot.RIGHT) / 150, wide))
    assert len(boxes) == len(heard)
    for box in boxes:
        assert plot.LEFT <= box.left < box.left + box.wide <= wide - plot.RIGHT + 1e-6
    for a, b in combinations(boxes, 2):
        assert a.lane != b.lane or a.left + a.wide <= b.left or b.left + b.wide <= a.left


def test_a_row_is_as_high_as_its_lines_of_words_and_ids_are_unique():
    line = [Moment(k / 25, 0.9, 0.9, None, True, True) for k in range(200)]
    crowd = [HeardWord(1 + k / 100, 1.1 + k / 100, "incomprehensibilities", 1.0, 0.5, "agrees") for k in range(9)]
    answer = replace(ANSWERS["real"], timeline=line, words=crowd, duration=8.0, face_share=1.0, voice_share=1.0)
    text = page.page(answer, BASIS, [], None)
    lowest = max(float(y) for y in re.findall(r'<rect class="yes"[^>]* y="(\d+)"', text))
    assert f'viewBox="0 0 760 {int(lowest) + 20}"' in text
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 4
    assert "<script" not in text


def test_the_line_of_an_answer_names_five_words_at_most():
    heard = [HeardWord(0, 1, f"w{k}", 1.0, 0.0, "disagrees") for k in range(7)]
    assert line(replace(ANSWERS["fake"], words=heard)).endswith("lips disagree with: w0, w1, w2, w3, w4 and 2 more")
    assert line(replace(ANSWERS["fake"], words=heard[:5])).endswith("w3, w4")


# -- the command ------------------------------------------------------------------------------------------------------------


def test_a_video_called_index_has_a_page_beside_the_list(tmp_path):
    names = [file.name for file in _pages(tmp_path, ["/v/index.mp4", "/w/index.mkv", "/v/a.mp4"])]
    assert names == ["index-2.html", "index-3.html", "a.html"]


@pytest.mark.parametrize("option", ["--reference", ""])
@pytest.mark.parametrize("address", ["https://example.org/watch.mp4", "s3://bucket/a.mp4"])
def test_an_address_is_one_line_that_says_to_download(tmp_path, option, address):
    given = [option, address, "here.mp4"] if option else [address]
    found = CliRunner().invoke(main, [*given, "--teacher-only", "--html", str(tmp_path / "pages")])
    assert found.exit_code == 2
    assert len(found.output.splitlines()) == 1
    assert (
        f"{address} is an address, and only files on this machine are judged: download the video first" in found.output
    )
    assert not (tmp_path / "pages").exists()


def test_a_folder_of_videos_gets_a_list_and_its_own_lists_are_replaced_alone(tmp_path, monkeypatch):
    """No model is needed for files that cannot be read."""
    monkeypatch.setattr(command, "basis", lambda *_: SimpleNamespace(told=lambda: BASIS))
    monkeypatch.setattr(
        command,
        "predict",
        lambda paths, *_: ((refusal(path, "unreadable", f"{path}: no"), None, None) for path in paths),
    )
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(bytes(range(256)) * 20)
    asked = [str(tmp_path), "--teacher-only", "--cpu", "--html", str(tmp_path / "pages")]
    assert CliRunner().invoke(main, asked).exit_code == 2  # none could be read
    assert {file.name for file in (tmp_path / "pages").iterdir()} == {"a.html", "b.html", "index.html", "index.csv"}
    assert list(read_csv((tmp_path / "pages" / "index.csv").read_bytes())["page"]) == ["a.html", "b.html"]
    assert CliRunner().invoke(main, asked).exit_code == 2
    (tmp_path / "pages" / "index.csv").write_text("mine")
    found = CliRunner().invoke(main, asked)
    assert "index.csv exists and is not a list of student.predict" in found.output
    assert (tmp_path / "pages" / "index.csv").read_text() == "mine"
    assert Path(tmp_path / "pages" / "index.html").read_text().count("<tr><td") == 2
