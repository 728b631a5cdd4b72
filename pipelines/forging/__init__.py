"""Ways of forging a real clip: what each is given, how it changes sound or picture, and the clip as they get it."""
