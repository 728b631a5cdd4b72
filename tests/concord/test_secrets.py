"""Storage options: told by file or environment, refused on command lines where they may be secrets, and shown by nothing."""

import json
import os
import pickle
import time
import traceback

import pytest
from click.testing import CliRunner
from test_object_store import filled

import precompute
from concord import command, secrets
from concord.secrets import redact
from pipelines.audit import __main__ as audit
from pipelines.corpora.fields import ManifestError
from pipelines.corpora.manifest import load
from pipelines.doctor import __main__ as doctor
from pipelines.doctor.checks import Request
from pipelines.job import request
from pipelines.tables import ledger
from store import StoreError, inspect
from store.place import bucket, place

SECRET = "wJal/rXUtn+FEMI%bPxRfi"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_known", set())


@pytest.fixture
def hasty(monkeypatch):
    """Object stores that are tried once."""
    monkeypatch.setattr(bucket, "RETRY", bucket.HASTY_RETRY | {"max_retries": 0})
    bucket._client.cache_clear()


def options_file(folder, text, mode=0o600):
    file = folder / "options"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


@pytest.mark.parametrize(
    "pair",
    [
        f"aws_secret_access_key={SECRET}",
        f"AWS-Session-Token={SECRET}",
        f"aws_access_key_id={SECRET}",
        f"google_service_account_key={SECRET}",
        f"proxy_password={SECRET}",
        f"aws_endpoint=https://user:{SECRET}@host",
        f"aws_endpoint=https://host/?X-Amz-Signature={SECRET}",
        f"proxy_url=user:{SECRET}@proxy:3128",
    ],
)
def test_a_command_line_takes_no_secret(pair, tmp_path):
    """It stands in process lists and in Ray's table of jobs, so the command ends before it does anything with it."""
    given = ["--storage-option", pair]
    for main, words in (
        (precompute.main, ["--store", str(tmp_path / "s.zarr"), "--corpus", f"folder:{tmp_path}"]),
        (inspect.main, [str(tmp_path)]),
        (audit.main, ["--store", str(tmp_path)]),
        (doctor.main, []),
    ):
        done = CliRunner().invoke(main, [*words, *given])
        assert done.exit_code == 2, done.output
        assert "--storage-options-file" in done.output
        assert SECRET not in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "pair",
    ["aws_region=eu-west-1", "skip_signature=true", "aws_endpoint=https://host:9000/x", "timeout=9s", "allow_http=1"],
)
def test_a_command_line_takes_what_is_no_secret(pair):
    assert command._given([pair]) == dict([pair.split("=")])


def test_options_come_from_environment_file_and_command_line_the_last_wins(tmp_path, monkeypatch):
    seen = {}

    @command.storage_options()
    def main(options):
        seen.update(options)

    main = command.click.command(cls=command.Command)(main)
    monkeypatch.setenv(
        secrets.VARIABLE, "# of the project\naws_region=a\n aws_endpoint = http://e?x=1#y \ntimeout=1s\n"
    )
    file = options_file(tmp_path, json.dumps({"timeout": "2s", "allow_http": True, "aws_secret_access_key": SECRET}))
    done = CliRunner().invoke(main, ["--storage-options-file", file, "--storage-option", "allow_http=false"])
    assert done.exit_code == 0, done.output
    assert seen == {
        "aws_region": "a",
        "aws_endpoint": "http://e?x=1#y",
        "timeout": "2s",
        "allow_http": "false",
        "aws_secret_access_key": SECRET,
    }
    assert redact(f"no {SECRET} here") == "no ... here"  # known from now on, whatever fails


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [
        (f"aws_secret_access_key={SECRET}", 0o640, "chmod 600"),
        (f"aws_secret_access_key={SECRET}", 0o604, "chmod 600"),
        (f"aws_secret_access_key {SECRET}", 0o600, "KEY=VALUE"),
        (f"={SECRET}", 0o600, "KEY=VALUE"),
        (f'{{"key": "{SECRET}"', 0o600, "JSON object"),
        (f'{{"key": ["{SECRET}"]}}', 0o600, "JSON object"),
        ('{"key":' + "[" * 30_000, 0o600, "JSON object"),
        (SECRET * 10_000, 0o600, "bytes"),
    ],
)
def test_a_file_of_options_that_cannot_be_taken_is_told_without_its_content(tmp_path, text, mode, why):
    done = CliRunner().invoke(inspect.main, ["s3://b/s", "--storage-options-file", options_file(tmp_path, text, mode)])
    assert done.exit_code == 2
    assert why in done.output
    assert SECRET not in done.output


def test_a_file_of_options_that_is_none(tmp_path):
    for name, why in (("gone", "No such file"), ("", "Is a directory")):
        done = CliRunner().invoke(inspect.main, ["s3://b/s", "--storage-options-file", str(tmp_path / name)])
        assert (done.exit_code, why in done.output) == (2, True)


def test_the_environment_serves_every_place(s3, monkeypatch):
    """Training and prediction have no options of their own."""
    filled(f"{s3}/s.zarr")
    monkeypatch.setenv(secrets.VARIABLE, json.dumps({"aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"]}))
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert (place(s3) / "s.zarr" / "zarr.json").exists()
    monkeypatch.setenv(secrets.VARIABLE, SECRET)
    with pytest.raises(StoreError, match=f"the variable {secrets.VARIABLE} must hold") as caught:
        place("s3://other/x").exists()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("s3://x/y", {"aws_endpoint_url": "https://user:hunter2@127.0.0.1:1", "skip_signature": "true"}),
        ("s3://x/y", {"aws_endpoint_url": "https://user:hun/ter2@127.0.0.1:1", "skip_signature": "true"}),
        ("s3://x/y", {"aws_endpoint_url": "https://127.0.0.1:1/?X-Amz-Signature=hunter2", "skip_signature": "true"}),
        ("s3://x/y", {"skip_signature": "hunter2"}),
        ("s3://x/y", {"timeout": "hunter2"}),
        ("s3://x/y", {"aws_endpoint_url": "https://hunter2 @127.0.0.1:1", "skip_signature": "true"}),
        ("s3://x/y", {"aws_web_identity_token_file": "/hunter2", "aws_role_arn": "r"}),
        ("gs://x/y", {"google_application_credentials": "/no/hunter2.json"}),
        ("gs://x/y", {"google_service_account_key": '{"private_key": "hunter2"'}),
        ("s3://x/y?X-Amz-Signature=hunter2", {}),
        ("s3://user:hunter2@x/y", {}),
        ("https://user:hunter2@host/y?sig=hunter2", {}),
    ],
)
def test_no_message_and_no_traceback_of_an_object_store_shows_an_option(url, options, hasty):
    with pytest.raises(StoreError) as caught:
        place(url, options).read()
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in "\n".join(
        line for line in shown.splitlines() if not line.startswith("    ")
    )  # not our code
    assert "ter2" not in str(caught.value)
    assert redact(str(caught.value)) == str(caught.value)


def test_a_clip_with_a_presigned_url_is_refused_not_stored(tmp_path):
    for url in ("s3://b/a.mp4?X-Amz-Credential=c&X-Amz-Signature=hunter2", "https://h/a.mp4?sig=hunter2"):
        (tmp_path / "m.csv").write_text(f"path\n{url}\n")
        with pytest.raises(ManifestError) as caught:
            load(f"csv:{tmp_path}/m.csv")
        assert "hunter2" not in redact(str(caught.value))
    assert str(place("s3://b/who is it?.mp4")) == "s3://b/who is it?.mp4"  # a name like any other


def test_nothing_shows_options_that_travel(tmp_path):
    where = place("s3://b/s", {"aws_secret_access_key": SECRET})
    config = request.Config(store=where)
    asked = Request(options=where.options)
    for thing in (where, where.options, config, asked, pickle.loads(pickle.dumps(where.options))):
        assert SECRET not in repr(thing)
    there = pickle.loads(pickle.dumps(where))
    assert there.options == {"aws_secret_access_key": SECRET}
    entry = ledger.Entry("a", "p", "face", "error", f"KeyError: {{'aws_secret_access_key': '{SECRET}'}}")
    ledger.write(tmp_path, [entry])
    assert SECRET not in ledger.read(tmp_path)["a"].message


def test_a_worker_knows_the_secrets_that_came_to_it(monkeypatch):
    sent = pickle.dumps(place("s3://b/s", {"aws_session_token": SECRET, "allow_http": "true", "aws_region": "eu"}))
    monkeypatch.setattr(secrets, "_known", set())
    assert SECRET in redact(SECRET)
    pickle.loads(sent)
    assert redact(f"true, eu: {SECRET}, {SECRET.replace('/', '%2F').replace('+', '%2B').replace('%b', '%25b')}") == (
        "true, eu: ..., ..."
    )


def test_values_that_are_common_or_short_stay_in_texts():
    secrets.know({"aws_session_token": "true", "api_key": "abc", "password": "pass", "a_credentials_file": "/data"})
    assert redact("it is true: abcdef passes /data/clips/a.mp4") == "it is true: abcdef passes /data/clips/a.mp4"
    assert redact("pass is wrong; /data: no such file") == "... is wrong; ...: no such file"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://u:p@h:1/x in 3 ms", "GET https://...@h:1/x in 3 ms"),
        ("http://h:80/a@2/b", "http://h:80/a@2/b"),
        ("https://h/x?a=1&X-Amz-Signature=b", "https://h/x?..."),
        ("http://h/b?list-type=2&prefix=a", "http://h/b?list-type=2&prefix=a"),
        ("--x=1 AWS_SECRET_ACCESS_KEY=abcdef y", "--x=1 AWS_SECRET_ACCESS_KEY=... y"),
        ('{"aws_session_token": "a b c", "n": 1}', '{"aws_session_token": ..., "n": 1}'),
        ("Authorization: Bearer abcdefghijklmnopqrstuvw", "Authorization: Bearer ..."),
        ("AKIAIOSFODNN7EXAMPLE is wrong", "... is wrong"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----.", "...."),
        ("Unexpected token: foobar; a key=value pair", "Unexpected token: foobar; a key=value pair"),
        ("SignatureDoesNotMatch: The request signature", "SignatureDoesNotMatch: The request signature"),
        ("a clip s3://b/what? no.mp4", "a clip s3://b/what? no.mp4"),
    ],
)
def test_redaction_knows_forms_and_leaves_the_rest(text, shown):
    assert redact(text) == shown
    assert redact(shown) == shown


def test_redaction_takes_no_time_to_speak_of():
    for piece in ("a", "token", "a://b:", "a.", "?token%3D", 'token="', "https://a?", "secret_", "password:'", "%26"):
        begun = time.monotonic()
        redact(piece * (100_000 // len(piece)))
        assert time.monotonic() - begun < 10


def test_the_command_line_that_a_store_keeps_has_no_url_with_a_password():
    said = request.command(["p.py", "--corpus", "csv:https://u:hunter2@h/m.csv", "--root", "s3://b/x?sig=hunter2"])
    assert "hunter2" not in said


def test_debug_shows_tracebacks_without_secrets(tmp_path, monkeypatch):
    """Also in unexpected errors, with known values."""
    secrets.know({"aws_secret_access_key": SECRET})
    monkeypatch.setattr(precompute, "run", lambda config: {}[f"https://u:pw@h {SECRET}"])
    for more in ([], ["--debug"]):
        done = CliRunner().invoke(precompute.main, ["--store", str(tmp_path / "s"), *more])
        assert done.exit_code == 1
        assert ("Traceback" in done.output) == bool(more)
        assert SECRET not in done.output
        assert "pw" not in done.output
