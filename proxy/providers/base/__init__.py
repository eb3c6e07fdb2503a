"""Translates: the building blocks of all providers: the contract, and the grammar that vendors share."""
