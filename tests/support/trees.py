"""Small corpora in the layouts in which they are published, with the faults that their releases have."""

import json
from pathlib import Path


def touch(root: Path, *paths: str) -> None:
    """Empty files; adapters read lists and names alone."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def put(root: Path, path: str, content: object) -> None:
    """A text or JSON file."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content if isinstance(content, str) else json.dumps(content))


META = "source,target1,target2,method,category,type,race,gender,path,\n"


def fakeavceleb(root: Path, race: str = "Asian_East") -> Path:
    """v1.2, doubled root, a renamed race folder, a double line, a file without a line, a line without a file, stray text."""
    base = root / "FakeAVCeleb_v1.2" / "FakeAVCeleb_v1.2"
    real, fake = f"RealVideo-RealAudio/{race}/men/id00001", f"FakeVideo-FakeAudio/{race}/men/id00001"
    name = "00001_id00002_id00003_wavtolip.mp4"
    touch(base, f"{real}/00001.mp4", f"{fake}/{name}", f"{fake}/00009_id00004_wavtolip.mp4", f"{fake}/note.txt")
    listed = "FakeAVCeleb/{}/Asian (East)/men/id00001"
    line = f"id00001,id00002,id00003,wav2lip,D,x,Asian (East),men,{name},{listed.format('FakeVideo-FakeAudio')}\n"
    put(
        base,
        "meta_data.csv",
        META
        + f"id00001,-,-,real,A,x,Asian (East),men,00001.mp4,{listed.format('RealVideo-RealAudio')}\n"
        + line
        + line
        + f"id00001,-,-,rtvc,B,x,Asian (East),men,gone.mp4,{listed.format('RealVideo-FakeAudio')}\n",
    )
    return root


def lavdf(root: Path, name: str = "metadata.json") -> Path:
    real = {
        "file": "train/1.mp4",
        "n_fakes": 0,
        "fake_periods": [],
        "duration": 4.0,
        "original": None,
        "split": "train",
    }
    real |= {"modify_video": False, "modify_audio": False, "video_frames": 100, "audio_frames": 64000}
    fake = {**real, "file": "dev/2.mp4", "n_fakes": 1, "fake_periods": [[1.0, 1.5]], "original": "train/1.mp4"}
    fake |= {"split": "dev", "modify_audio": True}
    fast = {**fake, "file": "dev/3.mp4", "video_frames": 250, "n_fakes": 2}
    bad = {**fake, "file": "dev/4.mp4", "fake_periods": [[2.0, 1.0]], "audio_channels": 0}
    put(root, name, [real, fake, fake, fast, bad, {**real, "file": "test/5.mp4", "split": "test"}])
    touch(root, "train/1.mp4", "dev/2.mp4", "dev/3.mp4", "dev/4.mp4", "dev/6.mp4")
    return root


def avdeepfake1m(root: Path) -> Path:
    real = {"file": "id00001/yt/1/real.mp4", "modify_type": "real", "split": "train", "fake_segments": []}
    real |= {"video_frames": 100, "audio_frames": 64000}
    both = {**real, "file": "id00001/yt/1/both.mp4", "modify_type": "both-modified", "audio_model": "vits"}
    both |= {"audio_fake_segments": [[0.5, 1]], "visual_fake_segments": [[1, 1.5]], "original": real["file"]}
    sound = {**both, "file": "vox_celeb_2/id00002/yt/1/a.mp4", "modify_type": "audio_modified"}
    odd = {**real, "file": "lrs3/abc/1/x.mp4", "modify_type": "remade"}
    put(root, "train_metadata.json", [real, both, both])
    put(root, "val_metadata.json", [sound, odd])
    put(root, "test_files.txt", "000001.mp4\n")
    touch(root, "train/id00001/yt/1/real.mp4", "train/id00001/yt/1/both.mp4", "moved/vox_celeb_2/id00002/yt/1/a.mp4")
    touch(root, "test/000001.mp4", "train/id00001/yt/1/extra.mp4")
    return root


def polyglotfake(root: Path) -> Path:
    put(
        root,
        "original_content/es/es.json",
        {"language": "es", "videos": [{"filename": "es_1.mp4"}, {"filename": "es_1.mp4"}]},
    )
    put(
        root,
        "manipulated_content/to_ru/ru.json",
        {"videos": [{"filename": "es_1_to_ru_Xtts.mp4"}, {"filename": "gone.mp4"}]},
    )
    touch(root, "original_content/es/videos/es_1.mp4", "manipulated_content/to_ru/videos/es_1_to_ru_Xtts.mp4")
    touch(root, "manipulated_content/to_ru/videos/es_2_to_ru_Bark.mp4")
    return root


CMDFD = (
    "ID_Name,Audio_Path,Video_Path,ENtire_Label,Audio_Label,Video_Label,Identi_Label,Sync_Label,Frame_Len,Audio_Len,"
    "FPS,AudioSamRate\n"
)


def cmdfd(root: Path) -> Path:
    top = "/elsewhere/My_Test"
    real = f"origin+id00001_a,{top}/origin/id00001_a.wav,{top}/origin/id00001_a.mp4,0,0,0,1,1,100,64000,25.0,16000\n"
    fake = f"M+1,{top}/{{0}}/id00001-id00002.wav,{top}/{{0}}/id00001-id00002.mp4,1,0,1,0,{{1}},250,64000,25.0,16000\n"
    put(root, "csvfile/MakeItTalk.csv", CMDFD + real + fake.format("MakeItTalk", 0) * 2)
    put(root, "csvfile/W2L.csv", CMDFD + real + fake.format("wav2lip", 1).replace(",250,", ",100,"))
    touch(root, "My_Test/origin/id00001_a.mp4", "My_Test/origin/id00001_a.wav", "My_Test/wav2lip/id00001-id00002.mp4")
    return root


def fakeavceleb_faults(root: Path, columns: str = "path,") -> Path:
    """Each fault that a v1.2 release can have, once; `columns` names the file's and the folder's column."""
    people = "Asian (East)/men/id00001"
    lines = [
        ("wav2lip", "C", "FakeVideo-FakeAudio", "conflict_wavtolip.mp4"),  # its folder is D
        ("wav2lip", "A", "RealVideo-RealAudio", "real.mp4"),  # a real clip with a method
        ("faceswap", "C", "FakeVideo-RealAudio", "twice.mp4"),
        ("fsgan", "C", "FakeVideo-RealAudio", "twice.mp4"),  # the lines disagree
        ("real", "A", "RealVideo-RealAudio", "two_spellings.mp4"),
    ]
    rows = [
        f"id00001,id00002,-,{method},{category},x,Asian (East),men,{name},FakeAVCeleb/{top}/{people}\n"
        for method, category, top, name in lines
    ]
    put(root, "meta_data.csv", META.replace("path,", columns) + "".join(rows))
    touch(root, *(f"{top}/{people}/{name}" for _, _, top, name in lines))
    touch(root, "RealVideo-RealAudio/Asian_East/men/id00001/two_spellings.mp4")
    touch(root, f"FakeVideo-RealAudio/{people}/no_hint.mp4")
    return root


def fakeavceleb_doubles(root: Path, num: int = 22) -> Path:
    """The 22 lines of category D that stand twice in v1.2's list, among others."""
    folder = "FakeVideo-FakeAudio/African/women/id00009"
    names = [f"{k:05d}_id00010_wavtolip.mp4" for k in range(2 * num)]
    lines = [f"id00009,id00010,-,wav2lip,D,x,African,women,{name},FakeAVCeleb/{folder}\n" for name in names]
    put(root, "meta_data.csv", META + "".join(lines + lines[:num]))
    touch(root, *(f"{folder}/{name}" for name in names))
    return root


def avdeepfake1m_clip_by_clip(root: Path) -> Path:
    """One JSON a clip in place of the split's list, with the faults that AV-Deepfake1M's entries can have."""
    base = {"modify_type": "real", "fake_segments": [], "video_frames": 100, "audio_frames": 64000}
    sound = {**base, "modify_type": "audio_modified"}
    entries = {
        "id00001/yt/1/real": {**base, "file": "id00001/yt/1/real.mp4"},
        "id00001/yt/1/unnamed": base,  # its path is the JSON's
        "id00001/yt/1/forged_real": {**base, "fake_segments": [[0, 1]]},
        "id00001/yt/1/whole": sound,
        "id00001/yt/1/late": {**sound, "audio_fake_segments": [[3.5, 4.5]]},
        "id00001/yt/1/bad": {**sound, "audio_fake_segments": [[2, 1], [1, 2]]},
        "id00001/yt/1/gone": base,
    }
    for name, entry in entries.items():
        put(root, f"train_metadata/{name}.json", entry)
    touch(root, *(f"train/{name}.mp4" for name in entries if "gone" not in name))
    touch(root, "moved/id00001/yt/1/real.mp4")
    return root
