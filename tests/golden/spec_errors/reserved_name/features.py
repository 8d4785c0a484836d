"""Features of an order."""

from ml_assets.features.marks import reads_past


def returned(returned_at):
    """Whether the order came back."""
    return returned_at.notna().astype("float64")


def order_value(quantity, price):
    """Quantity times price."""
    return quantity * price


@reads_past
def last_return(returned_at, customer_id):
    """Time of the customer's last return before this order."""
    return returned_at.groupby(customer_id).shift()


def event_time(ordered_at):
    """Hour."""
    return ordered_at.dt.hour
