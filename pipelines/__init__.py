"""From video files to a store, with the tools around it: corpora, jobs, labels, audits, manifests."""
