"""From a store's rows to windows, pairs and degradations for training and scoring."""
