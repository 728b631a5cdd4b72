"""Frozen models that turn clips into embeddings, and the face and voice stages that feed them."""

from concord.frames import FACE, VOICE_ACTIVE
from teachers.base import ClipMedia, Teacher, TeacherError, known, load

__all__ = ["FACE", "VOICE_ACTIVE", "ClipMedia", "Teacher", "TeacherError", "known", "load"]
