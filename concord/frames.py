"""The common clock of the project and the flags of a frame, used by `teachers.ClipMedia` and `store.layout`.

Frame k of a clip covers [t0 + k/25, t0 + (k+1)/25) s, where t0 is the time of the first picture that is displayed;
sample 640 k of its sound is at t0 + k/25 s.
"""

FPS = 25  # frames per second
SAMPLE_RATE = 16_000  # samples per second
SAMPLES_PER_FRAME, _rest = divmod(SAMPLE_RATE, FPS)  # 640
assert _rest == 0

# Bits of a frame's flags, u1.
FACE_DETECTED = 1
FACE_INTERPOLATED = 2  # no face was detected; the track is interpolated between frames with one
AUDIO_PRESENT = 4
VOICE_ACTIVE = 8
IN_USE = 16  # the row belongs to a clip
HELD = 32  # the picture stands still: repeated to fill the clock, a photo, a freeze; it is no evidence
FACE = FACE_DETECTED | FACE_INTERPOLATED
