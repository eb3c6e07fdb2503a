"""Translates: what every provider is built from: the contract, and the grammar that vendors share."""
