"""The paper's pair of teachers: characters recognised from the sound and from the lips, 40 log posteriors per frame
each.

    deep_avsr-audio:PATH                 sound alone
    deep_avsr-video:PATH[,FRONTEND]      picture alone

The two networks of github smeetrs/deep_avsr (commit b68a8db), rewritten; the user supplies the weights. PATH is a file,
or the name of one in $CONCORD_WEIGHTS or the cache. It holds the network's keys without a prefix, as deep_avsr saves
them, or under ASRmodel. (sound) and VSRmodel. (picture), as in the detector of the paper's authors, whose other keys
are ignored. The visual front end is looked for under visual_frontend. in the same file. FRONTEND is a second file, with
its keys without a prefix or under that one, and takes precedence. A path with a comma is read as one path if such a
file exists.

Class 0 is the CTC blank, 39 the end mark; `CHARACTERS` names all. Rows are natural logarithms, because in half
precision these keep the far tail on which the paper's divergence depends. The networks are always in evaluation mode
(the authors leave dropout active in their teachers). `prepare` says how sound and pictures are prepared, and where the
two published ways differ. The authors cut clips off after 1000 frames; here longer clips are read in windows that
overlap by 100. The sound level and the front end's neighbouring frames are still those of the whole clip.
"""

from teachers.deep_avsr.teacher import CHARACTERS, DeepAVSRAudio, DeepAVSRVideo, load_audio, load_video

__all__ = ["CHARACTERS", "DeepAVSRAudio", "DeepAVSRVideo", "load_audio", "load_video"]
