"""Frozen models that turn clips into embeddings, and the face and voice stages that feed them."""

from teachers.base import FACE, VOICE, ClipMedia, Teacher, TeacherError, known, load

__all__ = ["FACE", "VOICE", "ClipMedia", "Teacher", "TeacherError", "known", "load"]
