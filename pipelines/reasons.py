"""Why a clip failed, in one word: every reason in ledgers, receipts, audits and answers, listed once.

docs/precompute.md explains the same words to users; a test compares the lists.
"""

REASONS = {
    "unreadable": "The file cannot be opened, or is not a media file.",
    "no_video": "The file has no video stream.",
    "no_audio": "The file has no sound that can be decoded.",
    "no_track": "The file has no sound track of the number asked for.",
    "no_face": "A face was found in too few frames.",
    "no_speech": "Too little is spoken for a forgery (pipelines.forge).",
    "no_donor": "There is no other clip that a forgery may take from (pipelines.forge).",
    "mouth_only": "The pictures show a mouth and no whole face.",
    "truncated": "Data that the header declares is missing or damaged.",
    "too_short": "The clip is too short for a word.",
    "limit": "The file has more bytes, pixels, seconds or streams than this program accepts.",
    "longer_than_slot": "The header declared fewer frames than were decoded; the clip is processed again in a larger slot.",
    "crash": "The clip crashed its worker in every attempt.",
    "timeout": "The clip exceeded the time limit in every attempt.",
    "killed": "The worker was killed from outside, or because memory ran out.",
    "io": "A disk or a bucket could not be read or written.",
    "memory": "There was not enough memory.",
    "device": "A GPU stopped working.",
    "not_finite": "A teacher gave values that are not finite, or too large to be stored.",
    "error": "The program itself raised an unexpected error.",
}
OVERFLOW = "longer_than_slot"
# These are faults of the machine, not of the clip: the next run tries it again.
INFRASTRUCTURE = frozenset({"io", "memory", "killed", "device"})

assert OVERFLOW in REASONS
assert REASONS.keys() >= INFRASTRUCTURE
