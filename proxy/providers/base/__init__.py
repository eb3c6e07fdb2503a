"""Translates: what every provider is made of: the contract, and the grammar that vendors share."""
