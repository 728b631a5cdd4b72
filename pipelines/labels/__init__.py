"""The second pass: a shared space learned from the store, calibrated, and written as projections and soft labels."""
