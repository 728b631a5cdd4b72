"""The pages of a store: who gets an answer, that nothing is written, and that hostile names are only shown."""

import hashlib
import json
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from html.parser import HTMLParser
from urllib.parse import quote, urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
from flask.testing import FlaskClient
from serving import serving
from shown_store import AUDIT, EVIL, HELD, HOSTILE, WORD
from small_store import make_store

import concord.text
import store
from concord import ConcordError
from concord import frames as bits
from store.place import place
from store.serve import __main__ as command
from store.serve import audit, browse, playing
from store.serve.agreement import Progress
from store.serve.app import make_app
from store.serve.showing import Shown

PAGES = (
    "/",
    "/?sort=against",
    "/?with=0",
    f"/clip/{HOSTILE}",
    "/clip/35",
    f"/compare?a=0&b={HOSTILE}",
    "/failures",
    "/audit",
)
DATA = ("/clip/0/frames.json", "/clip/0/words.json", "/clip/0/mouth/0.jpg", "/clip/0/thumbnail.jpg", "/clip/0/sound.wav",
        "/swap.json?a=0&b=1", "/style.css", "/static/player.js", "/static/icon.svg")  # fmt: skip
NOTHING = ("/clip/36", "/clip/36/sound.wav", "/clip/-1", "/clip/0/mouth/9.jpg", "/clip/0x1", "/clip/..%2f..%2fzarr.json",
           "/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fapp.py", "/../zarr.json", "/zarr.json")  # fmt: skip


class Outline(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


class Buffered(FlaskClient):
    """Answers are read and closed at once."""

    def open(self, *args, **more):
        return super().open(*args, **{"buffered": True, **more})


@pytest.fixture
def client(app):
    return asking(app)


def asking(app):
    app.test_client_class = Buffered
    return app.test_client()


def page(client, address):
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.text


# ------------------------------------------------------------------------------------------------ who gets an answer


@pytest.mark.parametrize("address", [*PAGES, *DATA])
def test_every_answer_is_for_this_machine_and_its_own_pages_alone(client, address):
    answer = client.get(address)
    assert answer.status_code == 200
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert {*policy.values()} == {"'self'", "'none'"}
    assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in answer.headers
    for host in ("127.0.0.1:8520", "localhost", "localhost:9000"):
        assert client.get(address, headers={"Host": host}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "192.168.0.7:8520", "0.0.0.0", ""):
        refused = client.get(address, headers={"Host": host, "Origin": "http://evil.example"})
        assert refused.status_code == 400, host
        assert refused.text in ("this page answers to 127.0.0.1 and localhost alone\n",)


@pytest.mark.parametrize("address", ["/", "/clip/0", "/clip/0/sound.wav", "/audit", "/static/player.js"])
def test_only_reading_is_allowed(client, address):
    for method in ("post", "put", "patch", "delete", "options"):
        assert getattr(client, method)(address).status_code == 405 or (
            address.startswith("/static") and method == "options"
        )
    head = client.head(address)
    assert head.status_code == 200
    assert head.data == b""


@pytest.mark.parametrize("address", NOTHING)
def test_nothing_is_found_by_a_path(client, address):
    answer = client.get(address)
    assert answer.status_code in (404, 500)
    assert b"zarr_format" not in answer.data
    assert b"import" not in answer.data


def test_the_store_keeps_every_byte(path, tmp_path):
    here = shutil.copytree(path, tmp_path / "s.zarr")

    def state():
        return {
            str(file): (
                hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "",
                file.stat().st_mtime_ns,
            )
            for file in [here, *here.rglob("*")]
        }

    before = state()
    client = asking(make_app(Shown(store.open(here))))
    for address in (*PAGES, *DATA, *NOTHING):
        client.get(address)
        client.post(address, data={"id": "x"})
    assert state() == before


def test_pages_load_nothing_from_elsewhere_and_have_no_script_of_their_own(client):
    for address in (*PAGES, "/static/player.js", "/style.css"):
        text = client.get(address).text
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text.replace("http://127.0.0.1", "")), address
        assert not re.search(r"<script(?! (type=\"module\" )?src=\"/static/)", text)
        assert not re.search(r"\son\w+=\"|\sstyle=\"|javascript:", text)


# ------------------------------------------------------------------------------------------------ hostile names


@pytest.mark.parametrize("address", PAGES)
def test_hostile_names_are_only_shown(client, address):
    text = page(client, address)
    outline = Outline(text)
    assert not {"b\x00", "iframe", "object"} & {*outline.tags}
    assert all(src.startswith(("/clip/", "/static/")) for name, src in outline.attributes if name == "src")
    assert "onerror" not in {name for name, _ in outline.attributes}
    assert "\u202e" not in text
    assert EVIL not in text
    hrefs = [href for name, href in outline.attributes if name == "href"]
    assert all(href.startswith("/") and not href.startswith("//") for href in hrefs)


def test_a_hostile_name_is_found_in_its_places(client):
    shown = concord.text.html(EVIL)
    assert all(shown in page(client, address) for address in ("/", f"/clip/{HOSTILE}", "/failures", "/audit"))
    assert client.get(f"/clip/{HOSTILE}/words.json").json[-1]["text"] == WORD
    assert client.get(f"/clip/{HOSTILE}/words.json").mimetype == "application/json"
    method = next(v for n, v in Outline(page(client, "/")).attributes if n == "value" and v and v.startswith("=<img"))
    found = client.get("/", query_string={"method": f"={EVIL}"}).text
    assert "<h2>1 clip</h2>" in found
    assert method == "=" + EVIL.replace("\u202e", "\\u202e")


@pytest.mark.parametrize("query", ["page=9e9", "page=-1", "page=", "sort=x&label=y&show=z", "corpus=synthetic",
                                   "text=" + "%00" * 300, "group=%3D%ff", "with=", "page=99999999999999999999"])  # fmt: skip
def test_odd_addresses_show_the_list(client, query):
    assert "<h2>34 clips</h2>" in page(client, f"/?{query}") or query.startswith(("text", "group"))


@pytest.mark.parametrize("address", ["/compare", "/compare?a=0", "/compare?a=0&b=x", "/compare?a=0&b=35", "/compare?a=0&b=999",
                                     "/?with=x", "/clip/0/frames.json?start=-1", "/swap.json?a=0&b=99"])  # fmt: skip
def test_what_cannot_be_shown_is_one_sentence(client, address):
    answer = client.get(address)
    assert answer.status_code in (400, 404)
    told = answer.json["error"] if ".json" in address else Outline(answer.text).text
    assert re.search(r"two clips|not done|no clip|number of frames", told)


# ------------------------------------------------------------------------------------------------ what a clip has


def test_frames_are_those_of_the_store(client, reader, monkeypatch):
    monkeypatch.setattr(playing, "PART", 20)
    length, at = reader.clip(HELD).length, 0
    got = {name: [] for name in ("similarity", "flags", "fake", "peaks")}
    while at < length:
        part = client.get(f"/clip/{HELD}/frames.json?start={at}").json
        assert (part["start"], part["length"], part["lost"]) == (at, length, [])
        for name, values in got.items():
            values += part[name]
        at = part["stop"]
    stored = reader.frames(HELD, 0, length, ["similarity", "flags", "audio"])
    assert got["flags"] == stored["flags"].tolist()
    known = store.layout.labelled(stored["flags"], stored["flags"])
    assert [value is not None for value in got["similarity"]] == known.tolist()
    values = np.array([v for v in got["similarity"] if v is not None])
    np.testing.assert_allclose(values / 1000, stored["similarity"][known], atol=6e-4)
    np.testing.assert_allclose(got["peaks"], np.abs(stored["audio"].astype(int)).max(axis=1) / 327.68, atol=1)


def test_a_sheet_has_the_crops_in_rows(client, reader, monkeypatch):
    import cv2

    monkeypatch.setattr(playing, "SHEET", 30)
    monkeypatch.setattr(playing, "COLUMNS", 8)
    crops = reader.frames(0, 30, reader.clip(0).length, ["mouth"])["mouth"]
    data = np.frombuffer(client.get("/clip/0/mouth/1.jpg").data, np.uint8)
    sheet = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (96 * -(-len(crops) // 8), 96 * 8)
    for k, crop in enumerate(crops):
        y, x = 96 * (k // 8), 96 * (k % 8)
        assert np.abs(sheet[y : y + 96, x : x + 96].astype(int) - crop).mean() < 6


def test_sound_is_the_stored_one_in_any_range(client, reader):
    import io
    import wave

    whole = client.get("/clip/4/sound.wav")
    assert (whole.status_code, whole.headers["Accept-Ranges"]) == (200, "bytes")
    samples = reader.frames(4, 0, reader.clip(4).length, ["audio"])["audio"]
    with wave.open(io.BytesIO(whole.data)) as sound:
        assert sound.getparams()[:4] == (1, 2, 16_000, samples.size)
        assert sound.readframes(samples.size) == samples.astype("<i2").tobytes()
    for first, last in ((0, 0), (10, 43), (40, 47), (1001, 4321), (len(whole.data) - 3, len(whole.data) - 1)):
        part = client.get("/clip/4/sound.wav", headers={"Range": f"bytes={first}-{last}"})
        assert part.status_code == 206
        assert part.headers["Content-Range"] == f"bytes {first}-{last}/{len(whole.data)}"
        assert part.data == whole.data[first : last + 1]
    assert client.get("/clip/4/sound.wav", headers={"Range": f"bytes={len(whole.data)}-"}).status_code == 416


def test_lips_of_one_with_the_sound_of_another_are_the_readers(client, reader):
    got = client.get("/swap.json?a=0&b=5").json["similarity"]
    wanted = reader.pair_similarity(0, 5)
    assert len(got) == len(wanted)
    np.testing.assert_allclose(
        [v / 1000 for v in got if v is not None], wanted[[v is not None for v in got]], atol=6e-4
    )


def test_a_clip_that_failed_has_its_reason_in_place_of_a_player(client):
    text = page(client, "/clip/34")
    assert "no_face in stage decode. a face was found in 3 of 50 frames" in text
    assert "<canvas" not in text


def test_scripts_and_store_agree_on_bits_and_rates():
    script = (command.Path(playing.__file__).parent / "static" / "clip.js").read_text()
    told = dict(re.findall(r"([A-Z_]+) = (\d+)", script))
    named = ("FPS", "FACE_DETECTED", "FACE_INTERPOLATED", "AUDIO_PRESENT", "VOICE_ACTIVE", "HELD")
    assert {name: int(told[name]) for name in named} == {name: getattr(bits, name) for name in named}
    assert int(told["SIDE"]) == store.layout.FRAME_ARRAYS["mouth"][1][0]


# ------------------------------------------------------------------------------------------------ failures and audit


def test_failures_are_filtered(client):
    assert "<h2>2 failed clips</h2>" in page(client, "/failures")
    assert "<h2>1 failed clip</h2>" in page(client, "/failures?reason=no_face")
    assert "<h2>1 failed clip</h2>" in page(client, "/failures?text=3+of+50")
    assert "No failure is like that" in page(client, "/failures?reason=none")
    assert 'href="/clip/34"' in page(client, "/failures")


def test_the_audit_is_shown_and_its_clips_are_links(client):
    text = page(client, "/audit")
    for told in (AUDIT["findings"][0], "1 finding", "loudness", "0.910", "not checked: no names", "held pictures"):
        assert told in text
    assert all(f'<a href="/clip/{row}"' in text for row in (0, 24, HOSTILE))


@pytest.mark.parametrize("change", [{"rows": "many"}, {"allow": 10**400}, {"findings": [1]}, {"checked": None}, {"leaks": [{}]},
                                    {"shortcuts": {}},
                                    {"soft_labels": {"methods": {"real": [0.5]}}}])  # fmt: skip
def test_a_file_that_is_no_audit_is_refused(reader, tmp_path, change):
    (tmp_path / "a.json").write_text(json.dumps({**AUDIT, **change}))
    with pytest.raises(store.StoreError, match=r"a\.json is no report of pipelines\.audit"):
        Shown(reader, place(tmp_path / "a.json"))


def test_what_the_audit_writes_is_what_is_read(reader):
    """Of the records of `pipelines.audit`, so that a field with another name is noticed."""
    from pipelines.audit.coverage import Checked
    from pipelines.audit.found import Found
    from pipelines.audit.leaks import Leak, Shared
    from pipelines.audit.shortcuts import Shortcut
    from pipelines.corpora.faults import ClipFault, FaultKind

    found = Found(
        rows=36,
        distinct=34,
        counts={},
        shortcuts=[Shortcut("c", "duration", "all", 0.9, 0.8, 1, 30, 40, sure=True)],
        checked={"people": Checked(0, 36, "identities", "no people named", 0, 0)},
        leaks=[
            Leak("identity", ("train", "test"), 1, 2, [Shared("p", 3, 4)], "any", "identities"),
            Leak("content", ("train", "test"), 1, 9, [Shared("x", "train000r", "test000r")]),
        ],
        faults=[FaultKind("not_done", 1, [ClipFault("not_done", "train001r", "it was not processed yet")])],
        soft_labels={"real": [1, 2, 3]},
    )
    read = audit.parse(json.dumps(found.to_json()).encode())
    (short,), people, content = read.shortcuts, *read.leaks
    assert (short.nuisance, short.low, short.high, short.reals, short.fakes, short.finding) == (
        "duration",
        0.8,
        1,
        30,
        40,
        True,
    )
    assert [one.text for one in people.examples] == ["clips: 3 in train, 4 in test"]
    assert [one.id for one in content.examples] == ["train000r", "test000r"]
    assert read.findings == tuple(found.findings)
    assert (read.checks[0].why, read.soft_labels, read.faults[0].examples[0].id) == (
        "no people named",
        {"real": (1, 2, 3)},
        "train001r",
    )


# ------------------------------------------------------------------------------------------------ what a store lacks


def without(path, folder, *files):
    here = shutil.copytree(path, folder / "s.zarr")
    for file in files:
        (here / file).unlink()
    return asking(make_app(Shown(store.open(here))))


def test_a_store_without_ledger_and_audit_says_so(path, tmp_path):
    client = without(path, tmp_path, "ledger.parquet", "audit.json")
    assert "there is no ledger.parquet" in page(client, "/failures")
    assert "was not audited yet" in page(client, "/audit")


def test_a_damaged_chunk_is_told_and_the_rest_is_shown(path, tmp_path):
    here = shutil.copytree(path, tmp_path / "s.zarr")
    shard = next((here / "frames" / "audio" / "c" / "0").rglob("*"))
    data = bytearray(shard.read_bytes())
    data[2000:3000] = bytes(1000)
    shard.write_bytes(data)
    client = asking(make_app(Shown(store.open(here))))
    part = client.get("/clip/0/frames.json").json
    assert part["peaks"] is None
    assert "frames/audio cannot be read" in part["lost"][0]
    assert len(part["similarity"]) == part["length"]
    assert client.get("/clip/0/sound.wav").status_code == 500
    assert "frames/audio cannot be read" in client.get("/clip/0/sound.wav").text
    assert page(client, "/clip/0")


def test_a_store_without_a_fit_has_no_agreement(tmp_path):
    from small_store import make_store

    client = asking(make_app(Shown(store.open(make_store(tmp_path / "s.zarr", {"train": 3}, frames=30, fit=False)))))
    assert "the store has no fit yet" in page(client, "/?sort=lowest")
    assert set(client.get("/clip/0/frames.json").json["similarity"]) == {None}
    assert 'class="curve swap"' not in page(client, "/compare?a=0&b=1")
    assert client.get("/swap.json?a=0&b=1").status_code == 500


def test_a_store_without_sound_or_crops_says_so(path, reader, monkeypatch):
    shown = Shown(reader)
    monkeypatch.setattr(reader, "names", [name for name in reader.names if name not in ("audio", "mouth")])
    client = asking(make_app(shown))
    text = page(client, "/clip/0")
    assert "This store has no sound" in text
    assert "This store has no mouth crops" in text
    assert "<audio" not in text
    assert client.get("/clip/0/frames.json").json["peaks"] is None


def test_an_empty_store_is_shown(tmp_path):
    store.create(tmp_path / "s.zarr", {"asr": 4, "vsr": 4}, {"teachers": {}}).consolidate()
    client = asking(make_app(Shown(store.open(tmp_path / "s.zarr"))))
    for address in ("/", "/?sort=lowest", "/failures", "/audit"):
        assert page(client, address)
    assert "No clip of the store is like that" in page(client, "/")
    assert client.get("/clip/0").status_code == 404


def test_a_list_says_how_many_clips_were_read_and_comes_again(shown, client, monkeypatch):
    monkeypatch.setattr(shown.agreement, "gather", lambda wait_s: Progress(7, 34, 2))
    answer = client.get("/?sort=lowest")
    assert "Agreement of 7 of 34 clips has been read so far" in answer.text
    assert "2 clips cannot be read" in answer.text
    assert answer.headers["Refresh"] == "3"
    assert "Refresh" not in client.get("/").headers


def test_a_damaged_ledger_or_audit_hides_no_clips(path, tmp_path):
    here = shutil.copytree(path, tmp_path / "s.zarr")
    (here / "ledger.parquet").write_bytes(b"PAR1" + bytes(100))
    (here / "audit.json").write_text("{}")
    client = asking(make_app(Shown(store.open(here))))
    assert "ledger.parquet is damaged" in page(client, "/failures")
    assert "audit.json is no report of pipelines.audit" in page(client, "/audit")
    assert "<h2>34 clips</h2>" in page(client, "/")


# ------------------------------------------------------------------------------------------------ the command


def run(*words, **more):
    return subprocess.Popen(
        [sys.executable, "-m", "store.serve", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def test_the_command_prints_one_line_answers_and_ends_with_ctrl_c(path):
    import signal

    with run(path, "--port", 0) as server:
        line = server.stdout.readline()
        found = re.fullmatch(r"(http://127\.0\.0\.1:\d+/) shows s\.zarr, 36 clips; Ctrl-C ends it\n", line)
        assert found, line + server.stderr.read()
        with urlopen(found[1]) as answer:
            assert b"<h2>34 clips</h2>" in answer.read()
            assert "Server" not in answer.headers
        server.send_signal(signal.SIGINT)
        out, errors = server.communicate(timeout=60)
    assert (server.returncode, out, errors.strip()) == (130, "", "stopped")


def test_a_taken_port_is_one_sentence(app):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConcordError, match=rf"^port {port} is taken; give another one, or --port 0"):
            command.bound(app, port)


def test_it_listens_on_this_machine_alone(app):
    server = command.bound(app, 0)
    assert server.effective_host == server.socket.getsockname()[0] == "127.0.0.1"
    server.task_dispatcher.shutdown()
    server.close()
    assert not {"--host", "--bind"} & {name for param in command.main.params for name in param.opts}


def test_who_typed_concord_gets_his_own_words_back(client, monkeypatch):
    from concord import commands

    monkeypatch.setattr(commands, "by_name", lambda: True)
    for words in ("precompute.py --refit", "run precompute.py"):
        text = page(client, f"/?text={quote(words)}")
        assert f'name="text" value="{words}"' in text
        assert "concord precompute" not in text


def test_what_is_missing_is_told_with_the_command_that_was_typed(tmp_path, monkeypatch):
    from concord import commands

    monkeypatch.setattr(commands, "by_name", lambda: True)
    path = make_store(tmp_path / "run precompute.py.zarr", {"train": 3}, fit=False)
    shown = Shown(store.open(path))
    text = page(asking(make_app(shown)), "/")
    assert "no soft labels; concord precompute makes one from real clips" in text
    assert "run precompute.py.zarr" in text


@pytest.mark.parametrize("most", [None, 20])
def test_idle_connections_do_not_shut_out_a_request(most, app, monkeypatch):
    """Neither many of them, nor as many as there may be: those are closed."""
    count = 150
    if most is not None:
        count = 2 * most
        for name, value in {"CONNECTIONS": most, "IDLE_S": 1, "LOOK_S": 1}.items():
            monkeypatch.setattr(command, name, value)
    with serving(command.bound(app, 0)) as address, ExitStack() as idle:
        for _ in range(count):
            idle.enter_context(socket.create_connection(("127.0.0.1", urlsplit(address).port), timeout=10))
        with urlopen(f"{address}/style.css", timeout=15) as answer:
            assert answer.status == 200


def test_other_things_than_stores_are_refused(tmp_path):
    from click.testing import CliRunner

    (tmp_path / "notes.txt").write_text("no store")
    for word in (tmp_path, tmp_path / "notes.txt", tmp_path / "gone"):
        done = CliRunner().invoke(command.main, [str(word)])
        assert done.exit_code == 2, done.output
        assert len(done.stderr.strip().splitlines()) == 1


def test_an_audit_that_is_not_there_is_refused(path, tmp_path):
    from click.testing import CliRunner

    done = CliRunner().invoke(command.main, [str(path), "--audit", str(tmp_path / "a.json")])
    assert (done.exit_code, "there is no file" in done.stderr) == (2, True)


def test_pages_are_cut_on_the_server(client, monkeypatch):
    monkeypatch.setattr(browse, "PAGE", 12)
    texts = [page(client, f"/?page={number}") for number in (1, 2, 3, 9)]
    assert [text.count('class="thumb"') for text in texts] == [12, 12, 10, 10]
    assert 'rel="prev"' not in texts[0]
    assert 'href="/?page=2"' in texts[0]
    assert texts[2] == texts[3]
