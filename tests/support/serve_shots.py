"""Pictures of the pages of `store.serve` for docs/images, of a store with words and forgeries.

python tests/support/serve_shots.py STORE CLIP A B     # rows: a clip to play, two to compare
"""

import io
import sys
import threading
from pathlib import Path

from chromium import CHROMIUM, FLAGS
from PIL import Image
from playwright.sync_api import sync_playwright

import store
from store.serve.__main__ import bound
from store.serve.app import make_app
from store.serve.showing import Shown

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTH, HEIGHT = 960, 640


def main(path: str, clip: str, a: str, b: str) -> None:
    """Write three pictures."""
    server = bound(make_app(Shown(store.open(path))), 0)
    threading.Thread(target=server.run, daemon=True).start()
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(
            base_url=f"http://127.0.0.1:{server.effective_port}", viewport={"width": WIDTH, "height": HEIGHT}
        )
        page.goto("/?sort=against")
        shoot(page, "serve_list")
        for name, address in (("serve_player", f"/clip/{clip}"), ("serve_compare", f"/compare?a={a}&b={b}")):
            page.goto(address)
            page.locator(".plot .word").first.wait_for()
            page.locator(".plot").evaluate("plot => plot.scrollIntoView({ block: 'center' })")
            box = page.locator(".plot").bounding_box()
            page.mouse.click(box["x"] + 0.45 * box["width"], box["y"] + 80)
            page.wait_for_load_state("networkidle")
            page.evaluate("scrollTo(0, 0)")
            shoot(page, name, page.locator(".player").bounding_box())
        browser.close()


def shoot(page, name: str, box: dict | None = None) -> None:
    """The upper part of a page, down to the end of a box in it, as docs/images/NAME.png."""
    size = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 12 if box else HEIGHT + 160}
    picture = Image.open(io.BytesIO(page.screenshot(clip=size, full_page=True)))
    picture.convert("RGB").save(IMAGES / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
