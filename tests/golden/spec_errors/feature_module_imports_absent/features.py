"""Features of an order."""

import pandsa as pd
