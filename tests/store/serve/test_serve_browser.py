"""A real browser clicks through a store: filters, plays, seeks, compares, and visits failures and the audit."""

import re

import pytest
from chromium import CHROMIUM, FLAGS
from serving import serving
from shown_store import EVIL, HOSTILE, WORD

from store.serve import __main__ as command

WAIT_MS = 60_000  # that the browser may take on a busy machine


@pytest.fixture(scope="module")
def address(app):
    """Of the pages, answered by the server that the command runs."""
    with serving(command.bound(app, 0)) as here:
        yield here


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, of the extra dev, is not installed")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, address):
    """A tab in which nothing may go wrong, and which asks nobody else for anything."""
    tab = chromium.new_page(base_url=address)
    tab.set_default_timeout(WAIT_MS)
    wrong, asked = [], set()
    tab.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.on("dialog", lambda dialog: wrong.append(dialog.message))
    tab.on("request", lambda request: asked.add(request.url.split("/")[2] if "://" in request.url else request.url[:9]))
    yield tab
    tab.close()
    assert wrong == []
    assert asked == {address.partition("://")[2]}


def seconds(page):
    return float(page.locator(".plot").get_attribute("aria-valuenow"))


def after(page, time):
    """Waits until the playhead is there."""
    page.wait_for_function("t => Number(document.querySelector('.plot').ariaValueNow) >= t", arg=time)


def listen(page):
    """From now on keeps every word that is marked as spoken, in whichever moment that is."""
    page.evaluate("""() => {
        window.spoken = [];
        new MutationObserver((changes) => changes.forEach(({ target }) => {
            if (target.classList.contains("now")) spoken.push([target.classList[1], target.textContent]);
        })).observe(document.querySelector(".plot"), { subtree: true, attributeFilter: ["class"] });
    }""")


def spoken(page, which="w0"):
    """The words that were marked since, in order, of one clip."""
    return list(dict.fromkeys(text for name, text in page.evaluate("spoken") if name == which))


def head(page):
    """Where the playhead is, in pixels."""
    return float(re.search(r"translate\(([\d.]+)", page.locator(".plot .head").get_attribute("transform"))[1])


def mouth(page):
    return page.locator(".screen canvas").first.evaluate("canvas => canvas.toDataURL()")


def test_a_list_is_filtered_and_a_clip_plays_with_its_words(page):
    page.goto("/")
    assert page.locator("table.clips tbody tr").count() == 34
    page.select_option("select[name=label]", "fake")
    page.wait_for_url(re.compile("label=fake"))
    assert page.locator("section.list h2").inner_text() == "6 clips"
    page.get_by_role("link", name="real, lowest agreement first").click()
    page.wait_for_url(re.compile("sort=lowest"))
    values = [float(text) for text in page.locator(".agreement b").all_inner_texts()]
    assert values == sorted(values)
    assert len(values) == 28

    page.locator("table.clips .name a").nth(1).click()
    page.locator(".plot .word").nth(3).wait_for()
    assert page.locator("a[rel=prev]").count() == page.locator("a[rel=next]").count() == 1
    assert all(page.locator(f".plot .curve.{half}").get_attribute("d") for half in ("up", "down"))
    assert (seconds(page), page.locator(".plot .word.now").count()) == (0, 0)
    still, place = mouth(page), head(page)
    listen(page)
    page.select_option("select.rate", "0.25")  # so that it does not end before it is stopped
    page.get_by_role("button", name="Play").click()
    after(page, 0.3)
    page.locator(".caption mark").wait_for()
    page.keyboard.press("Space")
    page.get_by_role("button", name="Play").wait_for()
    stopped, most = seconds(page), float(page.locator(".plot").get_attribute("aria-valuemax"))
    assert 0.3 <= stopped < most
    assert head(page) > place
    assert mouth(page) != still
    assert re.search(r"frame \d+ · agreement [01]\.\d\d · real", page.locator(".readout").inner_text())
    page.select_option("select.rate", "1")
    page.keyboard.press("Space")  # the end stops it, and the next one begins anew
    after(page, most - 0.005)
    said = spoken(page)
    assert said[0] == "bin"
    assert len(said) > 1
    assert said == [word for word in ("bin", "blue", "at", WORD) if word in said]
    page.get_by_role("button", name="Play").click()
    page.wait_for_function("t => Number(document.querySelector('.plot').ariaValueNow) < t", arg=most - 0.005)


def test_the_curve_and_the_arrows_seek(page):
    page.goto(f"/clip/{HOSTILE}")
    page.locator(".plot .word").nth(3).wait_for()
    assert page.locator("h1").inner_text().startswith("<img src=x onerror")
    assert page.locator(".plot .word text").last.text_content() == WORD
    assert page.locator(".caption").inner_text().endswith(WORD)
    plot = page.locator(".plot")
    box = plot.bounding_box()
    page.mouse.click(box["x"] + 300, box["y"] + 80)
    at = seconds(page)
    assert head(page) == pytest.approx(300, abs=1)
    before = mouth(page)
    page.keyboard.press("ArrowRight")
    assert seconds(page) == pytest.approx(at + 0.04, abs=0.011)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert mouth(page) != before
    page.keyboard.press("ArrowLeft")
    assert seconds(page) == pytest.approx(at + 0.08, abs=0.011)
    page.keyboard.press("End")
    assert seconds(page) == pytest.approx(float(plot.get_attribute("aria-valuemax")), abs=0.011)
    page.keyboard.press("Home")
    assert seconds(page) == 0
    page.mouse.move(box["x"] + 200, box["y"] + 80)
    page.mouse.down()
    page.mouse.move(box["x"] + 500, box["y"] + 90)
    page.mouse.up()
    assert head(page) == pytest.approx(500, abs=1)


def test_flags_are_on_the_time_line(page):
    page.goto("/clip/1")
    page.locator(".plot .lane.still").wait_for()
    page.goto("/clip/2")
    for kind in ("no-face", "guessed", "no-voice"):
        page.locator(f".plot .lane.{kind}").wait_for()
    assert page.locator(".plot .lane.still").count() == 0
    assert page.locator(".badge").inner_text() == "no face"


def test_two_clips_are_compared(page):
    page.goto("/clip/0")
    page.get_by_role("link", name="compare with another clip").click()
    page.get_by_text("Choose the clip to compare with").wait_for()
    page.get_by_role("link", name="compare with this").nth(20).click()
    page.locator(".plot .curve.swap").wait_for()
    page.locator(".plot .word.w1").first.wait_for()
    assert page.locator(".screen canvas").count() == 2
    assert all(page.locator(f".plot .curve.{name}").get_attribute("d") for name in ("c0", "c1", "swap"))
    page.get_by_role("radio", name="B").check()
    assert "heard" in page.locator(".screen").nth(1).get_attribute("class")
    listen(page)
    page.get_by_role("button", name="Play").click()
    after(page, float(page.locator(".plot").get_attribute("aria-valuemax")) - 0.005)
    assert spoken(page, "w0")
    assert spoken(page, "w0") == spoken(page, "w1")


def test_failures_and_audit_lead_to_clips(page):
    page.goto("/")
    page.get_by_role("link", name="Failures").click()
    page.wait_for_url(re.compile("/failures$"))  # loaded: else its script may not listen yet
    assert page.locator("table.failures tbody tr").count() == 2
    page.select_option("select[name=reason]", "no_face")
    page.wait_for_url(re.compile("reason=no_face"))
    page.locator("table.failures .name a").click()
    page.get_by_text("This clip is not done: no_face").wait_for()
    page.get_by_role("link", name="Audit").click()
    page.get_by_text("3 of 5 people in test are also in train").first.wait_for()
    page.locator("details[open]").last.locator("li a").click()
    assert page.locator("h1").inner_text()[:10] == EVIL[:10]


def test_narrow_screens_need_no_scrolling_sideways(page):
    page.set_viewport_size({"width": 390, "height": 780})
    for path in ("/", "/clip/1", "/compare?a=0&b=3", "/failures", "/audit"):
        page.goto(path)
        page.wait_for_load_state("load")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
