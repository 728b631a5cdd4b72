"""Arrays of clips that every package handles: pictures that stand still, and arrays too large for memory."""
