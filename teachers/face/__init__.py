"""The face stage: mouth crops, lip landmarks, blendshapes and whole faces of one track, by MediaPipe's networks."""
