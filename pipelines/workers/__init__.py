"""What runs on a node: batches of clips, the stages that watch and embed them, each in a child of its own."""
