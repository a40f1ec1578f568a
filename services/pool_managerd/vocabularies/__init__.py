"""Questions about the tokens of models whose files are here: answered by processes that read their vocabularies."""
