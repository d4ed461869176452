"""Every test network, by name: NETS. Small, with odd sizes; what they have in common stands in net.py."""

import attention  # noqa: F401
import convolutional  # noqa: F401
import plain  # noqa: F401
import spelled  # noqa: F401
from net import NETS, Net

__all__ = ["NETS", "Net"]
