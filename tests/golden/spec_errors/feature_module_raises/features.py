"""Features of an order."""

import math

LIMITS = {"price": 100}
MOST = math.log(LIMITS["prize"])
