"""The teacher pair of the paper: which characters the sound says and which the lips say, 40 log posteriors a frame each.

    deep_avsr-audio:PATH                 sound alone
    deep_avsr-video:PATH[,FRONTEND]      picture alone

The two networks of github smeetrs/deep_avsr (commit b68a8db), rewritten; the user brings the weights. PATH is a file, or
the name of one in $CONCORD_WEIGHTS or the cache. It holds the network's keys bare, as deep_avsr saves them, or under
ASRmodel. (sound) and VSRmodel. (picture), as in the detector of the paper's authors, whose other keys are left alone. The
visual front end is looked for under visual_frontend. in the same file; FRONTEND is a second file, with its keys bare or
under that prefix, and goes before. A path with a comma is taken whole where such a file exists.

Class 0 is the CTC blank, 39 the end mark; `CHARACTERS` names all. Rows are natural logarithms, since in half precision
these keep the far tail on which the paper's divergence depends. The networks are always in evaluation mode (the authors
leave dropout on in their teachers). How sound and pictures are prepared, and where the two published ways differ:
`prepare`. Clips over 1000 frames, which the authors cut off, go in windows that overlap by 100; sound level and the front
end's neighbours are still those of the whole clip.
"""

from teachers.deep_avsr.teacher import CHARACTERS, DeepAVSRAudio, DeepAVSRVideo, load_audio, load_video

__all__ = ["CHARACTERS", "DeepAVSRAudio", "DeepAVSRVideo", "load_audio", "load_video"]
