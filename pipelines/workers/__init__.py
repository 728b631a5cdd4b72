"""Code that runs on nodes: batches of clips, and the stages that read and embed them, each in a child process."""
