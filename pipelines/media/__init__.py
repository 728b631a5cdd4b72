"""Any media file to pictures and samples on our clock."""
