"""Which sound of a file is taken: of several tracks, and of the mixes of its channels, the one with the voice."""
