"""Features of an order."""

from ml_assets.features.marks import reads_past


def returned(returned_at):
    """Whether the order came back."""
    return returned_at.notna().astype("float64")


def order_value(quantity, prize):
    """Quantity times price."""
    return quantity * prize


@reads_past
def last_return(returned_at, customer_id):
    """Time of the customer's last return before this order."""
    return returned_at.groupby(customer_id).shift()


def age_band(buyer_agee):
    """Ten years of age."""
    return buyer_agee // 10


def clip(values, lowest):
    """Helper without an underscore."""
    return values.clip(lowest)
