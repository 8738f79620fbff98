"""medtransfer: which way of reusing a pretrained CNN is best for these images, this much data and this compute?"""

__version__ = "0.1.0"

# Part of every fingerprint. Raise it when a change to the harness changes results, so that no stale row is shown as
# current.
ENGINE = 4
