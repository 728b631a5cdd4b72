"""Checkpoints of others are read as data: what they hold arrives, what they ask for is refused and never runs."""

import argparse
import collections
import functools
import operator
import os
import pickle
import subprocess
import time
import zipfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from teachers import TeacherError
from teachers.files.checkpoint import LEGACY_START, read
from teachers.files.makers import Stub

LEGACY = {"_use_new_zipfile_serialization": False}


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


def packed(path, program, storages=None):
    """A zip container around a pickle program."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", program)
        for key, data in (storages or {}).items():
            file.writestr(f"archive/data/{key}", data)
    return path


@pytest.fixture
def marker(tmp_path):
    """A file that a command would make; absent when the test ends, or it fails."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


def commands(marker):
    """{name that must be refused: an object whose unpickling makes the marker}."""
    code = f"open({str(marker)!r}, 'w').close()"
    shell = f"touch {marker}"
    return {
        "posix.system": Calls(os.system, shell),
        "builtins.eval": Calls(eval, code),
        "builtins.exec": Calls(exec, code),
        "builtins.getattr": Calls(getattr, "text", "upper"),
        "subprocess.Popen": Calls(subprocess.Popen, ["touch", str(marker)]),
        "subprocess.check_call": Calls(subprocess.check_call, ["touch", str(marker)]),
        "operator.attrgetter": Calls(operator.attrgetter, "__class__"),
        "io.open": Calls(open, str(marker), "w"),
        "torch.hub.load": Calls(torch.hub.load, "owner/name", "model"),
        "functools.partial": Calls(functools.partial, print),
    }


PLACES = ("", "model", "cfg", "task_state", "last_optimizer_state")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_commands_are_refused_by_name_and_do_not_run(tmp_path, marker, place, options):
    for refused, evil in commands(marker).items():
        content = {"model": {"w": torch.ones(2)}, "cfg": {"model": {}}, "task_state": {}, "last_optimizer_state": {}}
        (content[place] if place else content)["z"] = evil
        path = tmp_path / "evil.pt"
        torch.save(content, path, **options)
        with pytest.raises(TeacherError, match=f"{path} asks for '{refused}'.*refused") as caught:
            read(path)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_command_inside_a_permitted_object_does_not_run(tmp_path, marker):
    """As arguments, as state, as items and as keys of what is allowed."""
    evil = b"cposix\nsystem\nX%s%s\x85R" % (len(f"touch {marker}").to_bytes(4, "little"), f"touch {marker}".encode())
    dictionary = b"cfairseq.data.dictionary\nDictionary\n"
    for program in (
        dictionary + b"(" + evil + b"tR",
        dictionary + b")\x81}X\x01\x00\x00\x00a" + evil + b"sb",
        b"ccollections\nOrderedDict\n(]" + evil + b"atR",
        b"ccollections\ndefaultdict\n(cposix\nsystem\ntR",
        b"}" + evil + b"K\x01s",
    ):
        with pytest.raises(TeacherError, match=r"posix\.system"):
            read(packed(tmp_path / "evil.pt", b"\x80\x02" + program + b"."))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch", "serialization.os.system"),
        ("torch", "_utils._rebuild_tensor_v2"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "OrderedDict.__init__"),
        ("argparse", "Namespace.__class__"),
        ("argparse", "_sys"),
        ("fairseq.data.dictionary", "Dictionary.load"),
        ("numpy", "load"),
        ("_codecs", "decode"),
    ],
)
def test_names_within_allowed_modules_and_classes_are_refused(tmp_path, module, name):
    text = b"".join(b"\x8c" + bytes([len(part)]) + part.encode() for part in (module, name))
    path = packed(tmp_path / "evil.pt", b"\x80\x04" + text + b"\x93)R.")
    with pytest.raises(TeacherError, match=f"asks for '{module}.{name}'"):
        read(path)


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR", id="another codec"),
        pytest.param(b"c__builtin__\nint\n(X\x01\x00\x00\x001tR", id="int of text"),
        pytest.param(b"c__builtin__\nbytes\n(J\xff\xff\xff\x7ftR", id="two gigabytes of zeros"),
        pytest.param(b"c__builtin__\nstr\n)R", id="a name that is no maker"),
        pytest.param(b"cargparse\nNamespace\n}X\x01\x00\x00\x00a}sb0}", id="state for a class"),
        pytest.param(b"]}X\x07\x00\x00\x00__len__K\x01sb", id="state for a list"),
        pytest.param(b"cfairseq.data.dictionary\nDictionary\n)\x81K\x01a", id="append to a stub"),
        pytest.param(b"(cargparse\nNamespace\no", id="old way of making an object"),
        pytest.param(b"(icollections\nOrderedDict\n", id="another old way"),
        pytest.param(b"\x82\x01", id="extension registry"),
        pytest.param(b"\x96" + b"\xff" * 7 + b"\x7f", id="huge bytearray"),
        pytest.param(b"X\xff\xff\xff\x7fabc", id="text longer than the file"),
        pytest.param(b"Pname\n", id="persistent id of text"),
        pytest.param(b"K\x01Q", id="persistent id of a number"),
        pytest.param(b"(X\x06\x00\x00\x00moduleK\x01K\x01K\x01K\x01tQ", id="persistent id of a module"),
        pytest.param(b"h\x07", id="value never stored"),
    ],
)
def test_odd_uses_of_what_is_allowed_are_errors(tmp_path, program):
    with pytest.raises(TeacherError, match=r"evil\.pt"):
        read(packed(tmp_path / "evil.pt", b"\x80\x02}" + program + b"."))


def storage(kind="FloatStorage", key="0", numel=4):
    """Program that puts a storage on the stack."""
    key = key.encode()
    return b"(X\x07\x00\x00\x00storagectorch\n%s\nX%s%sX\x06\x00\x00\x00cuda:0J%stQ" % (
        kind.encode(),
        len(key).to_bytes(4, "little"),
        key,
        numel.to_bytes(4, "little", signed=True),
    )


def tensor(offset, size, stride, given=None):
    """Program of a dict {1: tensor}."""
    numbers = [
        b"(" + b"".join(b"J" + n.to_bytes(4, "little", signed=True) for n in part) + b"t" for part in (size, stride)
    ]
    rebuilt = b"J" + offset.to_bytes(4, "little", signed=True) + numbers[0] + numbers[1] + b"\x89}tR"
    return b"\x80\x02}K\x01ctorch._utils\n_rebuild_tensor_v2\n(" + (given or storage()) + rebuilt + b"s."


FOUR = np.arange(4, dtype="<f4").tobytes()


def test_a_tensor_that_fits_is_read_on_the_cpu(tmp_path):
    found = read(packed(tmp_path / "a.pt", tensor(1, (3, 1), (1, 9)), {"0": FOUR}))[1]
    assert found.device.type == "cpu"
    assert found.tolist() == [[1.0], [2.0], [3.0]]


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [(1, (4,), (1,)), (0, (2, 3), (2, 1)), (-1, (2,), (1,)), (3, (2,), (-1,)), (0, (-1,), (1,)), (5, (0,), (1,)),
     (0, (1 << 30,), (0,)), (0, (2,), (1, 1))],
)  # fmt: skip
def test_tensors_outside_their_storage_are_errors(tmp_path, offset, size, stride):
    with pytest.raises(TeacherError, match=r"a\.pt is damaged"):
        read(packed(tmp_path / "a.pt", tensor(offset, size, stride), {"0": FOUR}))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (storage(numel=3), "16 bytes; expected 12"),
        (storage(numel=5), "16 bytes; expected 20"),
        (storage(kind="DoubleStorage"), "16 bytes; expected 32"),
        (storage(key="1"), "archive/data/1"),
        (storage(key="../data.pkl"), "archive/data/"),
    ],
)
def test_storages_that_lie_are_errors(tmp_path, given, told):
    with pytest.raises(TeacherError, match=told):
        read(packed(tmp_path / "a.pt", tensor(0, (1,), (1,), given), {"0": FOUR}))


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.pt"
    numel = 80 << 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("archive/data.pkl", tensor(0, (1,), (1,), storage(numel=numel)))
        with file.open("archive/data/0", "w", force_zip64=True) as member:
            block = bytes(4 << 20)
            for _ in range(numel * 4 // len(block)):
                member.write(block)
    with pytest.raises(TeacherError, match="unpacks to more than 4 times its size"):
        read(path)


def test_values_that_contain_themselves_are_errors(tmp_path):
    shared = packed(tmp_path / "a.pt", b"\x80\x02}K\x01]q\x00h\x00as.")
    assert len(read(shared)[1]) == 1  # a list in itself is a list
    deep = packed(tmp_path / "b.pt", b"\x80\x02}K\x01" + b"]" * 5000 + b"a" * 4999 + b"s.")
    with pytest.raises(TeacherError, match=r"b\.pt nests its values too deeply"):
        read(deep)


def repeated(levels):
    """A dict {0: list}, each list holding the one before ten times."""
    program = b"\x80\x02}K\x01](K\x00e"
    for k in range(levels):
        program += b"q%s0](%se" % (bytes([k]), b"h%s" % bytes([k]) * 10)
    return program + b"s."


def test_repeated_references_do_not_multiply(tmp_path):
    assert len(read(packed(tmp_path / "a.pt", repeated(5)))[1]) == 10
    with pytest.raises(TeacherError, match=r"b\.pt .* repeats itself"):  # 1e40 values when written out
        read(packed(tmp_path / "b.pt", repeated(40)))


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_what_torch_saves_is_read(tmp_path, options):
    base = torch.arange(12.0).reshape(3, 4)
    content = {
        "model": collections.OrderedDict(
            a=base,
            b=base.t()[1:],
            half=base.half(),
            bf=base.bfloat16(),
            ints=base.long(),
            flag=base > 3,
            none=torch.zeros(0, 5),
            scalar=torch.tensor(3),
            parameter=torch.nn.Parameter(base),
            byte=base.to(torch.uint8),
            c=base.to(torch.complex64),
        ),
        "cfg": OmegaConf.create({"model": {"layers": 3, "list": [1, {"x": None}], "same": "${model.layers}"}}),
        "args": argparse.Namespace(arch="x", sizes=[1, 2]),
        "extra": collections.defaultdict(list, {1: [b"", b"\x00\xff"], "s": {1, 2}}),
        "metrics": [
            np.float64(1.5),
            np.int64(-2),
            np.arange(6, dtype=np.float32).reshape(2, 3),
            np.asfortranarray(np.eye(2)),
        ],
        "last_optimizer_state": {0: torch.ones(3)},
    }
    content["model"]._metadata = {"": {"version": 1}}  # as state_dict() leaves it; not part of what is read
    path = tmp_path / "a.pt"
    torch.save(content, path, **options)
    assert path.read_bytes().startswith(LEGACY_START) == bool(options)
    found = read(path)
    assert list(found["model"]) == list(content["model"])
    for name, value in content["model"].items():
        assert found["model"][name].dtype == value.dtype
        assert torch.equal(found["model"][name], value)
    assert found["model"]["a"].untyped_storage().data_ptr() == found["model"]["b"].untyped_storage().data_ptr()
    assert found["cfg"] == {"model": {"layers": 3, "list": [1, {"x": None}], "same": "${model.layers}"}}
    assert found["args"] == content["args"]
    assert found["extra"] == dict(content["extra"])
    for value, expected in zip(found["metrics"], content["metrics"], strict=True):
        np.testing.assert_array_equal(value, expected)
        assert value.dtype == expected.dtype
    assert found["last_optimizer_state"] is None


def test_numpy_objects_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"a": np.array([{}, None], dtype=object)}, path)
    with pytest.raises(TeacherError, match="does not hold numbers"):
        read(path)


def test_other_spellings_of_numpy_are_read(tmp_path):
    for core in ("core", "_core"):
        program = pickle.dumps({"a": np.float64(0.25)}, 2).replace(b"numpy._core", f"numpy.{core}".encode())
        assert read(packed(tmp_path / "a.pt", program)) == {"a": 0.25}


class SentencePieceProcessor:
    def __init__(self, state):
        self.given = state

    def __getstate__(self):
        return self.given


class SentencepieceBPE:
    def __init__(self, state):
        self.sp, self.alpha = SentencePieceProcessor(state), 0.5


@pytest.mark.parametrize("state", [b"\x00proto", {"model_proto": b"\x00proto"}], ids=["bytes", "dict"])
def test_objects_of_fairseq_and_sentencepiece_become_stubs(tmp_path, state):
    program = pickle.dumps({"task_state": {"s2s_tokenizer": SentencepieceBPE(state)}}, 2)
    here = __name__.encode()
    program = program.replace(
        b"c%s\nSentencepieceBPE" % here, b"cfairseq.data.encoders.sentencepiece_bpe\nSentencepieceBPE"
    )
    program = program.replace(b"c%s\nSentenceP" % here, b"csentencepiece\nSentenceP")
    found = read(packed(tmp_path / "a.pt", program))["task_state"]["s2s_tokenizer"]
    assert isinstance(found, Stub)
    assert found.kind == "fairseq.data.encoders.sentencepiece_bpe.SentencepieceBPE"
    assert found.state["alpha"] == 0.5
    assert found.state["sp"].state == state


@pytest.mark.parametrize("options", [{}, LEGACY], ids=["zip", "legacy"])
def test_damaged_files_are_errors_that_name_them(tmp_path, options):
    path = tmp_path / "a.pt"
    torch.save({"model": {"w": torch.arange(1000.0), "v": torch.ones(7)}}, path, **options)
    whole = path.read_bytes()
    for length in (0, 1, 10, 40, len(whole) // 3, len(whole) - 200, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(TeacherError, match=r"a\.pt"):
            read(path)


def test_flipped_bits_of_weights_are_noticed(tmp_path):
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(1000, dtype="<f4").tobytes()) + 100] ^= 4
    path.write_bytes(data)
    with pytest.raises(TeacherError, match=r"a\.pt is damaged or not a checkpoint: Bad CRC-32"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"hello, world" * 50, b"PK\x03\x04" + bytes(50), b"\x80\x02}."])
def test_other_files_are_no_checkpoints(tmp_path, content):
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(TeacherError, match=r"a\.pt is .*no"):
        read(path)
    with pytest.raises(TeacherError, match=r"none\.pt"):
        read(tmp_path / "none.pt")


def test_a_checkpoint_is_a_dict(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(TeacherError, match="holds a dict, this one a list"):
        read(tmp_path / "a.pt")


@pytest.mark.golden
@pytest.mark.parametrize(("name", "dtype"), [("pretrain", torch.float32), ("seq2seq", torch.float16)])
def test_published_trainers_files_are_read_as_torch_reads_them(shared, name, dtype):
    path = shared / "golden" / f"avhubert_tiny_{name}.pt"
    found = read(path)
    assert {"args", "cfg", "model", "task_state", "extra_state", "optimizer_history"} < found.keys()
    assert found["cfg"]["model"]["_name"] == ("av_hubert" if name == "pretrain" else "av_hubert_seq2seq")
    floats = {value.dtype for value in found["model"].values() if value.is_floating_point()}
    assert floats == {dtype}
    (dictionary,) = found["task_state"]["dictionaries"]
    assert dictionary.kind == "fairseq.data.dictionary.Dictionary"
    assert len(dictionary.state["symbols"]) == 24

    def stub(kind):
        return type("Stub", (), {"__setstate__": lambda self, state: None}), kind

    kinds = [
        "fairseq.data.dictionary.Dictionary",
        "fairseq.data.encoders.sentencepiece_bpe.SentencepieceBPE",
        "sentencepiece.SentencePieceProcessor",
    ]
    with torch.serialization.safe_globals([stub(kind) for kind in kinds]):
        expected = torch.load(path, weights_only=True)["model"]
    assert list(expected) == list(found["model"])
    assert all(torch.equal(found["model"][key], value) for key, value in expected.items())


def nested(levels):
    """Program of a tuple in a tuple ..., each holding the one before twice: hashing it takes 2 ** levels steps."""
    return b")" + b"2\x86" * levels


FAT = b"X" + (100_000).to_bytes(4, "little") + b"a" * 100_000  # a text that is worth copying
ENCODED = b"c_codecs\nencode\n(h\x01X\x06\x00\x00\x00latin1tR"
COPIED = b"c__builtin__\nlist\nh\x01\x85R"
ARRAY = (
    b"cnumpy.core.multiarray\n_reconstruct\n)R(K\x01J\xa0\x86\x01\x00\x85"
    b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R(K\x03X\x01\x00\x00\x00|tb\x89h\x01tb"
)
ENDLESS = {
    "a nested tuple as a key": b"}" + nested(60) + b"K\x01s",
    "as one of several keys": b"}(K\x01K\x02" + nested(60) + b"K\x01u",
    "in a set": b"\x8f(" + nested(60) + b"\x90",
    "in a frozenset": b"(" + nested(60) + b"\x91",
    "in a set that is called": b"c__builtin__\nset\n(](" + nested(60) + b"etR",
    "in a mapping that is called": b"ccollections\nOrderedDict\n(](" + nested(60) + b"K\x01\x86etR",
    "a shape of ten thousand axes": tensor(0, (1,) * 10_000, (1,) * 10_000)[4:-2],
    "a text encoded again and again": b"]q\x00" + FAT + b"q\x010(" + ENCODED * 9999 + b"e",
    "a list copied again and again": b"](" + b"K\x01" * 9999 + b"eq\x010](" + COPIED * 9999 + b"e",
    "an array copied again and again": FAT.replace(b"X", b"B", 1) + b"q\x010](" + ARRAY * 9999 + b"e",
    "a million sets and more": b"](" + b"\x8f" * 1_200_000 + b"e",
    "a frame longer than the file": b"\x95" + b"\xff" * 5 + b"\x00" * 3 + b"N",
}


@pytest.mark.parametrize("program", ENDLESS.values(), ids=ENDLESS)
def test_what_would_take_minutes_or_gigabytes_is_an_error(tmp_path, program):
    path = packed(tmp_path / "evil.pt", b"\x80\x04}K\x01" + program + b"s.", {"0": FOUR})
    began = time.process_time()
    with pytest.raises(TeacherError, match=r"evil\.pt"):
        read(path)
    assert time.process_time() - began < 10  # some of them took hours


def test_the_older_container_is_bounded_too(tmp_path):
    legacy = LEGACY_START + pickle.dumps(1001, 2)
    system = b"\x80\x02](" + nested(60) + b"\x88\x86e."  # pairs of a dict
    for name, rest in {
        "system": system,
        "names": pickle.dumps({"little_endian": True}, 2) + b"\x80\x02}." + b"\x80\x02](" + nested(60) + b"e.",
    }.items():
        (tmp_path / name).write_bytes(legacy + rest)
        with pytest.raises(TeacherError, match=name):
            read(tmp_path / name)


def test_members_packed_in_ways_that_torch_does_not_are_refused(tmp_path):
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("archive/data.pkl", tensor(0, (1,), (1,)))
        file.writestr("archive/data/0", FOUR)
    with pytest.raises(TeacherError, match="compressed in a way that torch does not"):
        read(path)
