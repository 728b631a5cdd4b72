"""Frozen models that turn clips into embeddings, and the face and voice stages that feed them."""

from concord.frames import FACE, VOICE_ACTIVE
from teachers.base import ClipMedia, Teacher, TeacherError, known, load

VOICE = VOICE_ACTIVE  # its name in version 0.1

__all__ = ["FACE", "VOICE", "VOICE_ACTIVE", "ClipMedia", "Teacher", "TeacherError", "known", "load"]
