"""A demonstration corpus made from packages alone: a public-domain portrait that says synthetic sentences.

    sentences   what is said, in groups that never cross a split
    speech      sentence -> sound and phoneme times (piper; the only module that imports it)
    visemes     phoneme times -> mouth shapes, and the mouth of other words in step with a voice
    portrait    mouth shape -> picture
    plan        the clips of a corpus, decided by a seed before anything is drawn
    film        camera, light, noise, room, and one encoder for every clip
    build       plan -> folder with clips, manifest, word times and README

It shows that the project runs and what its outputs look like. With one face, one voice and home-made forgeries it
supports no scientific claim.
"""
