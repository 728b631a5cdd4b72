"""Corpora as they are on disk: one small module per kind, found by the entry-point group `concord.corpora`.

An adapter is a function `rows(root: Path)` that yields `pipelines.corpora.manifest.Row` (or mappings with its fields); paths
may be relative to the root. One marked `@reads_urls` also takes the `store.place.Place` of a bucket (`place(root)` makes one of
both).
"""
