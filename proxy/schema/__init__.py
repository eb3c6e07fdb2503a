"""Values: the words every room uses: chat shapes, records, errors, JSON and event streams."""
