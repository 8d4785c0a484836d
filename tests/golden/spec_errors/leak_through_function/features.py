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


def days_kept(returned_at, ordered_at):
    """Days until it came back."""
    return (returned_at - ordered_at).dt.days


def kept_long(days_kept):
    """Whether it was kept for a week."""
    return days_kept > 7


def last_return_month(last_return):
    """Fine: last_return is marked."""
    return last_return.dt.month
