"""JSON of others is read with bounds and one kind of error; what we write is standard."""

import json

import numpy as np
import pytest

from concord import plain_json
from concord.plain_json import cleaned, is_count, parse, parse_dict, parse_exact
from concord.text import byte_size, spelled

NO_JSON = {
    "text": "soup",
    "bytes": b"\xff\xfe\x00",
    "deep": "[" * 100_000,
    "digits": "1" * 5000,
    "long": " " * 101,
}


@pytest.mark.parametrize("read", [parse, parse_exact])
@pytest.mark.parametrize("text", NO_JSON.values(), ids=NO_JSON)
def test_what_cannot_be_read_is_a_value_error(read, text):
    with pytest.raises(ValueError, match=r"\w"):
        read(text, most=100 if text == NO_JSON["long"] else 1 << 20)


def test_halves_of_surrogate_pairs_are_spelled_out_or_kept_as_bytes_of_names():
    name = "caf\udce9"  # a Latin-1 name of a file, as Python shows it
    assert parse(json.dumps({name: [name]})) == {"caf\\udce9": ["caf\\udce9"]}
    assert parse_exact(json.dumps({name: [name]})) == {name: [name]}
    with pytest.raises(ValueError, match="surrogates not allowed"):
        parse_exact(json.dumps("\ud800"))
    assert spelled("é\ud800") == "é\\ud800"


def test_an_object_is_asked_for():
    assert parse_dict(b'{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="its JSON is a list, expected an object"):
        parse_dict("[1]")


def test_counts_are_whole_numbers_within_bounds():
    assert is_count(0)
    assert is_count(3, 1, 3)
    assert not any(is_count(value, 1, 3) for value in (0, 4, True, 2.0, "2", None))


def test_what_is_written_is_standard_json():
    odd = {"a": (float("nan"), float("-inf"), 0.5), 3: np.arange(2), "b": np.float32(0.25), "c": np.int64(3)}
    wanted = {"a": [None, None, 0.5], "3": [0, 1], "b": 0.25, "c": 3}
    assert cleaned(odd) == wanted
    assert json.loads(json.dumps(cleaned(odd), allow_nan=False)) == wanted
    assert [type(value) for value in cleaned([np.float32(1), np.bool_(True), np.float64(2)])] == [float, bool, float]


def test_floats_may_keep_fewer_digits():
    assert cleaned({"a": [1 / 3, np.float32(1 / 3), 2]}, digits=6) == {"a": [0.333333, 0.333333, 2]}


def test_strings_and_keys_pass_through_the_given_function():
    assert cleaned({"\udcff": "\ud800", "n": None}, spelled) == {"\\udcff": "\\ud800", "n": None}


def test_types_that_json_lacks_are_refused():
    with pytest.raises(TypeError, match="JSON cannot hold a value of type set"):
        cleaned({"a": [{1}]})


def test_sizes_are_told_in_powers_of_1000():
    assert [byte_size(n) for n in (0, 1, 512, 312.5e6, 1_200_000_000)] == [
        "0 bytes",
        "1 byte",
        "512 bytes",
        "312.5 MB",
        "1.2 GB",
    ]


@pytest.mark.parametrize("text", [b'["\xed\xb3\xbf"]', '["\udcff"]', '["\\udcff"]', '["\\udcff"]'.encode("utf-16")])
def test_halves_of_surrogate_pairs_are_spelled_out_however_they_are_written(text):
    assert plain_json.parse(text) == ["\\udcff"]


def test_too_long_a_text_is_told_in_its_own_units():
    with pytest.raises(ValueError, match="5 characters, at most 4"):
        plain_json.parse("é" * 5, most=4)
    with pytest.raises(ValueError, match="10 bytes, at most 4"):
        plain_json.parse(("é" * 5).encode(), most=4)


@pytest.mark.parametrize("read", [parse, parse_exact])
def test_a_whole_number_that_no_float_can_hold_is_refused(read):
    assert read("[" + "9" * 300 + "]") == [10**300 - 1]
    with pytest.raises(ValueError, match="whole number of 301 digits"):
        read("[" + "9" * 301 + "]")
