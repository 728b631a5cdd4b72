"""AV-HuBERT: an encoder of speech from lips, sound or both (`teacher`), its input (`features`), its network (`resnet`, `model`,
`decoder`, on fairseq) and its checkpoints (`loading`). Importing this package imports neither torch nor fairseq."""

from teachers.avhubert.teacher import AVHubertTeacher, audio, both, video

__all__ = ["AVHubertTeacher", "audio", "both", "video"]
