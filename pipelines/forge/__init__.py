"""Makes forged clips from anyone's real ones, encoded like the reals, with labels, a manifest and contact sheets."""
