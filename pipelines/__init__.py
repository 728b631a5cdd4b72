"""From video files to a store, and what there is to know before and after: corpora, jobs, labels, audits, manifests."""
