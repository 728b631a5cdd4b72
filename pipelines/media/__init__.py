"""From any media file to pictures and samples on the project's clock."""
