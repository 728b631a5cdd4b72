"""What tests of teachers share: the contract that every teacher keeps, and made clips."""
