"""Hypothesis strategies for manifest rows of corpora with people, methods and lists of several sorts."""

from hypothesis import strategies as st

from pipelines.corpora import manifest
from pipelines.corpora.manifest import Row

KINDS = {  # of FakeAVCeleb: (label, category, method)
    "RVRA": (0, ""),
    "RVFA": (1, "rtvc"),
    "FVRA": (1, "wav2lip"),
    "FVRA2": (1, "faceswap"),
    "FVRA3": (1, "fsgan"),
    "FVFA": (1, "wav2lip"),
    "FVFA2": (1, "faceswap-wav2lip"),
    "FVFA3": (1, "fsgan-wav2lip"),
}


@st.composite
def clips(draw, corpus="fakeavceleb:x", people=12, splits=("", "train", "val", "test")):
    """Rows of one corpus: a real clip for each of several people, then fakes of any people; a few are listed again."""
    num = draw(st.integers(4, people))
    made = [("RVRA", (k,)) for k in range(num)]
    kinds = st.tuples(
        st.sampled_from(list(KINDS)[1:]), st.lists(st.integers(0, num - 1), min_size=1, max_size=3, unique=True)
    )
    made += [(kind, tuple(who)) for kind, who in draw(st.lists(kinds, max_size=40))]
    again = draw(st.lists(st.integers(0, len(made) - 1), max_size=4, unique=True))
    rows = []
    for k, copy in [*((k, 0) for k in range(len(made))), *((k, 1) for k in again)]:
        kind, who = made[k]
        label, method = KINDS[kind]
        rows.append(
            Row(
                f"/data{copy}/set/{kind[:4]}/id{who[0]}/clip_{k}x{'-'.join(map(str, who))}.mp4",
                label=label,
                audio_fake=int(kind[2:4] == "FA"),
                video_fake=int(kind[:2] == "FV"),
                method=method,
                category=kind[:4],
                identities=tuple(f"id{p}" for p in who),
                split=draw(st.sampled_from(splits)),
                id=f"{corpus}/{copy}/{k}",
                corpus=corpus,
                listed_frames=float(draw(st.integers(50, 60))),
                listed_fps=25.0,
                listed_samples=32000.0 + 640 * k,
                listed_sample_rate=16000.0,
            )
        )
    return manifest.with_groups(rows)
