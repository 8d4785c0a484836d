"""Features of an order."""


def returned(returned_at)
    return returned_at.notna()
