"""Why a clip failed, in one word: every reason that a ledger, a receipt, an audit or an answer may give, listed once.

docs/precompute.md explains the same words to users; a test compares both lists.
"""

REASONS = {
    "unreadable": "The file cannot be opened, or is not a media file.",
    "no_video": "The file has no video stream.",
    "no_audio": "The file has no sound that can be decoded.",
    "no_face": "A face was found in too few frames.",
    "truncated": "Data that the header declares is missing or damaged.",
    "too_short": "The clip is too short to hold a word.",
    "limit": "The file has more bytes, pixels, seconds or streams than this program accepts.",
    "longer_than_slot": "The header promised fewer frames than were decoded; the clip is worked on again in a larger slot.",
    "crash": "The clip crashed its worker, as often as was tried.",
    "timeout": "The clip kept its worker longer than the time limit, as often as was tried.",
    "killed": "The worker was killed from outside, or because memory ran out.",
    "io": "A disk or a bucket could not be read or written.",
    "memory": "There was not enough memory.",
    "device": "A GPU stopped working.",
    "not_finite": "A teacher gave values that are not finite, or too large to be stored.",
    "error": "The program itself raised an error that nobody foresaw.",
}
OVERFLOW = "longer_than_slot"
# These are the machine's fault and say nothing about the clip: the next run tries it again.
INFRASTRUCTURE = frozenset({"io", "memory", "killed", "device"})

assert OVERFLOW in REASONS
assert REASONS.keys() >= INFRASTRUCTURE
